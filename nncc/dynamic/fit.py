"""Numbers that are known at some sizes of the open dimensions, as expressions of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, product
from math import prod

from nncc.errors import ModelError
from nncc.ir import Dim, Extent, Quotient

__all__ = ["BUCKETS_ONLY", "Fitter", "Point", "fits", "largest", "sizes_in"]

BUCKETS_ONLY = "compile for some sizes only: `--buckets`, and `--no-general`"
"""The hint of an error about models that have no general form."""

Point = Mapping[str, int]
"""Sizes of the open dimensions, by name."""

_DIVISORS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 3, 5, 6, 7, 9, 10, 12, 24)
"""What a dimension is divided by: strides of convolutions and pools one after the other, vectors of kernels."""
_FORMS = ((1, 0), (1, 1), (1, 2), (2, 0), (3, 0))
"""How many products, and how many of the dimensions in them are divided, the simplest first."""
_MOST_SIZES = 1 << 16
"""Of all sizes together, so many are looked at."""
_MOST_POINTS = 600
"""And so many where several expressions are compared."""
_MOST_DEGREE = 3
_MOST_POWER = 2


def fits(points: Sequence[Point], values: Sequence[int]) -> list[Extent]:
    """The simplest expressions that have `values` at `points`, the likeliest first; empty where none is simple enough.

    An expression is a constant, plus integers times products of floor((n + q) / d), one such step for each dimension n.
    Fewer products are simpler, and dimensions as they are simpler than divided ones; several of the same kind are all
    returned. There is at least one point more than numbers to be found, so that a wrong form shows.
    """
    if all(value == values[0] for value in values):
        return [Extent(values[0])]
    names = _moving(points, values)
    found: list[Extent] = []
    for count, divided in _FORMS:
        if count + 1 >= len(points):
            continue
        for steps in _steps(names, points, divided):
            found += _with_products(points, values, steps, count)
        if found:
            break
    return list(dict.fromkeys(found))


class Fitter:
    """Finds expressions for the numbers of the samples, and remembers which were not the only ones."""

    def __init__(self, points: Sequence[Point], dims: Sequence[Dim]) -> None:
        self.points = points
        self.dims = dims
        self.what = ""
        """The kernel or buffer that is being looked at."""
        self._found: dict[tuple[int, ...], list[Extent]] = {}

    def __call__(self, values: Sequence[int]) -> Extent:
        key = tuple(values)
        if key not in self._found:
            self._found[key] = fits(self.points, key)
            if not self._found[key]:
                sizes = ", ".join(
                    f"{value} at {'x'.join(map(str, point.values()))}"
                    for value, point in zip(key, self.points, strict=True)
                )
                raise ModelError(
                    f"{self.what} depends on the open dimensions in no simple way: a size is {sizes}", BUCKETS_ONLY
                )
        return self._found[key][0]

    def unclear(self) -> tuple[Point, ...]:
        """Sizes at which expressions that have the same numbers so far differ, those where most do first."""
        several = [candidates for candidates in self._found.values() if len(candidates) > 1]
        sizes = sizes_in(self.dims)
        some = sizes[:: max(1, len(sizes) // _MOST_POINTS)]
        told = [sum(len({each.at(point) for each in candidates}) - 1 for candidates in several) for point in some]
        order = sorted((at for at, number in enumerate(told) if number), key=lambda at: -told[at])
        return tuple(some[at] for at in order)


def largest(extent: Extent, dims: Sequence[Dim]) -> int:
    """The largest value that it has at sizes of these dimensions."""
    if all(coefficient > 0 for coefficient, _ in extent.terms):
        return extent.at({dim.name: dim.high for dim in dims})
    return max(extent.at(sizes) for sizes in sizes_in(dims))


def sizes_in(dims: Sequence[Dim]) -> list[dict[str, int]]:
    """All sizes, or if there are too many, those of each dimension with the others at their lowest and highest."""
    count = prod(dim.high - dim.low + 1 for dim in dims)
    names = [dim.name for dim in dims]
    ranges = [range(dim.low, dim.high + 1) for dim in dims]
    if count <= _MOST_SIZES:
        return [dict(zip(names, sizes, strict=True)) for sizes in product(*ranges)]
    found = []
    for at, dim in enumerate(dims):
        step = max(1, (dim.high - dim.low + 1) // (_MOST_SIZES // 4))
        ends = [(dim.low, dim.high) if other != at else ranges[at][::step] for other, dim in enumerate(dims)]
        found += [dict(zip(names, sizes, strict=True)) for sizes in product(*ends)]
    return found


def _moving(points: Sequence[Point], values: Sequence[int]) -> list[str]:
    """The dimensions that the values depend on: those of which one alone changes them."""
    found = []
    for name in points[0]:
        for a, b in combinations(range(len(points)), 2):
            others = all(points[a][other] == points[b][other] for other in points[a] if other != name)
            if others and values[a] != values[b]:
                found.append(name)
                break
    return found


def _steps(names: Sequence[str], points: Sequence[Point], divided: int) -> Iterator[tuple[Quotient, ...]]:
    """One step for each dimension, `divided` of which are divided."""
    for chosen in combinations(names, divided):
        yield from product(*(_divided(name, points) if name in chosen else [Quotient(name)] for name in names))


def _divided(name: str, points: Sequence[Point]) -> list[Quotient]:
    """Rounding up comes first: it is what vectors and padded convolutions do."""
    steps = [Quotient(name, plus, d) for d in _DIVISORS for plus in (d - 1, *range(d - 1))]
    return [step for step in steps if len({step.at(point) for point in points}) > 1]


def _with_products(
    points: Sequence[Point], values: Sequence[int], steps: Sequence[Quotient], count: int
) -> Iterator[Extent]:
    """All expressions with `count` products of these steps."""
    powers = [p for p in product(range(_MOST_POWER + 1), repeat=len(steps)) if 0 < sum(p) <= _MOST_DEGREE]
    powers.sort(key=sum)
    for chosen in combinations(powers, count):
        if not all(any(power[at] for power in chosen) for at in range(len(steps))):
            continue
        parts = [tuple(step for step, n in zip(steps, power, strict=True) for _ in range(n)) for power in chosen]
        rows = [[1, *(_value(part, point) for part in parts)] for point in points]
        solved = _solve(rows, values)
        if solved is not None and all(each.denominator == 1 for each in solved) and all(solved[1:]):
            yield Extent(int(solved[0]), tuple((int(c), part) for c, part in zip(solved[1:], parts, strict=True)))


def _value(part: Sequence[Quotient], point: Point) -> int:
    value = 1
    for step in part:
        value *= step.at(point)
    return value


def _solve(rows: Sequence[Sequence[int]], values: Sequence[int]) -> list[Fraction] | None:
    """The one solution of more equations than unknowns; None where there is none, or more than one."""
    width = len(rows[0])
    if width == 2:
        at = next((at for at, row in enumerate(rows) if row[1] != rows[0][1]), None)
        if at is None:
            return None
        slope, rest = divmod(values[at] - values[0], rows[at][1] - rows[0][1])
        start = values[0] - slope * rows[0][1]
        if rest or any(start + slope * row[1] != value for row, value in zip(rows, values, strict=True)):
            return None
        return [Fraction(start), Fraction(slope)]
    table = [[Fraction(each) for each in (*row, value)] for row, value in zip(rows, values, strict=True)]
    for column in range(width):
        pivot = next((at for at in range(column, len(table)) if table[at][column]), None)
        if pivot is None:
            return None
        table[column], table[pivot] = table[pivot], table[column]
        lead = table[column][column]
        table[column] = [each / lead for each in table[column]]
        for at in range(len(table)):
            if at != column and table[at][column]:
                factor = table[at][column]
                table[at] = [a - factor * b for a, b in zip(table[at], table[column], strict=True)]
    if any(row[-1] for row in table[width:]):
        return None
    return [table[at][-1] for at in range(width)]
