"""Samples are varied as each word says, and keep their form."""

from __future__ import annotations

import numpy as np

from nncc.distillation.augment import AUGMENTATIONS, augmented


def test_augmentations_vary_samples_and_keep_their_form():
    random = np.random.default_rng(0)
    images = {"x": random.standard_normal((16, 3, 20, 20)).astype(np.float32)}
    for name in AUGMENTATIONS:
        found = augmented(images, (name,), np.random.default_rng(1))["x"]
        assert found.shape == images["x"].shape and found.dtype == np.float32 and (found != images["x"]).any()
        assert np.array_equal(found, augmented(images, (name,), np.random.default_rng(1))["x"])
    flipped = augmented(images, ("flip",), np.random.default_rng(1))["x"]
    same = (flipped == images["x"]).all((1, 2, 3))
    assert (flipped[~same] == images["x"][~same][..., ::-1]).all() and 0 < same.sum() < 16


def signals(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def varied(x, name):
    return augmented({"x": x}, (name,), np.random.default_rng(1))["x"]


def test_stretches_come_from_the_same_place_of_other_samples():
    x = signals(16, 40, 3)
    cut = varied(x, "cut")
    sources = (cut[:, None] == x[None]).all(-1)  # by sample, sample that it may come from, and place
    assert sources.any(1).all()
    own = sources[np.arange(16), np.arange(16)]
    assert 0.3 < own.mean() < 0.9
    assert np.abs(np.diff(own, axis=1)).sum(1).max() <= 6  # three stretches have six ends


def test_a_warped_ramp_goes_on_rising_and_what_is_constant_stays():
    ramp = np.repeat(np.arange(40, dtype=np.float32)[None, :, None], 16, 0) * np.array([1, 0], np.float32) + 5
    warped = varied(ramp.transpose(0, 2, 1), "warp")  # the longest axis is the last one
    assert (warped[:, 1] == 5).all() and (np.diff(warped[:, 0]) >= 0).all()
    assert (warped[:, 0] >= 5).all() and (warped[:, 0] <= 44).all()
    steps = np.median(np.diff(warped[:, 0]), axis=1)
    assert (steps > 0.77).all() and (steps < 1.29).all() and steps.std() > 0.05


def test_a_level_is_one_number_for_a_row_and_a_factor_for_all():
    x = signals(16, 40, 3)
    level = varied(x, "level")
    factors = level.std(1) / x.std(1)
    assert np.allclose(factors, factors[:, :1], rtol=1e-3)
    assert (factors > 0.74).all() and (factors < 1.36).all() and factors.std() > 0.05
    assert np.ptp(level - factors[:, :1, None] * x, axis=1).max() < 1e-4


def test_spread_noise_is_made_of_what_samples_differ_by():
    x = signals(6, 40, 3)
    noise = (varied(x, "spread") - x).reshape(6, -1)
    basis = (x - x.mean(0)).reshape(6, -1)
    parts, *_ = np.linalg.lstsq(basis.T, noise.T, rcond=None)
    assert np.abs(noise - parts.T @ basis).max() < 1e-4 < np.abs(noise).max()
    assert 0.01 < noise.std() / basis.std() < 0.5


def test_samples_that_have_one_value_or_that_are_alone_can_be_varied():
    for shape in ((1, 8, 2), (4, 1), (3, 2)):
        for name in ("cut", "warp", "level", "spread"):
            found = varied(signals(*shape), name)
            assert found.shape == shape and np.isfinite(found).all()
