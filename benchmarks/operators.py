"""Single operators beside ONNX Runtime, at one size each that models have: what is slow shows here.

    python benchmarks/operators.py --compile FOLDER [--cases WORD ...] [--target native]
    taskset -c 1 python benchmarks/operators.py --run FOLDER [--cases WORD ...] [--rounds 9]

Compiling and running are apart, since the latter wants the machine for itself. Both libraries run in turn in one
process, one thread each, and are compared before. A line of JSON a case goes to ``results/operators.jsonl``: the
median milliseconds, and the quartiles of the rounds' ratios ONNX Runtime / nncc; above 1 nncc is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench import processor
from operator_cases import CASES, Case
from tables import OPERATORS, RESULTS
from turns import quartiles

import nncc

SECONDS = 0.02
"""What one contestant runs in one round, about."""
TOLERANCE = 1e-3
"""Of the largest element: sums of many products, and functions that a library approximates."""


def compiled(case: Case, folder: Path, target: str) -> None:
    """Write ``case.name/model.onnx`` and its library, one thread, into `folder`."""
    home = folder / case.name
    home.mkdir(parents=True, exist_ok=True)
    onnx.save(case.model(), home / "model.onnx")
    artifact = nncc.compile(home / "model.onnx", target, home / "out", threads=1, verify=False)
    (home / "library.txt").write_text(str(artifact.library))


def seconds_of(run: Callable[[], object], count: int) -> float:
    """The mean of `count` runs."""
    begin = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - begin) / count


def differs(case: Case, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """What is not the same; nothing where all is, or where a case has no one right answer."""
    for name, expected in theirs.items() if case.comparable else ():
        found = np.asarray(ours[name])
        if found.shape != expected.shape:
            return f"{name} has the shape {found.shape}, not {expected.shape}"
        difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
        if difference.size and not difference.max() <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            return f"{name} differs by {difference.max():.3g}"
    return ""


def measured(case: Case, folder: Path, rounds: int) -> dict[str, Any]:
    """The row of one case."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = folder / case.name / "model.onnx"
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    module = nncc.load((folder / case.name / "library.txt").read_text(), threads=1)
    inputs = case.inputs()
    names = [output.name for output in session.get_outputs()]
    difference = differs(case, module.run(inputs), dict(zip(names, session.run(None, inputs), strict=True)))
    if difference:
        raise ValueError(difference)
    runs = {"nncc": lambda: module.run(inputs), "onnxruntime": lambda: session.run(None, inputs)}
    counts = {who: max(1, round(SECONDS / seconds_of(run, 2))) for who, run in runs.items()}
    found: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(rounds + 1):
        for who, run in runs.items():
            found[who].append(seconds_of(run, counts[who]))
    times = {who: seconds[1:] for who, seconds in found.items()}
    module.close()
    ratios = quartiles([b / a for a, b in zip(times["nncc"], times["onnxruntime"], strict=True)])
    return {
        "model": case.name,
        "processor": processor(),
        "threads": 1,
        "rounds": rounds,
        "versions": {"nncc": nncc.__version__, "onnxruntime": onnxruntime.__version__},
        "milliseconds": {who: round(1e3 * statistics.median(seconds), 5) for who, seconds in times.items()},
        "ratios": {"onnxruntime": [round(q, 3) for q in ratios]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--compile", type=Path, metavar="FOLDER")
    what.add_argument("--run", type=Path, metavar="FOLDER")
    parser.add_argument("--target", default="native")
    parser.add_argument("--cases", nargs="+", default=[""], metavar="WORD", help="those whose names have one of these")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS / OPERATORS)
    words = parser.parse_args()
    for case in CASES:
        if not any(word in case.name for word in words.cases):
            continue
        try:
            if words.compile:
                compiled(case, words.compile, words.target)
                continue
            row = measured(case, words.run, words.rounds)
        except Exception as error:  # a case that fails is said, and the others go on
            print(f"{case.name} is left out: {str(error)[:300]}", file=sys.stderr, flush=True)
            continue
        with words.output.open("a") as file:
            file.write(json.dumps(row) + "\n")
        low, middle, high = row["ratios"]["onnxruntime"]
        ours, theirs = row["milliseconds"]["nncc"], row["milliseconds"]["onnxruntime"]
        print(f"{case.name:28} nncc {ours:9.4f} ms  onnxruntime {theirs:9.4f} ms  {middle:.2f} ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
