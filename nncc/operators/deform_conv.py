"""DeformConv: a convolution whose taps are where offsets say, as a product of weights and of sampled columns.

column[c, k, p] = mask[k, p] x[c, p stride - pad + k dilation + offset[k, p]]      interpolated, zero outside
y[o, p] = sum_(c, k) w[o, c, k] column[c, k, p] + b[o]
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import relax, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.interpolation import bilinear
from nncc.operators.operands import cast, dtype_of, kernel, shape_of

__all__ = ["deform_conv"]


def deform_conv(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """DeformConv of every opset, for images of two axes."""
    given = [*inputs, None, None][:5]
    dtype = dtype_of(given[0])
    wide = "float64" if dtype == "float64" else "float32"
    x, weight, offset, bias, mask = (None if each is None else cast(builder, each, wide) for each in given)
    if len(shape_of(x)) != 4:
        raise ModelError(f"its input has {len(shape_of(x))} axes; images of two are all that it is compiled for")
    (batch, channels, *image), (out, per_group, *window) = shape_of(x), shape_of(weight)
    groups, offset_groups = int(attributes.get("group", 1)), int(attributes.get("offset_group", 1))
    strides, dilations = attributes.ints("strides", [1, 1]), attributes.ints("dilations", [1, 1])
    pads = attributes.ints("pads", [0] * 4)
    positive = min([groups, offset_groups, *strides, *dilations]) >= 1
    if not positive or channels != groups * per_group or out % groups or channels % offset_groups:
        raise ModelError(f"{groups} groups and {offset_groups} of offsets do not fit {channels} and {out} channels")
    size = [(image[d] + pads[d] + pads[2 + d] - dilations[d] * (window[d] - 1) - 1) // strides[d] + 1 for d in range(2)]
    taps = prod(window)
    fits = shape_of(offset) == [batch, offset_groups * taps * 2, *size]
    if not fits or (mask is not None and shape_of(mask) != [batch, offset_groups * taps, *size]):
        raise ModelError(f"its offsets of shape {shape_of(offset)}, or its mask, do not fit results of {size}")
    per_offset = channels // offset_groups

    def columns(data: te.Tensor, moved: te.Tensor, *masks: te.Tensor) -> te.Tensor:
        def element(n: Any, c: Any, k: Any, p: Any) -> Any:
            row, column = tirx.indexdiv(p, size[1]), tirx.indexmod(p, size[1])
            tap = tirx.indexdiv(c, per_offset) * taps + k
            position = (tirx.indexdiv(k, window[1]), tirx.indexmod(k, window[1]))
            y, x = (
                (at * strides[d] - pads[d] + position[d] * dilations[d]).astype(wide)
                + moved(n, 2 * tap + d, row, column)
                for d, at in enumerate((row, column))
            )
            value = bilinear(lambda i, j: data(n, c, i, j), y, x, image)
            return value * masks[0](n, tap, row, column) if masks else value

        return te.compute((batch, channels, taps, prod(size)), element, name="columns")

    sampled = kernel(builder, columns, x, offset, *([] if mask is None else [mask]), name="deform_columns")
    grouped = builder.emit(relax.op.reshape(sampled, (batch, groups, per_group * taps, prod(size))))
    matrix = builder.emit(relax.op.reshape(weight, (1, groups, out // groups, per_group * taps)))
    result = builder.emit(relax.op.reshape(builder.emit(relax.op.matmul(matrix, grouped)), (batch, out, *size)))
    if bias is not None:
        result = builder.emit(relax.op.add(result, builder.emit(relax.op.reshape(bias, (1, out, 1, 1)))))
    return cast(builder, result, dtype)
