"""Mod of real numbers: both remainders, with the standard's corner cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax

__all__ = ["modulo"]


def modulo(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """fmod(x, y), which has the sign of x, or without `fmod` that and y, if its sign is another than that of y.

    x mod infinity is x, or infinity where their signs differ and `fmod` is not set. Integers are TVM's; half precision
    is computed in float32.
    """
    x, y = inputs[:2]
    dtype = str(x.ty.dtype)
    if "float" not in dtype:
        return None
    real = dtype if dtype == "float64" else "float32"
    if dtype != real:
        x, y = (builder.emit(relax.op.astype(each, real)) for each in (x, y))
    zero = relax.const(0.0, real)
    rest = builder.emit(relax.op.mod(x, y))
    infinite = builder.emit(relax.op.equal(builder.emit(relax.op.abs(y)), relax.const(np.inf, real)))
    finite = builder.emit(relax.op.isfinite(x))
    rest = builder.emit(relax.op.where(builder.emit(relax.op.logical_and(infinite, finite)), x, rest))
    if not attributes.get("fmod", 0):
        negative = [builder.emit(relax.op.less(each, zero)) for each in (rest, y)]
        other = builder.emit(relax.op.logical_xor(*negative))
        some = builder.emit(relax.op.not_equal(rest, zero))
        moved = builder.emit(relax.op.add(rest, y))
        rest = builder.emit(relax.op.where(builder.emit(relax.op.logical_and(other, some)), moved, rest))
    return rest if dtype == real else relax.op.astype(rest, dtype)
