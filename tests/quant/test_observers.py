"""Each observer's range on distributions where the right one is known."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import parse, weights

from nncc.quant.calibrate import collect
from nncc.quant.observers import BINS, OBSERVERS, Observation, observed_range
from nncc.quant.recipe import Recipe


def seen(array: np.ndarray) -> Observation:
    low, high = min(array.min(), 0.0), max(array.max(), 0.0)
    counts, _ = np.histogram(array[array != 0], BINS, (low, high) if low < high else (0, 1))
    return Observation(float(low), float(high), float(low), float(high), counts, int((array == 0).sum()))


def error(array: np.ndarray, low: float, high: float) -> float:
    step = (high - low) / 255
    return float(
        np.square(np.clip(np.rint(array / step), np.rint(low / step), np.rint(high / step)) * step - array).mean()
    )


NORMAL = np.random.default_rng(0).normal(0, 1, 200_000)
OUTLIER = np.append(NORMAL, 40.0)


def test_minmax_is_all_that_was_seen():
    assert observed_range(seen(OUTLIER), Recipe(observer="minmax")) == (OUTLIER.min(), 40.0)


def test_percentile_leaves_out_the_share_it_was_told_half_at_each_end():
    low, high = observed_range(seen(NORMAL), Recipe(observer="percentile", percentile=99))
    # 0.5 % and 99.5 % quantiles; a bin is 9/4096 wide.
    assert abs(low - np.quantile(NORMAL, 0.005)) < 0.005 and abs(high - np.quantile(NORMAL, 0.995)) < 0.005


def test_percentile_100_is_minmax():
    assert observed_range(seen(OUTLIER), Recipe(observer="percentile", percentile=100)) == (OUTLIER.min(), 40.0)


def test_mse_has_less_error_than_any_range_scaled_from_minmax():
    best = error(OUTLIER, *observed_range(seen(OUTLIER), Recipe(observer="mse")))
    others = [error(OUTLIER, OUTLIER.min() * a, 40.0 * b) for a in (1, 0.9, 0.8) for b in np.geomspace(1, 0.05, 30)]
    # Its candidates are 8 % apart, and it takes rounding errors to be spread evenly.
    assert best < min(others) * 1.05


def test_entropy_cuts_an_outlier_off_and_leaves_a_uniform_distribution_whole():
    low, high = observed_range(seen(OUTLIER), Recipe(observer="entropy"))
    assert 3 < high < 10 and low == -high
    uniform = np.linspace(-1, 1, 100_000)
    low, high = observed_range(seen(uniform), Recipe(observer="entropy"))
    assert low < -0.97 and high > 0.97


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("array", [np.zeros(5), np.full(5, 3.0), np.full(5, -1e-30), np.array([0.0, 1e30])])
def test_constants_and_extremes_give_a_range_with_zero_in_it(observer, array):
    low, high = observed_range(seen(array), Recipe(observer=observer))
    assert min(array.min(), 0) <= low <= 0 <= high <= max(array.max(), 0)


def test_the_moving_average_starts_at_the_first_sample_and_moves_by_a_tenth():
    graph = parse("g (float[1,4] x) => (float[1,2] y) { y = MatMul (x, W) }", {"W": weights(4, 2)})
    inputs = [{"x": np.array([[-1, 0, 0, top]], np.float32)} for top in (1, 11)]
    observation = collect(graph, inputs, Recipe()).observations["x"]
    assert observed_range(observation, Recipe(observer="moving_average")) == (-1.0, 2.0)
    assert (observation.low, observation.high, observation.zeros, observation.counts.sum()) == (-1.0, 11.0, 4, 4)
