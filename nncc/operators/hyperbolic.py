"""Sinh and Cosh as exponentials, which run in vectors: TVM has them of single numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, log
from typing import Any

from nncc.compat import relax
from nncc.operators.operands import dtype_of

__all__ = ["cosh", "sinh"]

_SERIES = (9, 7, 5, 3, 1)
"""Powers of sinh's series: what is left out is less than 3e-8 of it where |x| < 1."""


def cosh(builder: Any, inputs: Sequence[Any], attributes: Any) -> Any:
    """e^(x - ln 2) + e^(-x - ln 2): finite wherever the result is."""
    return relax.op.add(*_halves(builder, inputs[0]))


def sinh(builder: Any, inputs: Sequence[Any], attributes: Any) -> Any:
    """e^(x - ln 2) - e^(-x - ln 2), and for |x| < 1, where that loses digits, x + x^3 / 3! + ... + x^9 / 9!."""
    x = inputs[0]
    if dtype_of(x) == "float64":
        return None  # which is computed one by one anyway
    square = builder.emit(relax.op.multiply(x, x))
    series = _number(1 / factorial(_SERIES[0]), x)
    for power in _SERIES[1:]:
        scaled = builder.emit(relax.op.multiply(series, square))
        series = builder.emit(relax.op.add(scaled, _number(1 / factorial(power), x)))
    near = builder.emit(relax.op.multiply(x, series))
    far = builder.emit(relax.op.subtract(*_halves(builder, x)))
    small = builder.emit(relax.op.less(builder.emit(relax.op.abs(x)), _number(1, x)))
    return relax.op.where(small, near, far)


def _halves(builder: Any, x: Any) -> tuple[Any, Any]:
    half = _number(log(2), x)
    up = builder.emit(relax.op.subtract(x, half))
    down = builder.emit(relax.op.subtract(builder.emit(relax.op.negative(x)), half))
    return builder.emit(relax.op.exp(up)), builder.emit(relax.op.exp(down))


def _number(value: float, like: Any) -> Any:
    return relax.const(value, dtype_of(like))
