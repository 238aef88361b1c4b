"""What is done on a GPU that is lent for minutes: steps by importance, about how long each takes, and what is known.

A run that was killed goes on where it stopped: what a file of rows has is not measured again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Results", "Step", "appended", "plan_text", "read_rows", "run_steps"]

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """Something to do; `run` gets the seconds that are left, None without a limit."""

    kind: str
    name: str
    seconds: float
    """About."""
    run: Callable[[float | None], None]
    elastic: bool = False
    """It stops by itself when the time is over, and so is worth to begin whatever is left."""


def plan_text(steps: Sequence[Step], limit: float | None) -> str:
    """A line for each step: what, for about how long, and when it is done."""
    lines, end = [], 0.0
    for number, step in enumerate(steps, 1):
        end += step.seconds
        over = limit is not None and end > limit
        late = ("   for as long as there is time" if step.elastic else "   may not fit") if over else ""
        lines.append(f"{number:3}  {step.kind:10} {step.name:32} {step.seconds:5.0f} s, done after {end:5.0f} s{late}")
    words = "without a limit" if limit is None else f"of {limit:.0f} s"
    return "\n".join([*lines, f"{len(steps)} steps, about {end:.0f} s {words}"])


def run_steps(steps: Iterable[Step], limit: float | None, clock: Callable[[], float] = time.monotonic) -> list[Step]:
    """Run those that fit into `limit` seconds, in their order; the others. How long steps of a kind took corrects what
    is expected of its next ones."""
    begun = clock()
    spent: Counter[str] = Counter()
    thought: Counter[str] = Counter()
    others = []
    for step in steps:
        left = None if limit is None else limit - (clock() - begun)
        expected = step.seconds * (spent[step.kind] / thought[step.kind] if thought[step.kind] else 1.0)
        if left is not None and (left <= 0 if step.elastic else expected > left):
            others.append(step)
            continue
        start = clock()
        step.run(left)
        spent[step.kind] += clock() - start
        thought[step.kind] += step.seconds
    return others


class Results:
    """Rows of a file of lines of JSON, to which rows are added; the newest of a model, precision and build counts."""

    def __init__(self, path: Path, gpu: str) -> None:
        self.path, self.gpu = path, gpu

    def known(self, made: Row) -> Row | None:
        """The row of a library on this GPU."""
        same = [
            row
            for row in read_rows(self.path)
            if row.get("gpu") == self.gpu and all(row.get(key) == made[key] for key in ("model", "precision", "build"))
        ]
        return same[-1] if same else None

    def add(self, row: Row) -> None:
        appended(self.path, row)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, none where there is no file; a line that a killed process left unfinished is no row."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found += [row] if isinstance(row, dict) else []
    return found


def appended(path: Path, row: Row) -> None:
    """Add a row, on a line of its own whatever the file ends with."""
    with path.open("a+b") as file:
        file.seek(0, 2)
        if file.tell():
            file.seek(-1, 2)
            file.write(b"" if file.read(1) == b"\n" else b"\n")
        file.write(json.dumps(row).encode() + b"\n")
