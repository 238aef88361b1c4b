"""Tuning records of any number of people and machines, as a set: merging is union, and order means nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from nncc.tuning.record import Key, Record, Task, Workload

__all__ = ["RecordSet"]


class RecordSet:
    """An immutable set of records, and at most one workload a task: of two that differ, the lesser line."""

    def __init__(self, records: Iterable[Record] = (), workloads: Iterable[Workload] = ()) -> None:
        self._records = frozenset(records)
        known: dict[str, Workload] = {}
        for each in workloads:
            if each.hash not in known or each.tir < known[each.hash].tir:
                known[each.hash] = each
        self.workloads: Mapping[str, Workload] = known
        """By the hash of their task."""

    def __or__(self, other: RecordSet) -> RecordSet:
        return RecordSet(self._records | other._records, [*self.workloads.values(), *other.workloads.values()])

    def __sub__(self, other: RecordSet) -> RecordSet:
        """What `other` does not have."""
        rest = (each for each in self.workloads.values() if each.hash not in other.workloads)
        return RecordSet(self._records - other._records, rest)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RecordSet):
            return NotImplemented
        return self._records == other._records and self.workloads == other.workloads

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._records)

    def __bool__(self) -> bool:
        return bool(self._records or self.workloads)

    def __contains__(self, record: object) -> bool:
        return record in self._records

    def __iter__(self) -> Iterator[Record]:
        """Its records, in the same order for equal sets."""
        return iter(self._sorted)

    @cached_property
    def tasks(self) -> Mapping[str, Task]:
        """By hash; of several texts for one task, the newest record's."""
        newest = sorted(self._records, key=lambda record: (record.moment, record.to_line()))
        return {record.task.hash: record.task for record in newest}

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """One for each code that records are of, sorted; of several names for it, the first."""
        found: dict[tuple, Key] = {}
        for record in self._records:
            kept = found.setdefault(record.key.code, record.key)
            if record.key.target < kept.target:
                found[record.key.code] = record.key
        return tuple(sorted(found.values(), key=lambda key: (key.target, key.code)))

    def on(self, machine: str) -> RecordSet:
        """The records that were measured on this processor; all of them where it has no name."""
        if not machine:
            return self
        return RecordSet((each for each in self._records if each.machine == machine), self.workloads.values())

    @cached_property
    def by_machine(self) -> Mapping[str, RecordSet]:
        """By the processor that they were measured on, in the order of its name."""
        found: dict[str, list[Record]] = {}
        for record in self._records:
            found.setdefault(record.machine, []).append(record)
        return {machine: RecordSet(found[machine], self.workloads.values()) for machine in sorted(found)}

    def best(self, task_hash: str, key: Key) -> Record | None:
        """The accepted record with the least ratio, or None.

        A choice is out while a failure of it on the same processor is later than its newest acceptance. Where no
        default was timed, seconds decide; then the newest date.
        """
        return next(iter(self.ranking(task_hash, key)), None)

    def ranking(self, task_hash: str, key: Key) -> list[Record]:
        """All that `best` chooses from, best first."""
        return sorted(_standing(self.history(task_hash, key)), key=_order)

    def history(self, task_hash: str, key: Key) -> list[Record]:
        """All records of a task for the code of `key`, accepted or not."""
        return list(self._by_code.get((task_hash, key.code), ()))

    def near(self, task_hash: str, key: Key) -> list[Record]:
        """What `best` might choose for other keys: the same triple first, then vectors and threads most alike."""

        def distance(other: Key) -> tuple:
            vectors = abs(math.log2(other.vector_bits / key.vector_bits))
            threads = abs(math.log2(other.threads / key.threads))
            return other.mtriple != key.mtriple, vectors + threads, other.mcpu != key.mcpu, other.mattr != key.mattr

        others = [records for code, records in self._by_task.get(task_hash, {}).items() if code != key.code]
        found = [record for records in others for record in _standing(records)]
        return sorted(found, key=lambda record: (distance(record.key), *_order(record)))

    @cached_property
    def _sorted(self) -> list[Record]:
        return sorted(self._records, key=Record.to_line)

    @cached_property
    def _by_code(self) -> dict[tuple, list[Record]]:
        found: dict[tuple, list[Record]] = {}
        for record in self._sorted:
            found.setdefault((record.task.hash, record.key.code), []).append(record)
        return found

    @cached_property
    def _by_task(self) -> dict[str, dict[tuple, list[Record]]]:
        found: dict[str, dict[tuple, list[Record]]] = {}
        for (task_hash, code), records in self._by_code.items():
            found.setdefault(task_hash, {})[code] = records
        return found


def _standing(records: Iterable[Record]) -> list[Record]:
    """The accepted ones whose choice has not failed since."""
    accepted: dict[tuple, str] = {}
    failed: dict[tuple, str] = {}
    for record in records:
        newest, which = failed if record.error else accepted, (record.machine, record.choice)
        if record.error or record.accepted:
            newest[which] = max(newest.get(which, ""), record.moment)
    return [r for r in records if r.accepted and failed.get((r.machine, r.choice), "") <= accepted[r.machine, r.choice]]


def _order(record: Record) -> tuple:
    seconds = 0.0 if record.reference else record.seconds[0]
    return record.ratio, seconds, _Last(record.moment), record.to_line()


class _Last(str):
    """Text in the order from the greatest to the least."""

    def __lt__(self, other: str) -> bool:
        return str.__gt__(self, other)
