"""What the times of candidates say: medians beside a reference that was measured in turn with them, and how sure it is.

Round by round, each candidate is compared with the reference of the same round, so that a machine that slows down slows
both. Rounds in which the reference itself was far from its median were disturbed, and say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["MARGIN", "Timing", "compare", "measure_until_sure"]

MARGIN = 0.99
"""A winner takes at most so much of the default's time: below, noise would choose."""
_DISTURBED = 1.15
"""A round whose reference took so many times its median."""


@dataclass(frozen=True)
class Timing:
    """A candidate's time: ratios are of its time over the reference's."""

    seconds: float
    """The median."""
    reference: float
    """Of the reference, its median seconds."""
    ratio: float
    low: float
    high: float
    """The ratio's median is between these with 95 % confidence."""
    rounds: int

    @property
    def spread(self) -> tuple[float, float, float]:
        """Median, low and high in seconds: what the reference's median makes of the ratios."""
        return (self.ratio * self.reference, self.low * self.reference, self.high * self.reference)

    @property
    def width(self) -> float:
        """Of the confidence interval, relative to the ratio."""
        return (self.high - self.low) / self.ratio


def compare(seconds: np.ndarray, candidates: int) -> tuple[list[Timing], int]:
    """The timings of the `candidates` of a library, the reference first among them, and the number of disturbed rounds.

    `seconds` is float64[rounds, calls]: candidate after candidate, again and again.
    """
    rounds = seconds.reshape(len(seconds), -1, candidates).mean(axis=1)
    reference = rounds[:, 0]
    calm = reference <= _DISTURBED * np.median(reference)
    rounds, reference = rounds[calm], reference[calm]
    with np.errstate(divide="ignore", invalid="ignore"):  # of a clock that has not moved comes no time
        ratios = np.sort(rounds / reference[:, None], axis=0)
    count = len(ratios)
    below = _rank(count)
    middle = np.median(ratios, axis=0)
    timings = [
        Timing(
            float(np.median(rounds[:, n])),
            float(np.median(reference)),
            float(middle[n]),
            float(ratios[below, n]),
            float(ratios[count - 1 - below, n]),
            count,
        )
        for n in range(candidates)
    ]
    return timings, int(len(calm) - calm.sum())


def measure_until_sure(
    measure: Callable[[int], np.ndarray], candidates: int, *, rounds: int, width: float, most: int
) -> tuple[list[Timing], int]:
    """As `compare`, of as many rounds as it takes until each confidence interval is narrower than `width`.

    `measure` is called with a number of rounds, at most `most` times.
    """
    seconds = measure(rounds)
    for _ in range(most - 1):
        timings, _ = compare(seconds, candidates)
        if all(timing.width <= width for timing in timings):
            break
        seconds = np.concatenate([seconds, measure(rounds)])
    return compare(seconds, candidates)


def _rank(count: int) -> int:
    """The number k for which the sorted values k and count - 1 - k enclose the median with 95 % confidence.

    From the binomial distribution: the median has as many values below as a fair coin has heads.
    """
    chance, below = 0.5**count, 0.0
    k = 0
    while k < count // 2:
        if below + chance > 0.025:
            break
        below += chance
        chance *= (count - k) / (k + 1)
        k += 1
    return max(0, k - 1) if count else 0
