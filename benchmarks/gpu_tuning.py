"""Kernels for a GPU tuned in two places: candidates are built on any machine, and measured where the GPU is, in one go.

`gpu.py` has the commands. In between lies a folder ``tune``: for each task of all models ``HASH.so``, the default and
some candidates one after the other, and ``HASH.json``, which says what they are; then ``measured.jsonl``, a line for
each. What was measured already is not measured again. Measuring needs numpy and this checkout, and no TVM.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from gpu_steps import appended, read_rows

ROUNDS = 12
SURE_ROUNDS = 30
"""Where something was faster than the default."""
TASK_SECONDS = 120
"""What takes longer hangs."""
MEASURED = "measured.jsonl"


def make_candidates(
    model: Path, target: str, weights_bytes: int, folder: Path, count: int, precision: str = "float32"
) -> int:
    """Build the libraries of a model's tasks that `folder` does not have, of `count` candidates each; how many."""
    from nncc.config import Config
    from nncc.kernels.templates import load_templates
    from nncc.pipeline import plan, run
    from nncc.tuning.builders import Builders
    from nncc.tuning.tasks import kernel_tasks

    folder.mkdir(parents=True, exist_ok=True)
    job = plan(model, Config(target=target, until="lower", verify=False, precision=precision))
    templates = load_templates()
    tasks = [t for t in kernel_tasks(run(job), templates) if not (folder / f"{t.hash}.json").exists()]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        builders = Builders(timeout=900.0)
        try:
            for start in range(0, len(tasks), builders.count):
                some = tasks[start : start + builders.count]
                _build(some, job.target, templates, builders, Path(scratch), folder, weights_bytes, count)
        finally:
            builders.close()
    return len(tasks)


def _build(
    tasks: Sequence[Any],
    target: Any,
    templates: Mapping[str, Any],
    builders: Any,
    scratch: Path,
    folder: Path,
    weights_bytes: int,
    count: int,
) -> None:
    from nncc.tuning.builders import BuildFailure, Recipe
    from nncc.tuning.candidates import Kernel
    from nncc.tuning.exchange import save_function
    from nncc.tuning.lab import PASSED_OVER
    from nncc.tuning.listed_search import ListedSearch
    from nncc.tuning.record import Workload

    proposals, recipes = [], []
    for task in tasks:
        with target.tvm_target():
            proposed = ListedSearch(task, templates, target, 0).propose(count)
        proposals.append([{name: options[0] for name, options in task.options.items()}, *proposed])
        kernels = [Kernel(task.function, task.constants, decisions) for decisions in proposals[-1]]
        recipes.append(Recipe.of(kernels, target, (), scratch, weights_bytes=min(weights_bytes, PASSED_OVER)))
    for task, decisions, built in zip(tasks, proposals, builders.build(recipes), strict=True):
        if isinstance(built, BuildFailure):
            print(f"{task.text}: not built: {built.message}", file=sys.stderr)
            continue
        facts = {
            "number": len(list(folder.glob("*.json"))),
            "task": {"hash": task.hash, "kind": "kernel", "text": task.text[:1000]},
            "target": target.name,
            "decisions": decisions,
            "refused": list(built.refused),
            "before": built.before,
            "workload": Workload.of(task.hash, save_function(task.function, sorted(task.constants))).to_line(),
        }
        if built.library is not None:
            shutil.move(built.library, folder / f"{task.hash}.so")
        (folder / f"{task.hash}.json").write_text(json.dumps(facts) + "\n")


def measure_candidates(folder: Path, seconds: float | None = None) -> None:
    """Measure what was not measured yet, in the order in which it was made, until `seconds` are over; in another
    process, which is started again after each library that ends it."""
    end = None if seconds is None else time.monotonic() + seconds
    paths = str(Path(__file__).resolve().parents[1])
    program = f"import sys; sys.path[:0] = [{paths!r}, {str(Path(__file__).parent)!r}]; import gpu_tuning; "
    program += "gpu_tuning.measure_here(*sys.argv[1:])"
    while waiting(folder):
        left = [] if end is None else [str(end - time.monotonic())]
        done = subprocess.run([sys.executable, "-c", program, folder, *left], stdout=subprocess.PIPE, text=True)
        sys.stdout.write("".join(line + "\n" for line in done.stdout.splitlines() if not line.startswith("begin ")))
        if done.returncode == 0:
            return
        begun = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("begin ")]
        if not begun:
            raise SystemExit(f"gpu.py: candidates cannot be measured: exit status {done.returncode}")
        _note(folder, {"task": begun[-1], "error": f"its process ended with status {done.returncode}"})


def waiting(folder: Path) -> list[Path]:
    """The libraries that have no line yet, those first that were made first."""
    known = {row["task"] for row in read_rows(folder / MEASURED)}
    found = [library for library in folder.glob("*.so") if library.stem not in known]
    return sorted(
        found, key=lambda library: (json.loads(library.with_suffix(".json").read_text()).get("number", 0), library)
    )


def _note(folder: Path, row: Mapping[str, Any]) -> None:
    appended(folder / MEASURED, row)


def measure_here(folder: str, seconds: str = "inf") -> None:
    """The other process: one library after the other, none begun after `seconds`."""
    end = time.monotonic() + float(seconds)
    from nncc.host import gpu

    found = gpu()
    if isinstance(found, str):
        raise SystemExit(f"gpu.py: {found}")
    for library in waiting(Path(folder)):
        if time.monotonic() > end:
            return
        print(f"begin {library.stem}", flush=True)
        signal.alarm(TASK_SECONDS)
        facts = json.loads(library.with_suffix(".json").read_text())
        row = {"task": library.stem, "machine": found.name, **_measured(library, facts)}
        signal.alarm(0)
        _note(Path(folder), row)
        best = min((each["ratio"] for each in row.get("timings", [])), default=1.0)
        print(f"{1 / best:.2f}x {facts['task']['text'][:90]}", flush=True)


def _measured(library: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """By candidate that is in the library, the default first: its timing, and why its numbers are wrong."""
    from nncc.errors import RunError
    from nncc.runtime.loader import load
    from nncc.tuning.agreement import wrong_by
    from nncc.tuning.measure import MARGIN, compare, measure_until_sure

    count, before = facts["refused"].count(""), facts["before"]
    try:
        with load(library) as module:
            inputs = {tensor.name: _made(tensor) for tensor in module.inputs}

            def rounds(number: int) -> np.ndarray:
                return module.profile_rounds(inputs, number, 2.0)[:, before:]

            timings, _ = compare(rounds(ROUNDS), count)
            if any(timing.ratio < MARGIN for timing in timings):
                timings, _ = measure_until_sure(rounds, count, rounds=SURE_ROUNDS, width=0.006, most=3)
            expected, *others = module.run(inputs).values()
            wrong = ["", *(wrong_by(expected, each) for each in others)]
    except RunError as error:
        return {"error": error.message}
    return {"timings": [asdict(timing) for timing in timings], "wrong": wrong}


def _made(tensor: Any) -> np.ndarray:
    """Numbers for an input: normally distributed, or small integers; 64-bit integers are indices, and 0."""
    random = np.random.default_rng(0)
    if tensor.numpy_dtype.kind == "f":
        return random.standard_normal(tensor.shape, np.float32).astype(tensor.numpy_dtype)
    if tensor.numpy_dtype.kind in "iu" and tensor.numpy_dtype.itemsize <= 4:
        return random.integers(-100, 101, tensor.shape).astype(tensor.numpy_dtype)
    return np.zeros(tensor.shape, tensor.numpy_dtype)


def learn(folder: Path, records: Path) -> int:
    """What was measured, as tuning records; how many tasks have a winner."""
    from nncc.target import resolve
    from nncc.tuning.lab import Result
    from nncc.tuning.measure import MARGIN, Timing
    from nncc.tuning.record import Key, Task, from_line
    from nncc.tuning.record_files import Journal
    from nncc.tuning.writer import Writer

    won = 0
    for row in read_rows(folder / MEASURED):
        facts = json.loads((folder / f"{row['task']}.json").read_text())
        if "error" in row:
            print(f"{facts['task']['text']}: {row['error']}", file=sys.stderr)
            continue
        key, task = Key.of(resolve(facts["target"])), Task(**facts["task"])
        journal = Journal(records, key)
        journal.append(from_line(facts["workload"]))
        writer = Writer(journal, key, row["machine"], "benchmarks/gpu.py")
        timings, wrong = iter(Timing(**each) for each in row["timings"]), iter(row["wrong"])
        results = []
        for reason in facts["refused"]:
            timing, said = (None, reason) if reason else (next(timings), next(wrong))
            results.append(Result(None, said) if said else Result(timing))
        writer.trials(task, facts["decisions"][1:], results[1:])
        known = [(r.timing, d) for r, d in zip(results, facts["decisions"], strict=True) if r.timing is not None]
        timing, decisions = min(known, key=lambda pair: pair[0].ratio)
        if timing.ratio < MARGIN and timing.high < 1.0:
            writer.winner(task, decisions, timing)
            won += 1
    return won
