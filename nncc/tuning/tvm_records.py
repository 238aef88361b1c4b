"""Tuning records: what a search found out about kernels, by kernel and target.

A record set is a MetaSchedule database: a folder with ``database_workload.json`` and ``database_tuning_record.json``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nncc.errors import RecordError

__all__ = ["Records", "load_records"]

_FILES = ("database_workload.json", "database_tuning_record.json")
_CODE = ("kind", "mtriple", "mcpu", "mattr")
"""What decides which code a target runs: a record of another target than this says nothing."""


class Records:
    """The records that hold for one target."""

    def __init__(self, database: Any, count: int, others: int) -> None:
        self._database = database
        self.count = count
        """How many there are."""
        self.others = others
        """How many were left out because they are another target's."""

    def schedule(self, function: Any, target: Any) -> Any:
        """The TIR function scheduled as its best record says, or None where there is none."""
        from nncc.compat import IRModule

        module = IRModule({"main": function.with_attr("global_symbol", "main")})
        found = self._database.query_schedule(module, target, "main")
        return None if found is None else found.mod["main"]


def load_records(folders: Iterable[Path], target: Any) -> Records:
    """Read record folders for `target` (a TVM target).

    Raises RecordError where a folder has no records or its files cannot be parsed.
    """
    from tvm.s_tir.meta_schedule.database import JSONDatabase, MemoryDatabase

    memory = MemoryDatabase()
    count = others = 0
    for folder in folders:
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise RecordError(
                f"`{folder}` holds no tuning records: {' and '.join(missing)} missing",
                "give the folder that tuning wrote",
            )
        try:
            stored = JSONDatabase(
                path_workload=str(folder / _FILES[0]), path_tuning_record=str(folder / _FILES[1]), allow_missing=False
            ).get_all_tuning_records()
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise RecordError(
                f"the tuning records in `{folder}` cannot be read: {reason}", "tune again, or leave them out"
            ) from error
        for record in stored:
            if record.target is None or _code(record.target) != _code(target):
                others += 1
                continue
            if not memory.has_workload(record.workload.mod):
                memory.commit_workload(record.workload.mod)
            memory.commit_tuning_record(record)
            count += 1
    return Records(memory, count, others)


def _code(target: Any) -> tuple[str, ...]:
    attributes = dict(target.attrs.items())
    return (str(target.kind.name), *(str(attributes.get(key, "")) for key in _CODE[1:]))
