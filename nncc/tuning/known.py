"""What is known of a target's tasks before anything is measured: from records, or from a lock file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.host import host
from nncc.kernels.choices import TRACE
from nncc.resources import schedules_folder

if TYPE_CHECKING:
    from nncc.target import Target
    from nncc.tuning.records import Key, Problem, RecordSet

__all__ = ["Known", "known_from", "shipped_records"]


@dataclass(frozen=True)
class Known:
    """Answers by task, of one target; of several sources, the first that knows a task."""

    fixed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Decisions that come before all records."""
    fixed_by: str = "given"
    """Where they are from."""
    sources: tuple[tuple[str, RecordSet], ...] = ()
    """Sets of records that hold for this target and processor, and what people call them."""
    others: tuple[RecordSet, ...] = ()
    """Those sets with the records of other targets and processors."""
    key: Key | None = None
    problems: tuple[Problem, ...] = ()
    """Lines of the records that were left out."""

    def __call__(self, task: str) -> tuple[Mapping[str, Any] | None, str]:
        """What is known to be best for a task, or None, and where that is known from: a `Find` of
        `nncc.kernels.choices`."""
        if task in self.fixed:
            return self.fixed[task], self.fixed_by
        for name, records in self.sources:
            best = records.best(task, self.key) if self.key is not None else None
            if best is not None:
                decisions = {TRACE: best.trace} if best.trace else best.decisions
                return decisions, f"record in {name}, {_gain(best.ratio)}"
        return None, "default"

    def elsewhere(self, tasks: Sequence[str]) -> dict[str, str]:
        """By task, the other processor that records know it for, where none is for this one."""
        found = {}
        for task in tasks:
            if self.key is None or self(task)[0] is not None:
                continue
            for records in self.others:
                near = records.best(task, self.key) or next(iter(records.near(task, self.key)), None)
                if near is not None:
                    found[task] = f"{near.machine or near.key.mcpu}, {near.key.file_name}"
                    break
        return found


def known_from(places: Sequence[str], shipped: bool, target: Target) -> Known:
    """What the records of `places`, in this order, and those that come with nncc know of `target`.

    For this machine (`native`), only what was measured on its processor holds; for a target by name, of what comes with
    nncc that of one processor: gains on several cannot be compared. Raises RecordError where a place cannot
    be read.
    """
    from nncc.tuning.records import Key, open_records, read_folder

    found, problems = [], []
    for place in places:
        records, more = open_records([place])
        found.append((str(place), records))
        problems += more
    machine = host().processor if target.name.split(",")[0] == "native" else ""
    folder = _shipped_folder() / target.base
    if shipped and folder.is_dir():
        records, more = read_folder(folder)
        found.append(("nncc", records if machine else records.on(_typical(folder))))
        problems += more
    return Known(
        sources=tuple((name, records.on(machine)) for name, records in found),
        others=tuple(records for _, records in found[: len(places)]),
        key=Key.of(target),
        problems=tuple(problems),
    )


def shipped_records() -> tuple[RecordSet, list[Problem]]:
    """What comes with nncc for all targets and processors; and lines that are damaged."""
    from nncc.tuning.records import RecordSet, read_folder

    found, problems = RecordSet(), []
    for folder in sorted(path for path in _shipped_folder().glob("*") if path.is_dir()):
        records, more = read_folder(folder)
        found |= records
        problems += more
    return found, problems


def _shipped_folder() -> Path:
    return schedules_folder() / "records"


def _typical(folder: Path) -> str:
    """Of the processors that a folder of shipped records knows, the one that is meant by the target's name."""
    from nncc.toml import tomllib

    about = tomllib.loads((folder / "about.toml").read_text(encoding="utf-8"))
    return str(about["machine"])


def _gain(ratio: float) -> str:
    if not isfinite(ratio):
        return "imported"
    return f"{1 / ratio:.2f}x" if ratio < 1.0 else "no gain over the default"
