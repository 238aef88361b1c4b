"""One kernel's contest: what has been tried, what is best so far, and what another batch may bring."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any

from nncc.tuning.candidates import Kernel
from nncc.tuning.listed_search import ListedSearch
from nncc.tuning.measure import MARGIN
from nncc.tuning.record import Key
from nncc.tuning.record_set import RecordSet
from nncc.tuning.runners import Runner
from nncc.tuning.search import Search, frozen
from nncc.tuning.tasks import KernelTask

__all__ = ["Contest", "Entry", "margin", "relatives"]

_HOPE = 0.15
"""The part of what separates a kernel from the roofline that a first batch is expected to save."""
_UNKNOWN = 0.8
"""Of its time, what a kernel is taken to need at least where no roofline is known."""
_LEAST_ROOM = 0.02
"""Of its time, what may be saved of a kernel that is at the roofline, which is an estimate."""
_ABOUT_AS_GOOD = 1.03
"""Of the default's time: caches and threads of the whole model may make so much of a difference."""
_SMALL = 4
"""Points of a space that are all tried in the whole model."""
_MOST_HEARD = 8
"""Decisions of other kernels, the latest, that a batch begins with: half of one."""
_PATIENCE = 0.6
"""By so much less after each batch that has saved nothing."""


def margin(runner: Runner) -> float:
    """Of the default's time, what a winner takes less than: all of it where times are exact."""
    return 1.0 if runner.exact else MARGIN


@dataclass(frozen=True)
class Entry:
    """Decisions that were measured well."""

    decisions: Mapping[str, Any]
    ratio: float
    """Of the default's time."""


@dataclass
class Contest:
    """Of one task."""

    task: KernelTask
    search: Search | ListedSearch
    share: float
    """Of the whole model's time that the untuned kernel takes, from 0 to 1."""
    bound: float = _UNKNOWN
    """The part of the untuned kernel's time that it takes at least, by the roofline."""
    reference: float = 0.0
    """Median seconds of the default, when it was measured first."""
    entries: list[Entry] = field(default_factory=list)
    """Winners, the best first; each was checked."""
    measured: dict[str, Entry] = field(default_factory=dict)
    """By `frozen` decisions, all that was timed, in this run or an earlier one."""
    trials: int = 0
    idle: int = 0
    """Batches since the last one that saved something."""
    pace: float = 0.0
    """Seconds that the last batch took for each candidate."""
    starts: list[dict[str, Any]] = field(default_factory=list)
    """Decisions of others to begin with."""
    started_from: set[str] = field(default_factory=set)
    """Those of them that were tried, `frozen`."""

    @property
    def default(self) -> dict[str, Any]:
        """The template's own decisions."""
        return {name: options[0] for name, options in self.task.options.items()}

    @property
    def best(self) -> Entry:
        """The best that is known to be right; the default where nothing beats it."""
        return self.entries[0] if self.entries else Entry(self.default, 1.0)

    @property
    def expected_gain(self) -> float:
        """The part of the model's time that another batch is expected to save; 0 where there is nothing to try."""
        if self.search.exhausted:
            return 0.0
        return self.share * max(self.best.ratio - self.bound, _LEAST_ROOM) * _HOPE * _PATIENCE**self.idle

    def kernel(self, decisions: Mapping[str, Any] | None = None) -> Kernel:
        """The kernel with these decisions, the default's by default."""
        return Kernel(self.task.function, self.task.constants, self.default if decisions is None else decisions)

    def proposals(self, count: int) -> list[dict[str, Any]]:
        """What to measure next: first what others have found, then what the search proposes."""
        fitting = filter(None, map(self.search.fitted, self.starts))  # of another size, some answers are no options
        known = {*self.search.seconds, frozen(self.default)}
        first = [each for each in _distinct(fitting) if frozen(each) not in known][:count]
        self.starts = []
        self.started_from |= set(map(frozen, first))
        known |= self.started_from
        proposed = [each for each in self.search.propose(count) if frozen(each) not in known]
        return [*first, *proposed][:count]

    def hear_of(self, other: Contest, decisions: Mapping[str, Any]) -> None:
        """Begin the next batch with what has won for another kernel that is asked the same, and hope for as much."""
        if other is self or other.task.options.keys() != self.task.options.keys() or self.search.exhausted:
            return
        fitted = self.search.fitted(decisions)
        if fitted is None or frozen(fitted) in {*self.search.seconds, *self.started_from, frozen(self.default)}:
            return
        self.starts = _distinct([decisions, *self.starts])[:_MOST_HEARD]
        self.idle = max(0, self.idle - 1)

    def finalists(self, most: int) -> list[Entry]:
        """What to try in the whole model: the winners, then what is about as good as the default when it runs alone.

        Of a small space, which may be a question of threads that a kernel alone does not answer, all of it.
        """
        chosen = {frozen(each.decisions): each for each in self.entries}
        small = prod(len(options) for options in self.task.options.values()) <= _SMALL
        for key, entry in sorted(self.measured.items(), key=lambda pair: pair[1].ratio):
            if entry.ratio < _ABOUT_AS_GOOD or small:
                chosen.setdefault(key, entry)
        chosen.pop(frozen(self.default), None)
        return list(chosen.values())[:most]

    def enter(self, entry: Entry) -> bool:
        """Keep a checked winner; whether it is the best so far."""
        others = [each for each in self.entries if frozen(each.decisions) != frozen(entry.decisions)]
        self.entries = sorted([*others, entry], key=lambda each: each.ratio)
        return self.entries[0] is entry

    def holds(self, entry: Entry) -> bool:
        """Whether it is one of the winners, which were checked."""
        return any(frozen(each.decisions) == frozen(entry.decisions) for each in self.entries)

    def drop(self, decisions: Mapping[str, Any]) -> None:
        """Take a winner back."""
        self.entries = [each for each in self.entries if frozen(each.decisions) != frozen(decisions)]


def relatives(task: KernelTask, key: Key, records: RecordSet, most: int = 4) -> list[dict[str, Any]]:
    """Decisions of accepted records of this task, of whatever processor, and of tasks that differ in their sizes only.

    Nearest sizes first. They are where a search starts, never a hit.
    """
    same = [record for part in records.by_machine.values() for record in part.ranking(task.hash, key)[:1]]
    found = [record.decisions for record in [*same, *records.near(task.hash, key)[:2]]]
    operator, sizes = _operator(task.text)
    alike = []
    for other in records.tasks.values():
        if other.kind == "kernel" and other.hash != task.hash and _operator(other.text)[0] == operator:
            best = records.best(other.hash, key) or next(iter(records.near(other.hash, key)), None)
            if best is not None:
                alike.append((_distance(sizes, _operator(other.text)[1]), other.hash, best.decisions))
    found += [decisions for _, _, decisions in sorted(alike, key=lambda each: each[:2])]
    return _distinct(found)[:most]


def _operator(text: str) -> tuple[str, list[int]]:
    """A task's text without its sizes, and its sizes."""
    return re.sub(r"\d+", "#", text), [int(digits) for digits in re.findall(r"\d+", text)]


def _distance(sizes: list[int], others: list[int]) -> float:
    if len(sizes) != len(others):
        return inf
    return sum(abs(a - b) / max(a, b, 1) for a, b in zip(sizes, others, strict=True))


def _distinct(decisions: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [dict(each) for each in {frozen(each): each for each in decisions}.values()]
