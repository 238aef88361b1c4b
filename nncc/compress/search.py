"""How much of each group goes: what pruning one group alone costs, and then a greedy allocation.

A group's curve is its loss (noise over signal of the model's outputs, in power) against how many of its units go. The
losses of groups are taken to add up. Step by step, the group goes on whose next step loses least for what it saves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nncc.compress.cut import chosen, kept_counts, ranked

if TYPE_CHECKING:
    import numpy as np

    from nncc.compress.groups import Dependencies, Group
    from nncc.quant.request import Tell

__all__ = ["RATIOS", "Curve", "Step", "allocate", "counts_after", "sensitivity"]

RATIOS = (0.25, 0.5, 0.75)
"""Parts of a group of channels that are removed to measure its curve."""

Loss = Callable[["Group", "np.ndarray"], float]
"""Of the model without the units of one group that an array of bool leaves out; 0 is none."""
Term = Callable[["np.ndarray"], float]
"""What one layer or weight adds to what the goal is about (multiplications, bytes or seconds), without the units that
an array of bool leaves out."""


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
    least: int = 1,
) -> dict[str, Curve]:
    """The curve of each prunable group, pruned alone. Groups that allow no fewer units have none."""
    groups = found.prunable()
    curves = {}
    for done, group in enumerate(groups):
        tell(done, len(groups), group.name)
        allowed = kept_counts(group, multiple, least)[1:]
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
    least: int = 1,
) -> tuple[Step, ...]:
    """Steps from the whole model until the sum of `terms` is at most `goal`, or until nothing more can go.

    Each prefix of them is a pruning; see `counts_after`. Of groups at equal prices, the earlier one goes on; one that
    saves nothing, however far it goes, only where there is no other.
    """
    import numpy as np

    keep = np.ones(found.count, bool)
    values = [term(keep) for term in terms]
    ways = [
        _Way(
            group,
            kept_counts(group, multiple, least),
            _touched(group, found.count, terms, values),
            *ranked(group, importance),
        )
        for group in found.prunable()
        if group.name in curves
    ]
    now = sum(values)
    steps: list[Step] = []
    while now > goal:
        best: _Offer | None = None
        for way in ways:
            state = way.place, *(values[at] for at in way.terms)
            if way.state != state:  # else nothing has changed for it
                offer = _offer(way, curves[way.group.name], keep, terms, values)
                way.state, way.offer = state, offer
            if way.offer is not None and (best is None or way.offer.price < best.price):
                best, moved = way.offer, way
        if best is None:
            break
        moved.place = best.place
        keep = moved.without(keep, best.place)
        for at in moved.terms:
            values[at] = terms[at](keep)
        now = sum(values)
        steps.append(Step(moved.group.name, moved.counts[moved.place], now))
    return tuple(steps)


@dataclass(frozen=True)
class _Offer:
    """How a group would go on."""

    price: float
    """What is lost for what is saved, at the least, the further it goes; infinite where nothing is saved."""
    place: int
    """The next count that saves something; or the next one, where none does."""


def _offer(way: _Way, curve: Curve, keep: np.ndarray, terms: Sequence[Term], values: Sequence[float]) -> _Offer | None:
    """None where no fewer units are allowed.

    The price is that of the best of all further counts: what is stored without zeros needs an index first, and kernels
    that skip zeros are of no use before many are there, so that one step by itself may save nothing.
    """
    whole = len(way.group.units)
    before = curve.at(1 - way.counts[way.place] / whole)
    found: _Offer | None = None
    for place in range(way.place + 1, len(way.counts)):
        other = way.without(keep, place)
        saved = sum(values[at] - terms[at](other) for at in way.terms)
        price = (curve.at(1 - way.counts[place] / whole) - before) / saved if saved > 0 else float("inf")
        if found is None or (price < found.price and found.price == float("inf")):
            found = _Offer(price, place)
        elif price < found.price:
            found = replace(found, price=price)
    return found


@dataclass
class _Way:
    """How far a group has gone."""

    group: Group
    counts: list[int]
    terms: list[int]
    """Places of the terms that change with it."""
    order: np.ndarray
    least: int
    """Its units as `ranked` orders them, and how many always stay."""
    place: int = 0
    state: tuple[float, ...] = ()
    """What `offer` depends on: the place, and the values of the terms."""
    offer: _Offer | None = None

    def without(self, keep: np.ndarray, place: int) -> np.ndarray:
        """`keep` where of this group as many units stay as the count at `place` says."""
        other = keep.copy()
        other[self.group.units] = False
        other[self.order[: max(self.counts[place], self.least)]] = True
        return other


def _touched(group: Group, count: int, terms: Sequence[Term], values: Sequence[float]) -> list[int]:
    import numpy as np

    without = np.ones(count, bool)
    without[group.units] = False
    return [at for at, term in enumerate(terms) if term(without) != values[at]]


def counts_after(steps: Sequence[Step]) -> dict[str, int]:
    """How many units are left of each group that was touched."""
    return {step.group: step.count for step in steps}
