"""Col2Im: each element of an image is the sum of what blocks that overlap there have for it.

y[n, c, p] = sum_k x[n, c K + k, (p + pad - k dilation) / stride]      where the quotient is a block's number
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import cast, dtype_of, kernel, required, shape_of

__all__ = ["col2im"]


def col2im(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Col2Im of opset 18, for images of any number of axes."""
    x, image, block = inputs
    size = [int(n) for n in required(image, "image_shape").reshape(-1)]
    window = [int(n) for n in required(block, "block_shape").reshape(-1)]
    rank = len(size)
    strides, dilations = attributes.ints("strides", [1] * rank), attributes.ints("dilations", [1] * rank)
    pads = attributes.ints("pads", [0] * 2 * rank)
    if not len(window) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank or len(shape_of(x)) != 3:
        raise ModelError(f"its attributes do not fit an image of {rank} axes")
    if min([*size, *window, *strides, *dilations], default=0) < 1:
        raise ModelError("its sizes, strides or dilations are not positive")
    batch, columns, count = shape_of(x)
    blocks = [
        (n + pads[d] + pads[rank + d] - dilations[d] * (window[d] - 1) - 1) // strides[d] + 1
        for d, n in enumerate(size)
    ]
    if columns % prod(window) or min(blocks) < 1 or prod(blocks) != count:
        raise ModelError(f"its input of shape {shape_of(x)} does not fit blocks of {window} in an image of {size}")
    dtype = dtype_of(x)
    if dtype == "bool":
        raise ModelError("it sums up truth values")
    wide = cast(builder, x, "float32") if dtype in ("float16", "bfloat16") else x

    def summed(data: te.Tensor) -> te.Tensor:
        taps = [te.reduce_axis((0, n), name="k") for n in window]

        def element(n: Any, c: Any, *at: Any) -> Any:
            column, place, inside = c, tirx.const(0, "int32"), []
            for d in range(rank):
                start = at[d] + pads[d] - taps[d] * dilations[d]
                step = tirx.floordiv(start, strides[d])
                inside += [start >= 0, tirx.floormod(start, strides[d]) == 0, step < blocks[d]]
                column, place = column * window[d] + taps[d], place * blocks[d] + step
            value = tirx.if_then_else(tirx.all(*inside), data(n, column, place), tirx.const(0, data.dtype))
            return te.sum(value, axis=taps)

        return te.compute((batch, columns // prod(window), *size), element, name="col2im")

    return cast(builder, kernel(builder, summed, wide, name="col2im"), dtype)
