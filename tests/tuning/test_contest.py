"""Where a kernel's search begins: at records of other processors and sizes, and at what won for its neighbours."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from made_records import KEY, TASK, TEXT, made

from nncc.kernels.choices import Choices
from nncc.tuning.contest import Contest, Entry, relatives
from nncc.tuning.known import shipped_records
from nncc.tuning.records import RecordSet, Task


class Proposing:
    """A search that proposes nothing of its own, and takes every tile up to 8."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.exhausted = False

    def fitted(self, given):
        choices = Choices(given)
        return {"tile": choices("tile", range(1, 9)), "order": choices("order", ["rows", "columns"])}

    def propose(self, count):
        return []


def contest(**options) -> Contest:
    task = SimpleNamespace(hash=TASK, text=TEXT, options=options or {"tile": (1, 2), "order": ("rows", "columns")})
    return Contest(task, Proposing(), 0.5)


def test_what_won_for_a_kernel_is_tried_next_for_those_that_are_asked_the_same():
    winner, other, stranger = contest(), contest(), contest(tile=(1, 2))
    other.idle = 2
    for each in (winner, other, stranger):
        each.hear_of(winner, {"tile": 5, "order": "columns"})
    assert [each.proposals(16) for each in (winner, other, stranger)] == [[], [{"tile": 5, "order": "columns"}], []]
    assert (other.idle, stranger.idle) == (1, 0)
    assert other.proposals(16) == []  # once


def test_of_what_was_heard_the_latest_comes_first_as_far_as_it_fits():
    other = contest()
    for tile in (2, 3, 99):
        other.hear_of(contest(), {"tile": tile, "order": "columns"})
    assert [each["tile"] for each in other.proposals(16)] == [1, 3, 2]


def test_a_search_begins_with_the_best_of_each_processor_and_of_the_nearest_size():
    ours, theirs = made(tile=2, median=1e-4), made(tile=3, machine="Another", median=5e-4)
    near, far = (
        replace(made(hash_, tile=tile), task=Task(hash_, "kernel", TEXT.replace("56", size)))
        for hash_, tile, size in (("aaaaaaaa", 5, "60"), ("bbbbbbbb", 6, "400"))
    )
    task = SimpleNamespace(hash=TASK, text=TEXT)
    found = relatives(task, KEY, RecordSet([ours, theirs, near, far]))
    assert [each["tile"] for each in found] == [2, 3, 5, 6]


def test_more_is_expected_where_a_kernel_is_far_from_the_roofline():
    near, far = contest(), contest()
    near.share, near.bound, far.share, far.bound = 0.2, 0.95, 0.05, 0.3
    assert far.expected_gain > near.expected_gain > 0
    far.enter(Entry({"tile": 2}, 0.35))  # what it could save it has
    assert far.expected_gain < near.expected_gain
    near.bound = 1.1  # of an estimate of which a measurement is better
    assert near.expected_gain > 0


def test_records_that_come_with_nncc_are_there_to_begin_with():
    records, problems = shipped_records()
    assert not problems
    assert {key.target for key in records.keys} >= {"x86-64-v3", "x86-64-v4-vnni"}
