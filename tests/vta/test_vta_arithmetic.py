"""The words of the description are exact: numpy and exact fractions are the referees."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nncc.vta.arithmetic import count, fma, meaning, wrap
from nncc.vta.isa import PROFILES

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)


@given(FLOATS, FLOATS, FLOATS)
def test_a_fused_sum_is_the_nearest_float(a, b, c):
    exact, found = Fraction(a) * Fraction(b) + Fraction(c), np.float32(fma(a, b, c))
    if not math.isfinite(found):
        assert abs(exact) >= Fraction(float(np.finfo(np.float32).max))
        return
    error = abs(Fraction(float(found)) - exact)
    for other in (np.nextafter(found, np.float32(-np.inf)), np.nextafter(found, np.float32(np.inf))):
        if math.isfinite(other):
            distance = abs(Fraction(float(other)) - exact)
            assert error < distance or (error == distance and not int(found.view(np.int32)) & 1)


def test_a_fused_sum_is_not_rounded_twice():
    # The sum lies 2^-60 below the middle of c and the next float32; its nearest float64 is that middle.
    a, b, c = 2.0**-24 * (1 + 2.0**-18), 1 - 2.0**-18, 1 + 2.0**-23
    assert fma(a, b, c) == c
    assert float(np.float32(np.float64(a) * b + c)) != fma(a, b, c)


@given(st.integers(-(1 << 70), 1 << 70))
def test_wrapping_keeps_32_bits(value):
    assert wrap(value) % (1 << 32) == value % (1 << 32)
    assert -(1 << 31) <= wrap(value) < 1 << 31


@given(INT32, INT32, st.floats(width=32), st.integers(-128, 127), st.booleans())
def test_requantization_is_that_of_the_processor(a, bias, scale, zero, relu):
    """As nncc/passes/quantization.py writes it."""
    low = zero if relu else -128
    with np.errstate(all="ignore"):
        value = np.array(a, np.int32) + np.array(bias, np.int32)
        real = value.astype(np.float32) * np.float32(scale)
        real = np.float32(low - zero) if not real > low - zero else real
        expected = int(np.rint(min(real, np.float32(127 - zero)))) + zero
    values = {"a": a, "bias": bias, "scale": scale, "zero": zero, "low": low}
    assert meaning(PROFILES["nv1"].operation("RQ"), False)(values) == expected


@pytest.mark.parametrize("overwrite", [False, True])
def test_overwriting_ignores_the_old_value(overwrite):
    results = {}
    for operation in PROFILES["nv1"].alu:
        if operation.overwrite:
            values = {"a": 100, "b": -5, "row": 3}
            results[operation.name] = meaning(operation, overwrite)(values)
    assert results == (
        {"MIN": -5, "MAX": -5, "ADD": -5, "MAC": -15} if overwrite else {"MIN": -5, "MAX": 100, "ADD": 95, "MAC": 85}
    )


def test_shifts_stop_at_the_width():
    shift = meaning(PROFILES["nv1"].operation("SHR"), False)
    cases = [(-5, 1, -3), (-5, 40, -1), (5, -2, 20), (3, -31, -(1 << 31)), (3, -40, 0), (7, 0, 7)]
    assert [shift({"a": a, "b": b}) for a, b, _ in cases] == [result for *_, result in cases]


def test_counting_starts_at_the_least_byte():
    assert [count(value) for value in (-128, 0, 127, (1 << 31) - 1)] == [
        0.0,
        128.0,
        255.0,
        float(np.float32(127 - 2**31)),
    ]
