"""What people ask of sets of tuning records: the best of them, who is faster where, what there is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nncc.tuning.record import Key, Record, Task
from nncc.tuning.record_set import RecordSet

__all__ = ["Difference", "Gain", "Stats", "diff", "prune", "query", "stats"]


@dataclass(frozen=True)
class Difference:
    """The best records of two sets for one task, key and processor; None where a set has none."""

    task: Task
    key: Key
    machine: str
    a: Record | None
    b: Record | None


@dataclass(frozen=True)
class Gain:
    """What the best records of one key and processor bring."""

    key: Key
    machine: str
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
    """The best `keep` accepted records of each task, key and processor, with the workloads of their tasks.

    Of the rest, `history` keeps all that was not accepted. Without it a failure stays where it revokes an acceptance,
    which would hold again as soon as someone merges it.
    """
    kept: list[Record] = []
    for task, key, _, part in _parts(records):
        kept += part.ranking(task.hash, key)[:keep]
        all_of_it = part.history(task.hash, key)
        accepted = {record.choice for record in all_of_it if record.accepted}
        if history:
            kept += [record for record in all_of_it if not record.accepted]
        else:
            failed = sorted((r for r in all_of_it if r.error and r.choice in accepted), key=lambda r: r.moment)
            kept += {record.choice: record for record in failed}.values()
    return _of_tasks(kept, records)


def diff(a: RecordSet, b: RecordSet) -> list[Difference]:
    """The best records of both for every task, key and processor that one of them has an accepted record for, by key,
    text and processor."""
    rows = []
    for task, key, machine, _ in _parts(RecordSet([*a, *b])):
        best = (each.by_machine.get(machine, RecordSet()).best(task.hash, key) for each in (a, b))
        rows.append(Difference(task, key, machine, *best))
    return [row for row in rows if row.a or row.b]


def stats(records: RecordSet) -> Stats:
    """How many there are of what, and what they bring for each key and processor."""
    best: dict[tuple[str, tuple], list[Record]] = {}
    for task, key, machine, part in _parts(records):
        winner = part.best(task.hash, key)
        best.setdefault((machine, key.code), []).extend([winner] if winner else [])
    gains = []
    for key in records.keys:
        for machine in records.by_machine:
            if (machine, key.code) not in best:
                continue
            winners = best[machine, key.code]
            logs = [-math.log(record.ratio) for record in winners if record.reference]
            gains.append(Gain(key, machine, len(winners), math.exp(sum(logs) / len(logs)) if logs else 0.0))
    return Stats(
        tasks=len(records.tasks),
        records=len(records),
        accepted=sum(record.accepted for record in records),
        failed=sum(bool(record.error) for record in records),
        workloads=len(records.workloads),
        machines=tuple(filter(None, records.by_machine)),
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


def _parts(records: RecordSet) -> list[tuple[Task, Key, str, RecordSet]]:
    """Each task, key and processor that there are records of, and all of that processor; by key, text and processor."""
    keys = {key.code: key for key in records.keys}
    found = [
        (records.tasks[task], keys[code], machine, part)
        for machine, part in records.by_machine.items()
        for task, code in {(record.task.hash, record.key.code) for record in part}
    ]
    return sorted(found, key=lambda each: (each[1].target, each[1].code, each[0].text, each[0].hash, each[2]))


def _of_tasks(kept: list[Record], records: RecordSet) -> RecordSet:
    tasks = {record.task.hash for record in kept}
    return RecordSet(kept, (each for each in records.workloads.values() if each.hash in tasks))
