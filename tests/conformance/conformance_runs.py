"""Conformance cases run in processes of their own: a crash or a hang is a verdict, and the next case goes on."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EXPECTATIONS", "Verdict", "expectations", "run_cases"]

HERE = Path(__file__).resolve().parent
EXPECTATIONS = HERE / "expectations.txt"
MOST_SECONDS = 120.0
"""For one case; the slowest takes two, and one that takes this long hangs."""


@dataclass(frozen=True)
class Verdict:
    """What became of a case: passed, refused (a clear error), wrong, failed (a defect), crash or hang; and why."""

    name: str
    verdict: str
    text: str = ""


def expectations(path: Path = EXPECTATIONS) -> dict[str, Verdict]:
    """The cases that do not pass, by name: ``name verdict reason`` in each line of the file."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, verdict, *reason = line.split(maxsplit=2)
            found[name] = Verdict(name, verdict, *reason)
    return found


def _begin(names: Sequence[str], target: str) -> tuple[subprocess.Popen[str], queue.Queue[str | None]]:
    """A worker with its orders, and the lines it writes; None after the last."""
    import nncc

    package = str(Path(nncc.__file__).parent.parent)
    search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    worker = subprocess.Popen(
        [sys.executable, str(HERE / "conformance_worker.py"), target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": search},
    )
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write(json.dumps(list(names)))
    worker.stdin.close()
    lines: queue.Queue[str | None] = queue.Queue()
    stdout = worker.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return worker, lines


def run_cases(names: Sequence[str], target: str = "native") -> Iterator[Verdict]:
    """The verdicts, in order; a worker that dies is replaced by one that goes on with the next case."""
    left = list(names)
    while left:
        worker, lines = _begin(left, target)
        try:
            while left:
                try:
                    line = lines.get(timeout=MOST_SECONDS)
                except queue.Empty:
                    yield Verdict(left.pop(0), "hang", f"it did not end within {MOST_SECONDS:g} s")
                    break
                if line is None:
                    yield Verdict(left.pop(0), "crash", f"exit status {worker.wait()}")
                    break
                entry = json.loads(line)
                if "begin" not in entry:
                    left.remove(entry["name"])
                    yield Verdict(entry["name"], entry["verdict"], entry["text"])
        finally:
            worker.kill()
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()
