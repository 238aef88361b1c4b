"""Integers for a range: zero is exact, ends are reached, and no scale is zero, infinite or too small to multiply."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nncc.quant.affine import affine_of_range, dequantized, largest_bias, quantized, weight_scale
from nncc.quant.recipe import Recipe

RECIPES = [Recipe(activations=a, symmetric=s) for a in ("uint8", "int8") for s in (False, True)]
ends = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize("recipe", RECIPES)
@given(low=ends, high=ends)
def test_zero_is_exact_and_the_range_is_covered_up_to_half_a_step(recipe, low, high):
    affine = affine_of_range(min(low, high), max(low, high), recipe)
    zero = quantized(np.zeros(1, np.float32), affine)
    assert zero[0] == affine.zero_point and dequantized(zero, affine)[0] == 0
    # The zero point is rounded, which moves both ends by half a step at most; a float32 scale rounds by 2^-24 of it.
    slack = affine.scale * (0.5 + 1e-4)
    assert affine.low <= min(low, high, 0) + slack and affine.high >= max(low, high, 0) - slack


def test_int8_and_uint8_stand_for_the_same_numbers():
    array = np.linspace(-0.7, 3, 100, dtype=np.float32)
    unsigned, signed = (affine_of_range(-0.7, 3.0, Recipe(activations=a)) for a in ("uint8", "int8"))
    assert unsigned.zero_point - 128 == signed.zero_point
    assert np.array_equal(
        dequantized(quantized(array, unsigned), unsigned), dequantized(quantized(array, signed), signed)
    )


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("ends", [(0.0, 0.0), (0.0, 1e-42), (-3e38, 3e38), (5.0, 5.0), (-2.0, -2.0)])
def test_scales_are_usable_for_ranges_that_are_hardly_any(recipe, ends):
    affine = affine_of_range(*ends, recipe)
    assert 2.0**-100 <= affine.scale <= 2.0**100
    assert affine.limits[0] <= affine.zero_point <= affine.limits[1]


def test_a_weight_scale_leaves_room_for_the_bias():
    bias = np.array([0.0, 1.0, -3e4])
    scale = weight_scale(np.array([0.0, 1e-9, 1.0]), largest_bias(bias, 0.01))
    assert scale[0] == 1.0
    assert (np.abs(bias) / (0.01 * scale.astype(np.float64)) <= 2**30 * 1.001).all()
    assert scale[2] == np.float32(1 / 127)
