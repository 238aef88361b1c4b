"""How much of each group goes: what pruning one group alone costs, and then a greedy allocation.

A group's curve is its loss (noise over signal of the model's outputs, in power) against how many of its units go. The
losses of groups are taken to add up. Step by step, the group goes on whose next step loses least for what it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.compress.cut import chosen, kept_counts

if TYPE_CHECKING:
    import numpy as np

    from nncc.compress.groups import Dependencies, Group

__all__ = ["RATIOS", "Curve", "Step", "allocate", "counts_after", "sensitivity"]

RATIOS = (0.25, 0.5, 0.75)
"""Parts of a group of channels that are removed to measure its curve."""

Loss = Callable[["Group", "np.ndarray"], float]
"""Of the model without the units of one group that an array of bool leaves out; 0 is none."""
Term = Callable[["np.ndarray"], float]
"""What one layer or weight adds to what the goal is about (multiplications, bytes or seconds), without the units that
an array of bool leaves out."""
Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Curve:
    """Loss of the model by the part of one group that goes, from points that were measured."""

    points: tuple[tuple[float, float], ...]
    """Parts and losses, by rising part."""

    def at(self, part: float) -> float:
        """The loss in between: straight lines whose slope never falls, so that what is ruined does not look cheap;
        twice the last slope behind the last point."""
        x, y, slope = 0.0, 0.0, 0.0
        for right, loss in self.points:
            slope = max(slope, (loss - y) / (right - x))
            if part <= right:
                return y + slope * (part - x)
            x, y = right, y + slope * (right - x)
        return y + 2 * slope * (part - x)


@dataclass(frozen=True)
class Step:
    """A group goes on to so many units."""

    group: str
    count: int
    left: float
    """The measure of the goal after it."""


def sensitivity(
    found: Dependencies,
    importance: np.ndarray,
    multiple: int,
    loss: Loss,
    tell: Tell = lambda done, total, what: None,
    ratios: Sequence[float] = RATIOS,
) -> dict[str, Curve]:
    """The curve of each prunable group, pruned alone. Groups that allow no fewer units have none."""
    groups = found.prunable()
    curves = {}
    for done, group in enumerate(groups):
        tell(done, len(groups), group.name)
        allowed = kept_counts(group, multiple)[1:]
        whole = len(group.units)
        tried = sorted({min(allowed, key=lambda n: abs(n - (1 - r) * whole)) for r in ratios} if allowed else set())
        points = []
        for count in reversed(tried):
            keep = chosen((group,), {group.name: count}, importance, found.count)
            points.append((1 - count / whole, loss(group, keep)))
        if points:
            curves[group.name] = Curve(tuple(points))
    return curves


def allocate(
    found: Dependencies,
    curves: Mapping[str, Curve],
    importance: np.ndarray,
    multiple: int,
    terms: Sequence[Term],
    goal: float = 0.0,
) -> tuple[Step, ...]:
    """Steps from the whole model until the sum of `terms` is at most `goal`, or until nothing more can go.

    Each prefix of them is a pruning; see `counts_after`. Of equal steps, that of the earlier group is taken; one that
    saves nothing only where there is no other.
    """
    import numpy as np

    keep = np.ones(found.count, bool)
    values = [term(keep) for term in terms]
    ways = [
        _Way(group, kept_counts(group, multiple), _touched(group, found.count, terms, values))
        for group in found.prunable()
        if group.name in curves
    ]
    now = sum(values)
    steps: list[Step] = []
    while now > goal:
        best: tuple[float, _Way, np.ndarray] | None = None
        for way in ways:
            if way.place + 1 == len(way.counts):
                continue
            count, whole = way.counts[way.place + 1], len(way.group.units)
            other = keep.copy()
            own = chosen((way.group,), {way.group.name: count}, importance, found.count)
            other[way.group.units] = own[way.group.units]
            saved = sum(values[at] - terms[at](other) for at in way.terms)
            curve = curves[way.group.name]
            lost = curve.at(1 - count / whole) - curve.at(1 - way.counts[way.place] / whole)
            price = lost / saved if saved > 0 else float("inf")
            if best is None or price < best[0]:
                best = price, way, other
        if best is None:
            break
        _, way, keep = best
        way.place += 1
        for at in way.terms:
            values[at] = terms[at](keep)
        now = sum(values)
        steps.append(Step(way.group.name, way.counts[way.place], now))
    return tuple(steps)


@dataclass
class _Way:
    """How far a group has gone."""

    group: Group
    counts: list[int]
    terms: list[int]
    """Places of the terms that change with it."""
    place: int = 0


def _touched(group: Group, count: int, terms: Sequence[Term], values: Sequence[float]) -> list[int]:
    import numpy as np

    without = np.ones(count, bool)
    without[group.units] = False
    return [at for at, term in enumerate(terms) if term(without) != values[at]]


def counts_after(steps: Sequence[Step]) -> dict[str, int]:
    """How many units are left of each group that was touched."""
    return {step.group: step.count for step in steps}
