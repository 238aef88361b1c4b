"""GridSample: the values of an image at the points that a grid lists, for any number of axes.

    c_d = (g_d + 1) / 2 (n_d - 1) if the corners are aligned, else ((g_d + 1) n_d - 1) / 2
    y[n, c, p] = sum over the neighbours q of c(n, p) of the product of their weights, times x[n, c, q]

A point outside is moved to the border, or mirrored there, or its neighbours outside are zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from nncc.compat import te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.interpolation import any_negative, bounded
from nncc.operators.operands import cast, dtype_of, kernel, shape_of

__all__ = ["grid_sample"]

_TAPS = {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}
_NAMES = {"bilinear": "linear", "bicubic": "cubic"}
_CUBIC = -0.75
"""The coefficient of the cubic kernel."""


def grid_sample(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """GridSample of every opset: x [n, c, *image] and grid [n, *results, axes], whose last part is the first axis."""
    x, grid = inputs
    mode, padding = attributes.text("mode", "linear"), attributes.text("padding_mode", "zeros")
    mode = _NAMES.get(mode, mode)
    aligned = bool(attributes.get("align_corners", 0))
    (batch, channels, *size), (*places, parts) = shape_of(x), shape_of(grid)
    if parts != len(size) or places[0] != batch or min(size) < 1 or len(places) != parts + 1:
        raise ModelError(f"its grid of shape {shape_of(grid)} does not fit an input of shape {shape_of(x)}")
    if mode not in _TAPS or padding not in ("zeros", "border", "reflection"):
        raise ModelError(f"its mode is `{mode}`, its padding_mode `{padding}`")
    dtype = dtype_of(x)
    inner = "float64" if dtype == "float64" else "float32"
    where = inner if dtype_of(grid) != "float64" else "float64"
    axes = [_Axis(n, aligned, mode, padding) for n in size]
    points = cast(builder, grid, where)
    tables = [
        table
        for d, axis in enumerate(axes)
        for table in kernel(
            builder, partial(_tables, axis=axis, part=parts - 1 - d, dtype=inner), points, name="grid_taps", opaque=True
        )
    ]

    def sampled(data: te.Tensor, *given: te.Tensor) -> te.Tensor:
        indices, weights = given[::2], given[1::2]

        def element(n: Any, c: Any, *at: Any) -> Any:
            total: Any = None
            for taps in product(range(len(_TAPS[mode])), repeat=parts):
                index = [table(t, n, *at) for table, t in zip(indices, taps, strict=True)]
                value = data(n, c, *(tirx.max(i, 0) for i in index))
                if padding == "zeros":
                    outside = any_negative(*index)
                    value = tirx.Select(outside, tirx.const(0, data.dtype), value)
                for table, t in zip(weights, taps, strict=True) if mode != "nearest" else ():
                    value = value * table(t, n, *at)
                total = value if total is None else total + value
            return total

        return te.compute((batch, channels, *places[1:]), element, name="grid_sample")

    exact = x if mode == "nearest" else cast(builder, x, inner)  # whose values are not computed with
    return cast(builder, kernel(builder, sampled, exact, *tables, name="grid_sample"), dtype)


@dataclass(frozen=True)
class _Axis:
    """An axis of the image: its size, and how points between and outside of its elements are dealt with."""

    size: int
    aligned: bool
    mode: str
    padding: str

    @property
    def borders(self) -> tuple[float, float]:
        """Beyond these, a point is outside."""
        return (0.0, self.size - 1.0) if self.aligned else (-0.5, self.size - 0.5)


def _tables(points: te.Tensor, *, axis: _Axis, part: int, dtype: str) -> list[te.Tensor]:
    """For each tap and point, the element along an axis, int32, -1 where there is none, and its weight."""
    steps = _TAPS[axis.mode]
    shape = (len(steps), *points.shape[:-1])  # those of one tap lie side by side: they are read in vectors

    def moved(at: Sequence[Any]) -> Any:
        """Where the point is, after what is outside was moved."""
        point = _denormalized(points(*at, part), axis.size, axis.aligned)
        point = tirx.nearbyint(point) if axis.mode == "nearest" else point
        if axis.padding == "border":
            outside = tirx.any(point < axis.borders[0], point > axis.borders[1])
            point = tirx.Select(outside, bounded(point, 0, axis.size - 1), point)
        elif axis.padding == "reflection":
            point = _reflected(point, *axis.borders)
        return bounded(point, -3, axis.size + 2)

    def index(*at: Any) -> Any:
        step = tirx.floor(moved(at[1:])) + (at[0] + steps[0])
        inside = tirx.all(step >= 0, step <= axis.size - 1)
        step = _reflected(step, *axis.borders) if axis.padding == "reflection" else step
        element = bounded(step, 0, axis.size - 1).astype("int32")
        return tirx.Select(inside, element, -1) if axis.padding == "zeros" else element

    def weight(*at: Any) -> Any:
        point = moved(at[1:])
        return _weight(axis.mode, tirx.abs(point - tirx.floor(point) - (at[0] + steps[0])).astype(dtype))

    return [te.compute(shape, index, name="index"), te.compute(shape, weight, name="weight")]


def _denormalized(g: Any, n: int, aligned: bool) -> Any:
    return (g + 1) / 2 * (n - 1) if aligned else ((g + 1) * n - 1) / 2


def _reflected(x: Any, low: float, high: float) -> Any:
    """A coordinate mirrored at two borders until it is between them."""
    span = high - low
    if span == 0:
        return x * 0 + low
    dtype = x.dtype if hasattr(x, "dtype") else str(x.ty)
    away = bounded(tirx.max(low - x, x - high), -span, 2.0**30)
    turns = tirx.floor(away / tirx.const(span, dtype))
    rest = away - turns * tirx.const(span, dtype)
    even = turns - 2 * tirx.floor(turns / 2) == 0
    below = tirx.Select(even, low + rest, high - rest)
    above = tirx.Select(even, high - rest, low + rest)
    return tirx.Select(x < low, below, tirx.Select(x > high, above, x))


def _weight(mode: str, d: Any) -> Any:
    """Of an element at a distance from the point."""
    if mode != "cubic":
        return 1 - d
    near = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
    far = ((_CUBIC * d - 5 * _CUBIC) * d + 8 * _CUBIC) * d - 4 * _CUBIC
    return tirx.Select(d <= 1, near, far)
