"""What is known of a target's tasks before anything is measured: from records, from a lock file, or from a caller.

A kernel or a pass asks with the hash of its task. Every answer that was given, and every default that was taken, is a
`Decision`: together they are what a lock file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nncc.tuning.records import Key, RecordSet

__all__ = ["Known"]


@dataclass(frozen=True)
class Known:
    """Answers by task, of one target; of several sources, the first that knows a task."""

    sets: tuple[tuple[str, RecordSet], ...] = ()
    """What people call it, and the records."""
    key: Key | None = None
    fixed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Answers that come before all records."""
    strict: str = ""
    """The lock file that has to know every task; empty without one."""

    def __call__(self, task: str) -> tuple[Mapping[str, Any] | None, str]:
        """What is known to be best for a task, or None, and where that is known from: a `Find` of `nncc.choices`."""
        if task in self.fixed:
            return self.fixed[task], self.strict or "given"
        for name, records in self.sets:
            best = records.best(task, self.key) if self.key is not None else None
            if best is not None:
                gain = f", {1 / best.ratio:.2f}x" if 0 < best.ratio < float("inf") else ""
                return best.decisions, f"record of {best.date[:10]} in {name}{gain}"
        return None, "default"
