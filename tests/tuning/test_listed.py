"""A walk through a list: the first first, nothing twice."""

from __future__ import annotations

from math import inf
from types import SimpleNamespace

from nncc.tuning.listed import ListSearch


def test_options_come_in_their_order_and_once() -> None:
    search = ListSearch(SimpleNamespace(options={"plan": ("a", "b", "c", "d")}))  # type: ignore[arg-type]
    assert search.propose(2) == [{"plan": "a"}, {"plan": "b"}]
    search.learn([({"plan": "b"}, 0.5), ({"plan": "a"}, inf), ({"plan": "b"}, 0.1)])
    assert search.seconds == {'{"plan":"b"}': 0.5, '{"plan":"a"}': inf}
    assert search.propose(9) == [{"plan": "c"}, {"plan": "d"}] and not search.exhausted
    search.learn(({"plan": each}, 1.0) for each in "cd")
    assert search.propose(9) == [] and search.exhausted


def test_what_others_found_fits_if_it_is_an_option() -> None:
    search = ListSearch(SimpleNamespace(options={"plan": ("a", "b")}))  # type: ignore[arg-type]
    assert search.fitted({"plan": "b"}) == {"plan": "b"}
    assert search.fitted({"plan": "z"}) is None and search.fitted({"tile": "a"}) is None
