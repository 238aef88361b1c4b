"""What tuning finds out, as records; nothing at all where times say nothing about the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nncc.tuning.exchange import save_function
from nncc.tuning.lab import Result
from nncc.tuning.measure import Timing
from nncc.tuning.record import Key, Record, Task, Versions, Workload, now
from nncc.tuning.record_files import Journal
from nncc.tuning.record_set import RecordSet
from nncc.tuning.tasks import KernelTask
from nncc.version import VERSION

__all__ = ["Writer"]


class Writer:
    """Appends to a journal, if there is one, what `machine` measured for `key`, and `by` whom."""

    def __init__(self, journal: Journal | None, key: Key, machine: str, by: str) -> None:
        self._journal = journal
        self._key = key
        self._machine = machine
        self._by = by
        self._written: set[str] = set()

    def workload(self, task: KernelTask, known: RecordSet) -> None:
        """What a kernel is, once."""
        if self._journal is None or task.hash in self._written or task.hash in known.workloads:
            return
        self._journal.append(Workload.of(task.hash, save_function(task.function, sorted(task.constants))))
        self._written.add(task.hash)

    def trials(
        self, task: Task | KernelTask, decisions: Sequence[Mapping[str, Any]], results: Sequence[Result]
    ) -> None:
        """Candidates of a kernel, measured once or failed."""
        records = [
            self._record(_task(task), each, result.timing, error=result.error)
            for each, result in zip(decisions, results, strict=True)
        ]
        self._append(records)

    def winner(self, task: Task | KernelTask, decisions: Mapping[str, Any], timing: Timing) -> None:
        """Decisions that were measured again and checked."""
        self._append([self._record(_task(task), decisions, timing, accepted=True)])

    def refuse(self, task: Task | KernelTask, decisions: Mapping[str, Any], error: str) -> None:
        """Decisions that are not to be used, whatever was said before."""
        self._append([self._record(_task(task), decisions, None, error=error)])

    def choice(self, task: Task, decisions: Mapping[str, Any], timing: Timing, accepted: bool) -> None:
        """A choice that changes the graph: the times are of the whole model, or of the kernels that it is about."""
        self._append([self._record(task, decisions, timing, accepted=accepted)])

    def _append(self, records: Sequence[Record]) -> None:
        if self._journal is not None and records:
            self._journal.append(*records)

    def _record(
        self,
        task: Task,
        decisions: Mapping[str, Any],
        timing: Timing | None,
        *,
        accepted: bool = False,
        error: str = "",
    ) -> Record:
        return Record(
            task=task,
            key=self._key,
            decisions=decisions,
            seconds=timing.spread if timing is not None else (),
            reference=timing.reference if timing is not None else 0.0,
            runs=timing.rounds if timing is not None else 0,
            accepted=accepted,
            error=error,
            trace="",
            machine=self._machine,
            versions=_versions(),
            date=now(),
            by=self._by,
        )


def _task(task: Task | KernelTask) -> Task:
    return task if isinstance(task, Task) else Task(task.hash, "kernel", task.text[:1000])


def _versions() -> Versions:
    from tvm.target import codegen

    from nncc.compat import tvm

    return Versions(VERSION, str(tvm.__version__), str(codegen.llvm_version_major()))
