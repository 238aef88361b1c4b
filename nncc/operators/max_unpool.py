"""MaxUnpool: zeros but where a MaxPool found its values.

y[index[i]] = x[i]      an index counts the elements of what was pooled; one outside of it writes nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import loop_nest, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.loops import loop, strides_of, when
from nncc.operators.operands import dtype_of, kernel, required, shape_of

__all__ = ["max_unpool"]


def max_unpool(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """MaxUnpool of every opset. With an output_shape, what was pooled is the corner of it where all axes begin."""
    x, indices, given = [*inputs, None][:3]
    shape, dtype = shape_of(x), dtype_of(x)
    rank = len(shape) - 2
    window, strides = attributes.ints("kernel_shape", ()), attributes.ints("strides", [1] * rank)
    pads = attributes.ints("pads", [0] * 2 * rank)
    if rank < 1 or len(window) != rank or len(strides) != rank or len(pads) != 2 * rank or shape_of(indices) != shape:
        raise ModelError(f"its attributes do not fit an input of shape {shape}")
    pooled = [
        (n - 1) * s - pads[d] - pads[rank + d] + k
        for d, (n, s, k) in enumerate(zip(shape[2:], strides, window, strict=True))
    ]
    pooled = [*shape[:2], *pooled]
    result = pooled if given is None else [int(n) for n in required(given, "output_shape").reshape(-1)]
    if len(result) != len(pooled) or min(pooled) < 1 or any(m < n for m, n in zip(result, pooled, strict=True)):
        raise ModelError(f"its output_shape {result} does not hold what was pooled, of shape {pooled}")
    steps, out_steps = strides_of(pooled), strides_of(result)

    def body(given: Any, made: Any) -> None:
        (data, index), (y,) = given, made
        with loop(prod(result), prod(result)) as i:
            y[i] = tirx.const(0, dtype)
        with loop(prod(shape)) as i:
            place = index[i]
            with when(tirx.all(place >= tirx.const(0, "int64"), place < tirx.const(prod(pooled), "int64"))):
                parts = [
                    tirx.floormod(tirx.floordiv(place, tirx.const(s, "int64")), tirx.const(n, "int64")) * out
                    for s, n, out in zip(steps, pooled, out_steps, strict=True)
                ]
                y[sum(parts)] = data[i]

    def unpooled(*tensors: te.Tensor) -> te.Tensor:
        return loop_nest([(result, dtype)], tensors, body, "max_unpool")

    return kernel(builder, unpooled, x, indices, name="max_unpool")
