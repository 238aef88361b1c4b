"""Times become ratios to a reference that was measured in turn, and intervals that hold."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nncc.tuning.measure import _rank, compare, measure_until_sure


def made(ratios, rounds=40, drift=None, noise=0.01, seed=0):
    """Rounds of a reference of 1 ms and candidates at `ratios` of it, on a machine that drifts."""
    random = np.random.default_rng(seed)
    pace = 1e-3 * (np.ones(rounds) if drift is None else drift)
    times = pace[:, None] * np.array([1.0, *ratios])
    return times * (1 + noise * random.standard_normal(times.shape))


def test_ratios_are_to_the_reference_of_the_same_round():
    timings, disturbed = compare(made([0.8, 1.25], drift=np.linspace(1.0, 1.1, 40)), 3)
    assert [timing.ratio for timing in timings] == pytest.approx([1.0, 0.8, 1.25], rel=0.01)
    assert disturbed == 0
    assert all(timing.low <= timing.ratio <= timing.high for timing in timings)


def test_repeats_in_a_round_are_averaged():
    seconds = np.array([[1.0, 2.0, 3.0, 6.0]] * 5)
    timings, _ = compare(seconds, 2)
    assert timings[0].seconds == 2.0
    assert timings[1].ratio == pytest.approx(2.0)


def test_rounds_in_which_the_reference_was_disturbed_are_left_out():
    seconds = made([0.5], rounds=20)
    seconds[3:6, 0] *= 3
    timings, disturbed = compare(seconds, 2)
    assert disturbed == 3
    assert timings[1].rounds == 17
    assert timings[1].ratio == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("count", [6, 10, 25, 60])
def test_the_interval_holds_the_median_with_95_percent_and_no_narrower_one_does(count):
    rank = _rank(count)

    def outside(k):  # P(fewer than k + 1 values are below the median), and the same above
        return 2 * sum(comb(count, i) for i in range(k + 1)) / 2**count

    assert outside(rank) <= 0.05
    assert outside(rank + 1) > 0.05


@given(st.integers(1, 5), st.integers(0, 1000))
def test_intervals_are_in_order_whatever_the_times(rounds, seed):
    times = np.random.default_rng(seed).uniform(1e-6, 1.0, (rounds, 3))
    for timing in compare(times, 3)[0]:
        assert timing.low <= timing.ratio <= timing.high


def test_rounds_are_added_until_it_is_sure_or_enough():
    asked = []

    def measure(rounds):
        asked.append(rounds)
        return made([0.9], rounds=rounds, noise=0.05, seed=len(asked))

    measure_until_sure(measure, 2, rounds=10, width=1e-6, most=3)
    assert asked == [10, 10, 10]
    asked.clear()
    timings, _ = measure_until_sure(lambda n: made([0.9], rounds=n, noise=0), 2, rounds=10, width=0.01, most=3)
    assert timings[1].rounds == 10
