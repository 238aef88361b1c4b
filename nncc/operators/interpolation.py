"""Values between the elements of a grid, at coordinates that are known only at run time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import Any

from nncc.compat import tirx

__all__ = ["any_negative", "bilinear", "bounded", "interpolate"]


def bounded(x: Any, low: float, high: float) -> Any:
    """A coordinate within bounds, so that it may become an integer; one that is no number is the upper one."""
    dtype = x.dtype if hasattr(x, "dtype") else str(x.ty)
    return tirx.max(tirx.min(x, tirx.const(high, dtype)), tirx.const(low, dtype))


def any_negative(*numbers: Any) -> Any:
    """Whether one of some int32 is below 0, by its sign bit.

    TVM reasons about ``i < 0``: beside it in a Select it takes max(i, 0) for i, though vectors load on both sides.
    """
    return tirx.shift_right(reduce(tirx.bitwise_or, numbers), tirx.const(31, "int32")) != 0


def bilinear(element: Callable[[Any, Any], Any], y: Any, x: Any, size: Sequence[int]) -> Any:
    """The value at (y, x) of a grid of `size` elements, outside of which is zero."""

    def there(*at: Any) -> Any:
        outside = any_negative(*at, *(n - 1 - i for i, n in zip(at, size, strict=True)))
        value = element(*(tirx.max(tirx.min(i, n - 1), 0) for i, n in zip(at, size, strict=True)))
        return tirx.Select(outside, tirx.const(0, value.dtype if hasattr(value, "dtype") else str(value.ty)), value)

    return interpolate(there, [bounded(c, -2, n + 1) for c, n in zip((y, x), size, strict=True)])


def interpolate(element: Callable[..., Any], coordinates: Sequence[Any]) -> Any:
    """The multilinear mean of the 2^n elements around a point."""
    floors = [tirx.floor(c) for c in coordinates]
    total: Any = None
    for corner in product((0, 1), repeat=len(coordinates)):
        at, weight = [], None
        for upper, c, low in zip(corner, coordinates, floors, strict=True):
            at.append(low.astype("int32") + upper)
            part = c - low if upper else 1 - (c - low)
            weight = part if weight is None else weight * part
        term = weight * element(*at)
        total = term if total is None else total + term
    return total
