"""LpNormalization: divided by its norm along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax

__all__ = ["lp_normalization"]


def lp_normalization(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y = x / |x|_p along `axis`, p 1 or 2; 0 where the norm is 0. Half precision is summed in float32."""
    (x,) = inputs[:1]
    dtype, p, axis = str(x.ty.dtype), int(attributes.get("p", 2)), int(attributes.get("axis", -1))
    if p not in (1, 2):
        raise ValueError(f"LpNormalization with p = {p}, which is neither 1 nor 2")
    wide = builder.emit(relax.op.astype(x, "float32")) if dtype in ("float16", "bfloat16") else x
    parts = builder.emit(relax.op.abs(wide) if p == 1 else relax.op.multiply(wide, wide))
    norm = builder.emit(relax.op.sum(parts, axis=[axis], keepdims=True))
    norm = norm if p == 1 else builder.emit(relax.op.sqrt(norm))
    zero = relax.const(0.0, str(norm.ty.dtype))
    quotient = builder.emit(relax.op.divide(wide, norm))
    result = builder.emit(relax.op.where(builder.emit(relax.op.equal(norm, zero)), zero, quotient))
    return result if str(result.ty.dtype) == dtype else relax.op.astype(result, dtype)
