"""fit.py: numbers at some sizes become the expressions that made them, and those that are not simple become none."""

from __future__ import annotations

import pytest

from nncc.dynamic.fit import fits

SIZES = [{"n": n} for n in (511, 510, 449, 321, 512)]
PAIRS = [{"n": n, "s": 511} for n in (62, 63, 41, 57, 64)] + [
    {"n": 62, "s": 510},
    {"n": 62, "s": 321},
    {"n": 62, "s": 449},
    {"n": 63, "s": 510},
    {"n": 41, "s": 321},
]


@pytest.mark.parametrize(
    "made",
    [
        lambda n: 7,
        lambda n: n - 8,
        lambda n: 12 * n * n,
        lambda n: (n + 15) // 16,
        lambda n: (n - 1) // 2 + 1,
        lambda n: 24 * (n // 4),
        lambda n: 3 * n * n + 2 * n + 1,
    ],
)
def test_expressions_of_one_dimension_are_found(made):
    found = fits(SIZES, [made(point["n"]) for point in SIZES])
    assert found and all(any(each.at({"n": n}) == made(n) for each in found) for n in range(1, 600))


@pytest.mark.parametrize("made", [lambda n, s: 4 * n * s, lambda n, s: n * ((s + 7) // 8), lambda n, s: 12 * n * s * s])
def test_expressions_of_two_dimensions_are_found(made):
    (found, *_) = fits(PAIRS, [made(**point) for point in PAIRS])
    assert all(found.at({"n": n, "s": s}) == made(n, s) for n in range(1, 70) for s in range(1, 600, 7))


def test_what_is_not_simple_is_not_found():
    assert fits(SIZES, [17, 4, 99, 3, 1]) == []


def test_sizes_that_tell_expressions_apart_decide():
    """At sizes that 4 does not divide, n/4 rounded up is n/4 rounded down and one; 512 decides."""
    assert {str(each) for each in fits(SIZES, [point["n"] // 4 for point in SIZES])} == {"n/4"}
