"""Elu of half precision; float32 is TVM's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax

__all__ = ["elu"]


def elu(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y = x where x > 0, else alpha (exp(x) - 1), computed in float32 or wider."""
    (x,) = inputs[:1]
    dtype, alpha = str(x.ty.dtype), float(attributes.get("alpha", 1.0))
    real = dtype if dtype == "float64" else "float32"
    wide = x if dtype == real else builder.emit(relax.op.astype(x, real))
    below = builder.emit(relax.op.minimum(wide, relax.const(0.0, real)))
    grown = builder.emit(relax.op.subtract(builder.emit(relax.op.exp(below)), relax.const(1.0, real)))
    curve = builder.emit(relax.op.multiply(grown, relax.const(alpha, real)))
    positive = builder.emit(relax.op.greater(wide, relax.const(0.0, real)))
    result = builder.emit(relax.op.where(positive, wide, curve))
    return result if dtype == real else relax.op.astype(result, dtype)
