"""A kernel's way to its template on GPUs; `nncc.gpu.loops`, then TVM's dlight, for what has none.

Unlike on processors no block may keep plain loops: each is bound to threads, or the kernel is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nncc.compat import s_tir, structural_walk, tirx, tvm
from nncc.errors import InternalError, ModelError
from nncc.gpu import loops as gpu_loops
from nncc.kernels.anchors import place_anchors, start
from nncc.kernels.choices import Choices
from nncc.scheduling import ANCHOR, PART, is_spatial, swells, transcendentals
from nncc.target import Hardware

if TYPE_CHECKING:
    from nncc.kernels.templates import Template

__all__ = ["is_block", "refuse_own_code", "schedule_kernel"]

_FOR_GPUS = "cuda_"
_HINT = "compile the model for a processor, or remove the operator: "
_HINT += "`nncc show MODEL.onnx --stage simplify` shows the graph"


def is_block(function: Any) -> bool:
    """Whether a function without loops is one block that stores one value, as against a call of our own C."""
    realized = function.body.block.body
    return isinstance(realized, s_tir.SBlockRealize) and isinstance(realized.block.body, tirx.BufferStore)


def _refuse_loops_of_others(sch: Any) -> None:
    """ModelError: TVM brings loops of its own for an operator, several kernels in one block."""
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        node = sch.get(block)
        if not node.iter_vars and not isinstance(node.body, tirx.BufferStore):
            raise ModelError(
                f"the model uses `{node.name_hint.removesuffix('_gpu')}`, which GPUs cannot do yet",
                _HINT,
            )


def _name(function: Any) -> str:
    """The function's, or where it has none, that of its innermost block."""
    if function.attrs and "global_symbol" in function.attrs:
        return str(function.attrs["global_symbol"])
    blocks: list[Any] = []
    structural_walk(function.body, [(s_tir.SBlock, blocks.append)])
    return str(next(block.name_hint for block in [*blocks[::-1], *blocks] if block.name_hint != "root"))


_OPERATORS = {
    "select": "NonZero, Unique, Compress or NonMaxSuppression",
    "scan": "CumSum, CumProd or Multinomial",
    "random": "Bernoulli, RandomNormal or RandomUniform",
    "det": "Det",
}
"""By the name of a kernel, what it may be in the model, where that has another name."""


def refuse_own_code(function: Any) -> None:
    """ModelError: the kernel is a call of our own C, which no GPU can run."""
    name = _name(function)
    also = next((f" ({words})" for kernel, words in _OPERATORS.items() if name.rstrip("0123456789_") == kernel), "")
    raise ModelError(
        f"the kernel `{name}`{also} is code for processors, which GPUs cannot run",
        _HINT,
    )


def schedule_kernel(
    function: Any, templates: Mapping[str, Template], hardware: Hardware, choices: Choices
) -> tuple[Any, str]:
    """The function with all of its loops bound to threads, and where its schedule came from."""
    _refuse_loops_of_others(start(function)[0])
    attempts = (_by_templates, _by_loops, _by_dlight)
    reasons = []
    for attempt in attempts:
        choices.again()
        try:
            sch, origin = attempt(function, templates, hardware, choices)
        except (tvm.s_tir.ScheduleError, tvm.error.InternalError, ValueError) as error:
            reasons.append(str(error).strip().splitlines()[0])
            continue
        return sch.mod["main"], origin
    raise InternalError(f"no loops for a GPU could be made: {'; '.join(reasons)}")


def _by_templates(
    function: Any, templates: Mapping[str, Template], hardware: Hardware, choices: Choices
) -> tuple[Any, str]:
    sch, _held = start(function)
    blocks = list(sch.get_child_blocks(sch.get_sblock("root")))
    anchors = [b for b in blocks if _owner(sch, b, ANCHOR)]
    owned = {sch.get(b).name_hint for b in blocks if _owner(sch, b, ANCHOR) or _owner(sch, b, PART)}
    _inline(sch, blocks, owned)
    _, origins = place_anchors(sch, anchors, templates, hardware, choices)
    _rest(sch, hardware, choices)
    return sch, "; ".join(origins) or "loops"


def _owner(sch: Any, block: Any, word: str) -> str:
    """The template for GPUs that a block belongs to; those for processors define what plain loops compute here."""
    name = str(sch.get(block).annotations.get(word, ""))
    return name if name.startswith(_FOR_GPUS) else ""


def _by_loops(
    function: Any, templates: Mapping[str, Template], hardware: Hardware, choices: Choices
) -> tuple[Any, str]:
    sch, _held = start(function)
    _inline(sch, list(sch.get_child_blocks(sch.get_sblock("root"))), set())
    _rest(sch, hardware, choices)
    return sch, "loops"


def _by_dlight(
    function: Any, templates: Mapping[str, Template], hardware: Hardware, choices: Choices
) -> tuple[Any, str]:
    from tvm.s_tir.dlight import gpu

    sch = gpu.Fallback().apply(function.with_attr("global_symbol", "main"), tvm.target.Target.current(), False)
    if sch is None:
        raise ValueError("dlight has no loops for it")
    return sch, "dlight"


def _rest(sch: Any, hardware: Hardware, choices: Choices) -> None:
    for block in sch.get_child_blocks(sch.get_sblock("root")):
        gpu_loops.place(sch, block, hardware, choices)


def _inline(sch: Any, blocks: list[Any], owned: set[str]) -> None:
    """Inline what costs nothing, or little, to compute again where it is used."""
    for block in blocks:
        consumers = sch.get_consumers(block)
        if sch.get(block).name_hint in owned or not consumers or not is_spatial(sch, block):
            continue
        reduces = any(not is_spatial(sch, c) for c in consumers)
        if (transcendentals(sch, block) and (reduces or len(consumers) > 1)) or swells(sch, block, consumers):
            continue
        try:
            sch.compute_inline(block)
        except tvm.s_tir.ScheduleError:
            continue
