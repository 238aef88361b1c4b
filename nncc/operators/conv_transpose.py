"""ConvTranspose with its padding spelled out.

size = (n - 1) s + (k - 1) d + 1 + output_padding - before - after
output_shape given:  before + after = (n - 1) s + (k - 1) d + 1 + output_padding - output_shape
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import shape_of

__all__ = ["conv_transpose"]

_OPERATORS = {1: ("1d", "W"), 2: ("2d", "HW"), 3: ("3d", "DHW")}


def conv_transpose(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """ConvTranspose of every opset, of signals, images and volumes."""
    x, weight, bias = [*inputs, None][:3]
    size, (channels, per_group, *window) = shape_of(x)[2:], shape_of(weight)
    rank, groups = len(size), int(attributes.get("group", 1))
    strides, dilations = attributes.ints("strides", [1] * rank), attributes.ints("dilations", [1] * rank)
    extra = attributes.ints("output_padding", [0] * rank)
    if rank not in _OPERATORS or len(window) != rank:
        raise ModelError(f"its weights of shape {shape_of(weight)} do not fit an input of shape {shape_of(x)}")
    if min([*strides, *dilations, *window, *size]) < 1 or min(extra) < 0 or groups < 1 or channels % groups:
        raise ModelError("its sizes, strides, dilations or groups are not positive, or its output_padding is negative")
    if shape_of(x)[1] != channels:
        raise ModelError(f"its weights are for {channels} channels, its input has {shape_of(x)[1]}")
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(size, strides, window, dilations, strict=True)]
    before, after = _padding(attributes, size, strides, full, extra)
    name, axes = _OPERATORS[rank]
    behind = [o if o < s else 0 for o, s in zip(extra, strides, strict=True)]
    # What TVM's operator has no words for: more around than there is of the result.
    simple = [max(b, 0) for b in before], [max(a, 0) for a in after]
    result = builder.emit(
        getattr(relax.op.nn, f"conv{name}_transpose")(
            x, weight, strides, [*simple[0], *simple[1]], behind, dilations, groups, f"NC{axes}", f"IO{axes}"
        )
    )
    widths = [0] * 4
    for d in range(rank):
        widths += [max(-before[d], 0), max(-after[d], 0) + extra[d] - behind[d]]
    if any(widths):
        result = builder.emit(relax.op.nn.pad(result, widths, "constant", 0.0))
    if bias is None:
        return result
    shaped = builder.emit(relax.op.reshape(bias, (1, per_group * groups, *[1] * rank)))
    return relax.op.add(result, shaped)


def _padding(
    attributes: Attributes, size: Sequence[int], strides: Sequence[int], full: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """How much is cut off before and behind each axis; negative where zeros are put there."""
    rank = len(size)
    automatic = attributes.text("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"its auto_pad is `{automatic}`")
    shape = attributes.ints("output_shape", ())
    if not shape and not automatic.startswith("SAME"):
        pads = attributes.ints("pads", [0] * 2 * rank) if automatic == "NOTSET" else [0] * 2 * rank
        if len(pads) != 2 * rank:
            raise ModelError(f"its {len(pads)} pads do not fit {rank} axes")
        return pads[:rank], pads[rank:]
    wanted = shape[-rank:] if shape else [n * s for n, s in zip(size, strides, strict=True)]
    if len(wanted) != rank or min(wanted) < 1:
        raise ModelError(f"its output_shape {shape} does not fit {rank} axes")
    totals = [f + o - n for f, o, n in zip(full, extra, wanted, strict=True)]
    short = [min(t, 0) if shape else 0 for t in totals]
    totals = [max(t, 0) for t in totals]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    before, after = (small, large) if automatic == "SAME_UPPER" else (large, small)
    return before, [a + s for a, s in zip(after, short, strict=True)]
