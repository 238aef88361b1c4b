"""Compiles models that lie, in other processes, and tells what happened: `python tests/fuzz/fuzzing.py --help`.

A compilation may succeed or be refused by an error of nncc that is no InternalError. All else is a finding: a crash, a
hang, another exception, memory beyond the limit, a file outside of the output folder, a library that crashes or writes
where it must not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import queue
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import onnx
import psutil
from mutations import mutated

__all__ = ["Finding", "Report", "Worker", "attempt", "fuzz", "seeds"]

MOST_CPU_SECONDS = 60.0
"""That one compilation and run may take: a busy machine makes nothing hang."""
MOST_SECONDS = 600.0
"""Of real time: who sleeps for ever takes no other."""
MOST_BYTES = 6 << 30
"""Address space beyond what the process has when it begins."""


@dataclass(frozen=True)
class Finding:
    """A model that did what it must not."""

    kind: str
    """crash | hang | exception | internal | outside"""
    text: str
    model: bytes


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    verdicts: Counter[str]
    findings: tuple[Finding, ...]


def seeds(folder: Path | None = None) -> list[onnx.ModelProto]:
    """Models of ONNX's conformance suite, those of a few kilobytes; or those of a folder, of a few megabytes."""
    if folder is not None:
        models = [onnx.load(path) for path in sorted(folder.glob("*.onnx")) if path.stat().st_size < 4_000_000]
        for dim in (d for model in models for value in model.graph.input for d in value.type.tensor_type.shape.dim):
            dim.dim_value = dim.dim_value or 1  # what is open would be refused before anything is looked at
        return models
    from onnx.backend.test.case.node import collect_testcases

    found = [case.model for case in collect_testcases(None) if case.model is not None]
    return [model for model in found if model.graph.node and model.ByteSize() < 20_000]


def attempt(data: bytes, run: bool = True) -> tuple[str, str]:
    """Compile a file, and `run` what comes of it, in this process: a verdict and a word on it.

    compiled | ran | refused | internal | exception | outside
    """
    import nncc
    from nncc.errors import InternalError, NnccError, RunError
    from nncc.execute import open_library
    from nncc.frontend.samples import fill

    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        root = Path(scratch)
        (root / "in").mkdir()
        path = root / "in" / "model.onnx"
        path.write_bytes(data)
        os.chdir(root / "in")
        try:
            artifact = nncc.compile(path, output=root / "out", threads=1, verify=False)
            verdict, text = "compiled", ""
        except InternalError as error:
            return "internal", str(error)
        except NnccError as error:
            return "refused", str(error)
        except Exception:
            return "exception", traceback.format_exc()[-1500:]
        finally:
            os.chdir("/")
            written = sorted(str(each.relative_to(root)) for each in root.rglob("*") if each.is_file())
        if extra := [name for name in written if name != "in/model.onnx" and not name.startswith("out/")]:
            return "outside", ", ".join(extra)
        if not run:
            return verdict, text
        library = open_library(artifact.library, 1)
        if sum(spec.nbytes for spec in (*library.inputs, *library.outputs)) > 1 << 28:
            return verdict, "too large to run"
        try:
            library.run(fill(library.inputs, "random", 0))
            verdict = "ran"
        except RunError as error:
            if "SIG" in str(error):
                return "crash", f"the library: {error}"
            return verdict, str(error)
        return verdict, text


def _serve(tasks: Any, results: Any) -> None:
    """A worker: it takes files, each with whether to run it, until it gets None; its address space is limited."""
    import nncc.pipeline  # noqa: F401
    from nncc.compat import tvm  # noqa: F401

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, used + MOST_BYTES))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    results.put(("ready", ""))
    while (task := tasks.get()) is not None:
        try:
            results.put(attempt(*task))
        except MemoryError:
            results.put(("exception", "MemoryError"))
        except BaseException:
            results.put(("exception", traceback.format_exc()[-1500:]))


def _cpu_seconds(pid: int | None) -> float:
    """That a process and those it began have used."""
    used = 0.0
    try:
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                used += sum(each.cpu_times()[:4])  # user, system, and those of children that have ended
    except psutil.Error:
        return 0.0
    return used


class Worker:
    """A process that attempts one file after the other, and is replaced when it dies or hangs."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.tasks, self.results = context.SimpleQueue(), context.Queue()
        self.process = context.Process(target=_serve, args=(self.tasks, self.results), daemon=True)
        self.process.start()
        self._answer()

    def attempt(self, data: bytes, run: bool = True) -> tuple[str, str]:
        """Of a file: a verdict, as `attempt` gives it, or crash or hang, and a word on it."""
        self.tasks.put((data, run))
        return self._answer()

    def _answer(self) -> tuple[str, str]:
        end, before = time.monotonic() + MOST_SECONDS, _cpu_seconds(self.process.pid)
        while time.monotonic() < end and _cpu_seconds(self.process.pid) - before < MOST_CPU_SECONDS:
            try:
                return self.results.get(timeout=0.2)
            except queue.Empty:
                if not self.process.is_alive():
                    return "crash", f"the compiler ended with {self.process.exitcode}"
        return "hang", f"did not end within {MOST_CPU_SECONDS:g} s of work"

    def close(self) -> None:
        self.process.kill()
        self.process.join()


def fuzz(seconds: float, seed: int, pool: list[onnx.ModelProto]) -> Report:
    """Attempt mutated models for a time; the same models for the same seed, as many as there is time for."""
    rng = random.Random(seed)
    verdicts: Counter[str] = Counter()
    findings: list[Finding] = []
    worker = Worker()
    end = time.monotonic() + seconds
    try:
        for data in _models(rng, pool):
            if time.monotonic() > end:
                break
            verdict, text = worker.attempt(data)
            verdicts[verdict] += 1
            if verdict not in ("compiled", "ran", "refused"):
                findings.append(Finding(verdict, text, data))
            if verdict in ("crash", "hang"):
                worker.close()
                worker = Worker()
    finally:
        worker.close()
    return Report(verdicts, tuple(findings))


def _models(rng: random.Random, pool: list[onnx.ModelProto]) -> Iterator[bytes]:
    while True:
        yield mutated(rng.choice(pool), rng, pool)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="models to mutate, in place of ONNX's own cases")
    parser.add_argument("--output", type=Path, default=Path("fuzz-findings"), help="where findings are written")
    options = parser.parse_args()
    pool = seeds(options.models)
    if not pool:
        parser.error(f"there is no .onnx file of less than 4 MB in {options.models}")
    report = fuzz(60 * options.minutes, options.seed, pool)
    options.output.mkdir(parents=True, exist_ok=True)
    for finding in report.findings:
        stem = options.output / f"{finding.kind}-{hashlib.sha256(finding.model).hexdigest()[:12]}"
        stem.with_suffix(".onnx").write_bytes(finding.model)
        stem.with_suffix(".txt").write_text(finding.text)
    print(json.dumps(dict(report.verdicts)), f"{len(report.findings)} findings in {options.output}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(_main())
