"""From what calibration saw of an activation to the range that is quantized: one function an observer.

Histograms have BINS equal bins between the least and the largest element, zero included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from nncc.quant.recipe import Recipe

__all__ = ["BINS", "OBSERVERS", "Observation", "observed_range"]

BINS = 4096
_LEVELS = 255
"""Steps between the least and the largest of 8-bit integers."""


@dataclass(frozen=True)
class Observation:
    """What calibration saw of one activation, over all samples.

    `low` and `high` are its least and largest element, or zero if that is beyond; `average_low` and `average_high` the
    moving averages of each sample's. `counts` is a histogram (int64[BINS]) of [low, high] without the elements that
    are exactly zero, of which there are `zeros`: quantized, they have no error.
    """

    low: float
    high: float
    average_low: float
    average_high: float
    counts: np.ndarray
    zeros: int

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, float64."""
        import numpy as np

        return self.low + (np.arange(BINS) + 0.5) * ((self.high - self.low) / BINS)


Range = tuple[float, float]


def minmax(seen: Observation, recipe: Recipe) -> Range:
    """All that was seen."""
    return seen.low, seen.high


def moving_average(seen: Observation, recipe: Recipe) -> Range:
    """The exponential moving average of each sample's extremes (Jacob et al. 2018, arXiv:1712.05877, section 3.1)."""
    return seen.average_low, seen.average_high


def percentile(seen: Observation, recipe: Recipe) -> Range:
    """All but (100 - percentile) per cent of the elements, half of these at either end.

    Wu et al. 2020, arXiv:2004.09602, section 3; within a bin, elements are taken to be spread evenly.
    """
    import numpy as np

    counts = seen.counts.astype(np.float64)
    width = (seen.high - seen.low) / BINS
    if width > 0:
        counts[min(int(-seen.low / width), BINS - 1)] += seen.zeros
    total = counts.sum()
    if not total or width == 0:
        return seen.low, seen.high
    below = np.concatenate([[0.0], np.cumsum(counts)])
    edges = seen.low + np.arange(BINS + 1) * width
    outside = (1 - recipe.percentile / 100) / 2 * total
    low = float(np.interp(outside, below, edges))
    high = float(np.interp(total - outside, below, edges))
    return min(low, 0.0), max(high, 0.0)


def _clipped_ranges(seen: Observation, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Candidates: each end at its own place or nearer to zero, geometrically, down to 1 % of the whole range."""
    import numpy as np

    shrink = np.geomspace(1.0, 0.01, steps)
    lows = seen.low * shrink if seen.low < 0 else np.zeros(1)
    highs = seen.high * shrink if seen.high > 0 else np.zeros(1)
    low, high = np.meshgrid(lows, highs, indexing="ij")
    return low.ravel(), high.ravel()


def mse(seen: Observation, recipe: Recipe) -> Range:
    """The range with the least mean squared error of quantization (Nagel et al. 2021, arXiv:2106.08295, section 3.1).

    Inside, rounding costs scale^2/12 an element; outside, an element costs the square of its distance.
    """
    import numpy as np

    counts, centres = seen.counts.astype(np.float64), seen.centres
    if not counts.any():
        return seen.low, seen.high
    low, high = _clipped_ranges(seen, 60)
    mass, first, second = (np.concatenate([[0.0], np.cumsum(counts * centres**n)]) for n in range(3))
    below = np.searchsorted(centres, low, side="left")
    above = np.searchsorted(centres, high, side="right")
    inside = mass[above] - mass[below]
    cost = inside * ((high - low) / _LEVELS) ** 2 / 12
    cost += second[below] - 2 * low * first[below] + low**2 * mass[below]
    over = (mass[-1] - mass[above], first[-1] - first[above], second[-1] - second[above])
    cost += over[2] - 2 * high * over[1] + high**2 * over[0]
    best = int(np.argmin(cost))
    return float(low[best]), float(high[best])


def entropy(seen: Observation, recipe: Recipe) -> Range:
    """The range whose quantized histogram has the least Kullback-Leibler divergence from the one that was seen.

    Migacz 2017, "8-bit Inference with TensorRT": what is beyond a threshold is counted at the threshold in the
    reference; the quantized distribution is the clipped one in 128 steps (256 where the range has one sign), each
    spread evenly over those of its bins that are not empty. Both ends move together; zeros are not counted.
    """
    import numpy as np

    counts, centres = seen.counts.astype(np.float64), seen.centres
    if not counts.any():
        return seen.low, seen.high
    both = seen.low < 0 < seen.high
    limit = max(-seen.low, seen.high)
    magnitude = np.zeros(BINS // 2)
    places = np.minimum((np.abs(centres) / limit * len(magnitude)).astype(int), len(magnitude) - 1)
    np.add.at(magnitude, places, counts)
    levels = 128 if both else 256
    best, threshold = np.inf, len(magnitude)
    for stop in range(levels, len(magnitude) + 1, 8):
        divergence = _divergence(magnitude, stop, levels)
        if divergence < best:
            best, threshold = divergence, stop
    reach = limit * threshold / len(magnitude)
    return max(seen.low, -reach), min(seen.high, reach)


def _divergence(magnitude: np.ndarray, stop: int, levels: int) -> float:
    import numpy as np

    kept = magnitude[:stop]
    reference = kept.copy()
    reference[-1] += magnitude[stop:].sum()
    step = np.arange(stop) * levels // stop
    filled = (kept > 0).astype(np.float64)
    share = np.bincount(step, kept, levels) / np.maximum(np.bincount(step, filled, levels), 1)
    quantized = share[step] * filled
    if not quantized.any():
        return float("inf")
    # An empty bin that the clipped elements fill has no counterpart: a tiny one keeps the divergence finite.
    p, q = reference / reference.sum(), np.maximum(quantized / quantized.sum(), 1e-10)
    at = p > 0
    return float((p[at] * np.log(p[at] / q[at])).sum())


OBSERVERS: Mapping[str, Callable[[Observation, Recipe], Range]] = {
    "minmax": minmax,
    "moving_average": moving_average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}


def observed_range(seen: Observation, recipe: Recipe) -> Range:
    """The range of one activation, zero inside, by the recipe's observer."""
    low, high = OBSERVERS[recipe.observer](seen, recipe)
    return min(low, 0.0), max(high, 0.0)
