"""Numbers that are known at some sizes of the open dimensions, as expressions of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations, product

from nncc.ir import Extent, Quotient

__all__ = ["Point", "fits"]

Point = Mapping[str, int]
"""Sizes of the open dimensions, by name."""

_DIVISORS = (2, 4, 8, 16, 32, 64, 128, 256, 512, 3, 5, 6, 7, 9, 10, 12, 24)
"""What a dimension is divided by: strides of convolutions and pools one after the other, vectors of kernels."""
_FORMS = ((1, 0), (1, 1), (1, 2), (2, 0), (3, 0))
"""How many products, and how many of the dimensions in them are divided, the simplest first."""
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
