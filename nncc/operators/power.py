"""Pow with operands of two types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, te, tirx

__all__ = ["power"]


def power(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """x ^ y in the type of x; of integers, exact as far as it does not overflow; 1 / x^n is rounded to 0.

    Real numbers of one type are left to TVM's importer, and so are small constant powers of the same type.
    """
    x, y = inputs[:2]
    base, exponent = str(x.ty.dtype), str(y.ty.dtype)
    real = "float" in base
    if isinstance(x, GenericConst) and isinstance(y, GenericConst):
        values = np.power(constant_array(x).astype(np.float64), constant_array(y).astype(np.float64))
        return relax.const(values.astype(constant_array(x).dtype), base) if real else None
    if real:
        if base == exponent:
            return None
        if isinstance(y, GenericConst):
            return relax.op.power(x, relax.const(constant_array(y).astype(np.float64), base))
        return relax.op.power(x, builder.emit(relax.op.astype(y, base)))
    if "float" in exponent:  # computed there, and rounded to 0 as a cast does
        wide = builder.emit(relax.op.astype(x, "float64"))
        return relax.op.astype(builder.emit(relax.op.power(wide, builder.emit(relax.op.astype(y, "float64")))), base)
    shape = builder.normalize(relax.op.add(relax.op.astype(x, "int64"), relax.op.astype(y, "int64"))).ty.shape
    x, y = (builder.emit(relax.op.broadcast_to(each, shape)) for each in (x, y))
    return builder.emit_te(_by_squaring, x, y, primfunc_name_hint="power")


def _by_squaring(x: Any, y: Any) -> Any:
    """x^y of integers: of the bits of y, each that is set contributes a square of squares."""
    dtype, bits = str(x.dtype), 6 if "64" in str(x.dtype) else 5

    def element(*at: Any) -> Any:
        one = tirx.const(1, dtype)
        square, n, result = x[at], y[at].astype("int64"), one
        for bit in range(bits):
            is_set = tirx.bitwise_and(tirx.shift_right(n, tirx.const(bit, "int64")), tirx.const(1, "int64")) == 1
            result = tirx.Select(is_set, result * square, result)
            square = square * square
        inverse = tirx.Select(x[at] == one, one, tirx.const(0, dtype))
        return tirx.Select(n < 0, inverse, result)

    return te.compute(x.shape, element, name="power")
