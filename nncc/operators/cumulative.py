"""CumSum and CumProd: what comes before an element, and the element, summed up or multiplied.

y[i] = x[0] o x[1] o ... o x[i]      without x[i] if `exclusive`, from the end if `reverse`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from nncc.compat import loop_nest, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.loops import loop
from nncc.operators.operands import axis_within, cast, dtype_of, kernel, required, shape_of

__all__ = ["cum_prod", "cum_sum", "scanned"]


def cum_sum(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """CumSum of opset 11 and later."""
    return _cumulative(builder, inputs, attributes, lambda a, b: a + b, 0)


def cum_prod(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """CumProd of opset 26."""
    return _cumulative(builder, inputs, attributes, lambda a, b: a * b, 1)


def _cumulative(
    builder: Any, inputs: Sequence[Any], attributes: Attributes, apply: Callable[[Any, Any], Any], neutral: int
) -> Any:
    x, given = inputs
    axis = required(given, "axis")
    if axis.size != 1:
        raise ModelError(f"its axis has {axis.size} elements")
    at = axis_within(int(axis.reshape(())), len(x.ty.shape))
    dtype = dtype_of(x)
    wide = cast(builder, x, "float32") if dtype in ("float16", "bfloat16") else x  # else each step would round
    exclusive, reverse = (bool(attributes.get(word, 0)) for word in ("exclusive", "reverse"))
    scan = scanned(shape_of(x), dtype_of(wide), at, apply, neutral, exclusive=exclusive, reverse=reverse)
    return cast(builder, kernel(builder, scan, wide, name="scan"), dtype)


def scanned(
    shape: Sequence[int],
    dtype: str,
    axis: int,
    apply: Callable[[Any, Any], Any],
    neutral: int,
    *,
    exclusive: bool = False,
    reverse: bool = False,
) -> Callable[[te.Tensor], te.Tensor]:
    """A function from a tensor to its prefixes along an axis, combined by `apply`, whose neutral element is given."""
    outer, length, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])

    def body(given: Any, made: Any) -> None:
        (x,), (y,) = given, made
        if length == 0:
            return

        def element(o: Any, k: Any, i: Any) -> Any:
            return (o * length + (length - 1 - k if reverse else k)) * inner + i

        with loop(outer, outer * length * inner) as o:
            with loop(inner) as i:
                y[element(o, 0, i)] = tirx.const(neutral, dtype) if exclusive else x[element(o, 0, i)]
            with loop(length - 1) as k, loop(inner) as i:
                term = x[element(o, k if exclusive else k + 1, i)]
                y[element(o, k + 1, i)] = apply(y[element(o, k, i)], term)

    return lambda x: loop_nest([(shape, dtype)], [x], body, "scan")
