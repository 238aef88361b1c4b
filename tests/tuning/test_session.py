"""How a session's time is shared between the search and the finals."""

from __future__ import annotations

from math import inf

import pytest

from nncc.tuning.outcome import State
from nncc.tuning.session import Session


def session(budget: float, build_seconds: float) -> Session:
    made = Session.__new__(Session)
    made.state, made.build_seconds = State([], 0.0, 0.0, 0.0, budget, inf), build_seconds
    return made


@pytest.mark.parametrize(
    ("budget", "build_seconds", "levels", "reserve"),
    [
        (600.0, 10.0, 4, 5 * 16.5),
        (100.0, 10.0, 2, 3 * 16.5),
        (540.0, 150.0, 1, 270.0),  # the machine is busy: finals alone would take 397 s
        (inf, 1000.0, 4, 5 * 1303.5),
    ],
)
def test_half_of_the_budget_is_there_to_search(budget, build_seconds, levels, reserve):
    made = session(budget, build_seconds)
    assert (made.levels, made.reserve) == (levels, reserve)
