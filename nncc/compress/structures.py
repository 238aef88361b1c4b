"""What goes as one when a model is pruned: `STRUCTURES` names the ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from nncc.compress.channels import Channels, channel_groups
from nncc.compress.importance import IMPORTANCE
from nncc.compress.parts import Analysis, Cutter
from nncc.compress.search import RATIOS
from nncc.compress.surgeon import RANKS, Block
from nncc.compress.zero_groups import block_groups, weight_groups
from nncc.compress.zeros import Zeros, some_blocks, some_weights
from nncc.errors import UsageError, did_you_mean
from nncc.kernels.skipping import MOST_OUTPUTS, WORD

if TYPE_CHECKING:
    import onnx_ir

    from nncc.compress.material import Choices, Material
    from nncc.quant.request import Start, Tell

__all__ = ["STRUCTURES", "Structure", "structure_of"]


_RATIOS = (0.25, 0.5, 0.7, 0.85, 0.95)
"""Of zeros: layers go far, and are suddenly ruined."""


@dataclass(frozen=True)
class Structure:
    """What goes as one, and what that is good for."""

    unit: str
    """What a group has so many of: a word in the plural."""
    counted: str
    """What `--sparsity` is a part of."""
    ranks: Sequence[str]
    """What may rank units, the best one first."""
    analyze: Callable[[onnx_ir.Model, Mapping[str, tuple[int, ...]]], Analysis]
    """What may go from a prepared graph of values of these shapes."""
    cutter: Callable[[Material, Choices, Start, Tell], Cutter]
    ratios: Sequence[float]
    """Parts of a group that are removed to measure its curve."""
    gain: str
    """What its user gets."""
    needs: str
    """What a model must have."""
    slow: str = ""
    """Why it saves no time; empty where it does."""
    shrinks: bool = False
    """Whether tensors have fewer elements; else there are zeros in them."""


def _blocks(block: Block) -> Structure:
    slow = "" if block.inputs % WORD == 0 else f"kernels skip blocks of {WORD} inputs, and none of {block.inputs}"
    few = "" if block.outputs % MOST_OUTPUTS == 0 else f" and vectors have at most {block.outputs} floats"
    skipped = f"`nncc compile` skips blocks of zeros where that is predicted to be faster{few}"
    return Structure(
        unit="blocks of each row of blocks",
        counted="multiplications",
        ranks=RANKS,
        analyze=partial(block_groups, block=block),
        cutter=partial(Zeros, masks=some_blocks(block)),
        ratios=_RATIOS,
        gain=f"size only: {slow}; `nncc compile` stores zeros compressed" if slow else skipped,
        needs="a convolution or product with constant weights is needed, of twice a block's inputs at least",
        slow=slow,
    )


STRUCTURES: Mapping[str, Structure] = {
    "channels": Structure(
        unit="channels",
        counted="multiplications",
        ranks=tuple(IMPORTANCE),
        analyze=channel_groups,
        cutter=Channels,
        ratios=RATIOS,
        gain="less time and fewer bytes, in any runtime",
        needs="a layer between two others is needed, all of which nncc understands",
        shrinks=True,
    ),
    "block16x4": _blocks(Block(16, 4)),
    "unstructured": Structure(
        unit="weights of each output, on average",
        counted="weights",
        ranks=RANKS,
        analyze=weight_groups,
        cutter=partial(Zeros, masks=some_weights),
        ratios=_RATIOS,
        gain="size only: kernels do not skip single zeros; `nncc compile` stores them compressed",
        needs="a convolution or product with constant weights is needed, of a thousand weights at least",
        slow="kernels do not skip single zeros",
    ),
}
"""Blocks may be of other sizes too: see `structure_of`."""
_OUTPUTS = (4, 8, 16, 32)
_INPUTS = (1, 2, 4, 8, 16)


def structure_of(word: str) -> Structure:
    """The structure of that name; ``block8x4`` is a block of 8 outputs and 4 inputs. UsageError if there is none."""
    if word in STRUCTURES:
        return STRUCTURES[word]
    sizes = re.fullmatch(r"block(\d{1,4})x(\d{1,4})", word)
    if sizes is None:
        raise UsageError(
            f"structure `{word}` is not known; there is {', '.join(STRUCTURES)}",
            did_you_mean(word, STRUCTURES) or "`block8x4` is a block of 8 outputs by 4 inputs",
        )
    outputs, inputs = int(sizes[1]), int(sizes[2])
    if outputs not in _OUTPUTS or inputs not in _INPUTS:
        raise UsageError(
            f"structure `{word}` has blocks of {outputs} outputs by {inputs} inputs",
            f"outputs are one of {', '.join(map(str, _OUTPUTS))}, inputs one of {', '.join(map(str, _INPUTS))}; "
            "kernels skip blocks of a vector of outputs by 4 inputs, so `block16x4` fits all targets",
        )
    return _blocks(Block(outputs, inputs))
