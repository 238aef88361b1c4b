"""What people ask of sets of tuning records: the best of them, who is faster where, what there is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nncc.tuning.record import Key, Record, Task
from nncc.tuning.record_set import RecordSet

__all__ = ["Difference", "Gain", "Stats", "diff", "prune", "query", "stats"]


@dataclass(frozen=True)
class Difference:
    """The best records of two sets for one task and key; None where a set has none."""

    task: Task
    key: Key
    a: Record | None
    b: Record | None


@dataclass(frozen=True)
class Gain:
    """What the best records of one key bring."""

    key: Key
    tasks: int
    """With a record that is accepted."""
    speedup: float
    """Geometric mean of how many times faster than the default they are; 0 where no default was timed."""


@dataclass(frozen=True)
class Stats:
    tasks: int
    records: int
    accepted: int
    failed: int
    workloads: int
    machines: tuple[str, ...]
    gains: tuple[Gain, ...]


def prune(records: RecordSet, keep: int = 1, history: bool = False) -> RecordSet:
    """The best `keep` accepted records of each task and key, with the workloads of their tasks.

    Of the rest, `history` keeps all that was not accepted. Without it a failure stays where it revokes an acceptance,
    which would hold again as soon as someone merges it.
    """
    kept: list[Record] = []
    for task, key in _pairs(records):
        kept += records.ranking(task.hash, key)[:keep]
        all_of_it = records.history(task.hash, key)
        accepted = {record.choice for record in all_of_it if record.accepted}
        if history:
            kept += [record for record in all_of_it if not record.accepted]
        else:
            failed = sorted((r for r in all_of_it if r.error and r.choice in accepted), key=lambda r: r.moment)
            kept += {record.choice: record for record in failed}.values()
    return _of_tasks(kept, records)


def diff(a: RecordSet, b: RecordSet) -> list[Difference]:
    """The best records of both for every task and key that one of them has an accepted record for, by key and text."""
    rows = [
        Difference(task, key, a.best(task.hash, key), b.best(task.hash, key))
        for task, key in _pairs(RecordSet([*a, *b]))
    ]
    return [row for row in rows if row.a or row.b]


def stats(records: RecordSet) -> Stats:
    """How many there are of what, and what they bring for each key."""
    best: dict[tuple, list[Record]] = {key.code: [] for key in records.keys}
    for task, key in _pairs(records):
        if winner := records.best(task.hash, key):
            best[key.code].append(winner)
    gains = []
    for key in records.keys:
        logs = [-math.log(record.ratio) for record in best[key.code] if record.reference]
        speedup = math.exp(sum(logs) / len(logs)) if logs else 0.0
        gains.append(Gain(key, len(best[key.code]), speedup))
    return Stats(
        tasks=len(records.tasks),
        records=len(records),
        accepted=sum(record.accepted for record in records),
        failed=sum(bool(record.error) for record in records),
        workloads=len(records.workloads),
        machines=tuple(sorted({record.machine for record in records if record.machine})),
        gains=tuple(gains),
    )


def query(records: RecordSet, text: str = "", target: str = "") -> RecordSet:
    """The records whose task has `text` in its text, or a hash that begins with it, and whose target is `target`."""
    low = text.lower()
    return _of_tasks(
        [
            record
            for record in records
            if (low in record.task.text.lower() or record.task.hash.startswith(low))
            and target in ("", record.key.target, record.key.file_name)
        ],
        records,
    )


def _pairs(records: RecordSet) -> list[tuple[Task, Key]]:
    """Each task and key that there are records of, once."""
    keys = {key.code: key for key in records.keys}
    pairs = {(record.task.hash, record.key.code) for record in records}
    found = [(records.tasks[task], keys[code]) for task, code in pairs]
    return sorted(found, key=lambda pair: (pair[1].target, pair[1].code, pair[0].text, pair[0].hash))


def _of_tasks(kept: list[Record], records: RecordSet) -> RecordSet:
    tasks = {record.task.hash for record in kept}
    return RecordSet(kept, (each for each in records.workloads.values() if each.hash in tasks))
