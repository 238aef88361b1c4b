"""MaxPool, AveragePool and LpPool in all their forms; what TVM's operators compute too goes to these.

MaxPool:      y[p] = max_k x[p s - before + k d]                and where it is, if that is asked for
AveragePool:  y[p] = sum_k x[p s - before + k d] / count(p)
LpPool:       y[p] = (sum_k |x[p s - before + k d]|^p)^(1/p)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from operator import mul
from typing import Any

import numpy as np

from nncc.compat import loop_nest, relax, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.loops import loop, strides_of, when
from nncc.operators.operands import cast, dtype_of, kernel, shape_of
from nncc.operators.windows import Windows, windows_of

__all__ = ["average_pool", "lp_pool", "max_pool"]

_OPERATORS = ("", "1d", "2d", "3d")
_GREATEST_POWER = 64


def max_pool(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """MaxPool of every opset."""
    (x,) = inputs
    windows = windows_of(shape_of(x), attributes)
    if attributes.outputs > 1:
        return _with_indices(builder, x, windows, column_major=bool(attributes.get("storage_order", 0)))
    if windows.rank > 3:
        return _with_indices(builder, x, windows, column_major=False).fields[0]
    operator = getattr(relax.op.nn, f"max_pool{_OPERATORS[windows.rank]}")
    return operator(x, windows.kernel, windows.strides, windows.pads, windows.dilations, False)


def average_pool(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """AveragePool of every opset."""
    (x,) = inputs
    windows, counted = windows_of(shape_of(x), attributes), bool(attributes.get("count_include_pad", 0))
    plain = windows.dilations == (1,) * windows.rank and (not counted or windows.overrun == windows.after)
    if plain and windows.rank <= 3 and dtype_of(x) in ("float32", "float64"):
        operator = getattr(relax.op.nn, f"avg_pool{_OPERATORS[windows.rank]}")
        return operator(x, windows.kernel, windows.strides, windows.pads, windows.dilations, False, counted)
    total = _summed(builder, x, windows, lambda value: value)
    counts = relax.const(np.maximum(windows.counts(counted), 1).astype(np.float64), "float64")
    return cast(builder, builder.emit(relax.op.divide(total, cast(builder, counts, dtype_of(total)))), dtype_of(x))


def lp_pool(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """LpPool of every opset."""
    (x,) = inputs
    p = float(attributes.get("p", 2))
    if not 0 < p <= _GREATEST_POWER:
        raise ModelError(f"its p is {p:g}")

    def power(value: Any) -> Any:
        size = tirx.abs(value)
        return reduce(mul, [size] * int(p)) if p.is_integer() else tirx.power(size, tirx.const(p, _wide(x)))

    total = _summed(builder, x, windows_of(shape_of(x), attributes), power)
    if p == 2:
        total = builder.emit(relax.op.sqrt(total))
    elif p != 1:
        total = builder.emit(relax.op.power(total, relax.const(1 / p, dtype_of(total))))
    return cast(builder, total, dtype_of(x))


def _wide(x: Any) -> str:
    return "float64" if dtype_of(x) == "float64" else "float32"


def _summed(builder: Any, x: Any, windows: Windows, term: Callable[[Any], Any]) -> Any:
    """The sum over each window, in float32 or float64; what is around the image adds nothing."""
    dtype = _wide(x)

    def summed(data: te.Tensor) -> te.Tensor:
        taps = [te.reduce_axis((0, n), name="k") for n in windows.kernel]

        def element(n: Any, c: Any, *at: Any) -> Any:
            where, inside = windows.place(at, taps)
            return te.sum(tirx.if_then_else(inside, term(data(n, c, *where)), tirx.const(0, dtype)), axis=taps)

        return te.compute((*shape_of(x)[:2], *windows.result), element, name="pool")

    return kernel(builder, summed, cast(builder, x, dtype), name="pool")


def _with_indices(builder: Any, x: Any, windows: Windows, *, column_major: bool) -> Any:
    """The greatest of each window, the first of several, and its place in the whole tensor."""
    shape, dtype = shape_of(x), dtype_of(x)
    images, size, results = prod(shape[:2]), prod(windows.size), prod(windows.result)
    steps, out_steps = strides_of(windows.size), strides_of(windows.result)
    order = list(reversed(strides_of(list(reversed(windows.size))))) if column_major else steps

    def body(given: Any, made: Any) -> None:
        (data,), (best, index) = given, made
        with loop(images, images * results * prod(windows.kernel)) as image, loop(results) as result:
            at = [tirx.indexmod(tirx.indexdiv(result, s), n) for s, n in zip(out_steps, windows.result, strict=True)]
            place = image * results + result
            best[place] = tirx.min_value(dtype)
            index[place] = tirx.const(-1, "int64")
            with loop(prod(windows.kernel)) as tap:
                taps = [
                    tirx.indexmod(tirx.indexdiv(tap, s), n)
                    for s, n in zip(strides_of(windows.kernel), windows.kernel, strict=True)
                ]
                where, inside = windows.place(at, taps)
                with when(inside):
                    value = data[image * size + _dot(where, steps)]
                    with when(tirx.any(index[place] < tirx.const(0, "int64"), value > best[place])):
                        best[place] = value
                        index[place] = (image * size + _dot(where, order)).astype("int64")

    def pooled(data: te.Tensor) -> list[te.Tensor]:
        result = (*shape[:2], *windows.result)
        return loop_nest([(result, dtype), (result, "int64")], [data], body, "max_pool")

    return relax.Tuple(kernel(builder, pooled, x, name="max_pool"))


def _dot(at: Sequence[Any], strides: Sequence[int]) -> Any:
    return sum(i * stride for i, stride in zip(at, strides, strict=True))
