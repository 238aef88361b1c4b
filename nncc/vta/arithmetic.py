"""The vocabulary of `AluOperation.meaning`: exact, one number at a time.

Integers are Python's, numbers of 32 bits floats that are float32. A fused multiply-add is computed exactly and rounded
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from nncc.vta.isa import AluOperation

__all__ = ["count", "fma", "meaning", "wrap"]


def wrap(value: int) -> int:
    """The int32 with the same lowest 32 bits."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def float32(value: float) -> float:
    """Rounded to a float32, ties to even; of an int or a float that has its digits exactly."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def product(a: float, b: float) -> float:
    """Of two float32, rounded once: a float64 holds it exactly."""
    return float32(a * b)


def count(value: int) -> float:
    """How many steps above -128, as a float32."""
    return float32(wrap(value + 128))


def fma(a: float, b: float, c: float) -> float:
    """a b + c of three float32, rounded once."""
    if not all(map(math.isfinite, (a, b, c))):
        return float32(a * b + c)
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    near = float(exact)
    if Fraction(near) != exact:
        # Of the two float64 around it, the one whose last bit is set: it is on no boundary between two float32, and
        # on the same side of each as the exact number.
        other = math.nextafter(near, math.inf if exact > Fraction(near) else -math.inf)
        near = near if int(np.float64(near).view(np.int64)) & 1 else other
    return float32(near)


def shift(a: int, b: int) -> int:
    """To the right by b, to the left by -b."""
    return a >> min(b, 31) if b >= 0 else wrap(a << min(-b, 32))


def clamp(value: float, low: float, high: float) -> float:
    """Within bounds; NaN becomes the lower one."""
    value = value if value > low else low
    return value if value < high else high


def nearest_even(value: float) -> int:
    """The nearest integer, ties to even."""
    return round(value)


_VOCABULARY: dict[str, Callable[..., Any]] = {
    "clamp": clamp,
    "count": count,
    "float32": float32,
    "fma": fma,
    "max": max,
    "min": min,
    "nearest_even": nearest_even,
    "product": product,
    "shift": shift,
    "wrap": wrap,
}


def meaning(operation: AluOperation, overwrite: bool) -> Callable[[Mapping[str, float]], int]:
    """What an operation computes, from a value for each name in its meaning."""
    code = compile(operation.overwrite if overwrite else operation.meaning, operation.name, "eval")
    scope = {"__builtins__": {}, **_VOCABULARY}
    return lambda values: int(eval(code, scope, dict(values)))
