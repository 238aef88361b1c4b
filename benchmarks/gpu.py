"""Check and measure libraries for a GPU: made on any machine, measured on one that has the GPU, unattended.

    python benchmarks/gpu.py make --zoo FOLDER --target cuda-sm90 --out MADE [--models NAME ...] [--tune 15]
    python benchmarks/gpu.py measure MADE [--seconds 540] [--rounds 12] [--sanitize] [--tune] [--results FILE] [--plan]
    python benchmarks/gpu.py learn MADE --records FOLDER

`make` compiles each model in float32, in float16 and, as ONNX Runtime's own tool quantizes it, in int8; computes what
ONNX Runtime does with made-up inputs, and puts both with the model's file into a folder of its own. `measure` needs
numpy, the folder, this checkout and the GPU's driver; no TVM. It compares nncc's outputs, and has nncc,
onnxruntime-gpu, TensorRT and torch run in turn, those that are installed (`gpu_peers.py`). A line of JSON a library is
added to the file of results, by default ``benchmarks/results/gpu.jsonl``, from which `bench.py --table` makes README's
table. Then compute-sanitizer looks on, where that is asked for and installed.

Where the GPU is lent for minutes, ``--plan`` says what would be done, by importance, and for about how long;
``--seconds`` is the time that there is. A run that was killed goes on where it stopped, with the same command. What a
library fails with is a line too, and the next one's turn; remove the line to try again. Where the way to that machine
is narrow, ``make --light 8`` gives libraries of more than so many MiB of weights made-up ones, which compress: they are
timed, and not compared.

With ``--tune``, `make` also builds so many candidates of each kernel, `measure` measures them in what time is left, one
process for all, and `learn` makes tuning records of what it found, with which `make --records FOLDER` compiles
(`gpu_tuning.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gpu_tuning
import numpy as np
from gpu_steps import Results, Step, plan_text, run_steps
from turns import Failed, Running, row_text, take_turns, times_and_ratios

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("gpu_peers.py")
PATHS = os.pathsep.join([str(ROOT), str(PROGRAM.parent)])
"""Where it finds its modules, even where Python does not look into a program's own folder (PYTHONSAFEPATH)."""
TUNE = "tune"
"""The folder with the candidates of all models."""
RESULTS = Path(__file__).with_name("results") / "gpu.jsonl"
PRECISIONS = ("float32", "float16", "int8")

TURN_SECONDS = 0.1
"""What one contestant runs in one round: hundreds of inferences."""
PATIENCE = 120.0
"""Seconds after which a contestant that does not answer is left out; TensorRT may take a minute to become ready."""
READY = {"torch": 10.0, "onnxruntime": 8.0, "tensorrt": 60.0}
"""About how many seconds a contestant takes until it has loaded and warmed up, by the first word of its name."""
NNCC_READY = 3.0
CANDIDATES_SECONDS = 2.5
"""About, of the candidates of one kernel."""
SANITIZER_SECONDS = 20.0
"""About, of one inference."""
SANITIZER_PATIENCE = 120.0
PAGE = 4096
"""Bytes that made-up weights are made of."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make_ = verbs.add_parser("make", help="compile; no GPU needed")
    make_.add_argument("--zoo", type=Path, default=Path(os.environ.get("NNCC_ZOO", "zoo")), help="folder with models")
    make_.add_argument("--models", nargs="+", metavar="NAME", help="of benchmarks/models.toml; by default all")
    make_.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="by default all")
    make_.add_argument("--target", default="cuda-sm80")
    make_.add_argument("--out", type=Path, required=True)
    make_.add_argument("--tune", type=int, default=0, metavar="N", help="candidates of each kernel to build as well")
    make_.add_argument("--records", action="append", default=[], metavar="PLACE", help="tuning records to compile with")
    make_.add_argument(
        "--light", type=float, metavar="MIB", help="made-up weights in libraries that have more than that"
    )
    measure_ = verbs.add_parser("measure", help="check and measure what `make` has made")
    measure_.add_argument("made", type=Path)
    measure_.add_argument("--models", nargs="+", metavar="NAME", help="of those that were made; by default all")
    measure_.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="by default all")
    measure_.add_argument("--rounds", type=int, default=12)
    measure_.add_argument("--seconds", type=float, help="begin nothing that would not end in this time")
    measure_.add_argument("--plan", action="store_true", help="only say what would be done")
    measure_.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help="to which rows are added")
    measure_.add_argument("--sanitize", action="store_true", help="run each once under compute-sanitizer")
    measure_.add_argument("--tune", action="store_true", help="measure the candidates that `make --tune` has built")
    learn_ = verbs.add_parser("learn", help="make records of what `measure --tune` has measured; no GPU needed")
    learn_.add_argument("made", type=Path)
    learn_.add_argument("--records", type=Path, required=True, metavar="FOLDER")
    return parser


def main() -> None:
    words = parser().parse_args()
    # What ends this process ends those that it started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("gpu.py: terminated"))
    if words.verb == "make":
        make(words)
    elif words.verb == "learn":
        print(f"{gpu_tuning.learn(words.made / TUNE, words.records)} kernels are faster than their defaults")
    else:
        steps = steps_of(words)
        print(plan_text(steps, words.seconds), flush=True)
        if not words.plan:
            for step in run_steps(steps, words.seconds):
                print(f"left out for lack of time: {step.kind} {step.name}", flush=True)


def make(words: argparse.Namespace) -> None:
    """A folder for each library: ``model.so``, ``model.onnx``, ``inputs.npz``, ``expected.npz``, ``made.json``."""
    from models import chosen

    from nncc.errors import NnccError

    files, missing = chosen(words.models, words.zoo)
    print(*missing, sep="\n", end="\n" * bool(missing), file=sys.stderr)
    for name, path in files.items():
        for precision in words.precisions:
            try:
                make_one(name, path, precision, words)
            except NnccError as error:
                print(f"{name}, {precision}: nncc does not compile it: {error}", file=sys.stderr, flush=True)


def make_one(name: str, path: Path, precision: str, words: argparse.Namespace) -> None:
    """The folder of one library. Raises NnccError."""
    from models import models
    from qdq import SAMPLES, quantize

    import nncc
    from nncc.frontend.onnx import import_onnx
    from nncc.frontend.proto import save
    from nncc.pipeline import Instrument
    from nncc.verify import reference, sample_inputs

    class Weights(Instrument):
        bytes = b""

        def after(self, stage: Any, job: Any, given: Any, value: Any, seconds: float) -> None:
            self.bytes = value.weights.tobytes() if stage.name == "flatten" and words.light is not None else self.bytes

    folder = words.out / f"{name}-{precision}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "made.json").unlink(missing_ok=True)
    model = import_onnx(path, shape=models()[name].get("shape", {}), name=name)
    inputs = sample_inputs(model)
    file = folder / "model.onnx"
    save(model, file)
    if precision == "int8":
        file.rename(folder / "float.onnx")
        quantize(folder / "float.onnx", [sample_inputs(model, seed) for seed in range(SAMPLES)], file)
        for left in (folder / "float.onnx", folder / "model.raised.onnx", folder / "model.prepared.onnx"):
            left.unlink()
    of_products = "float32" if precision == "int8" else precision
    options = {"target": words.target, "records": words.records, "precision": of_products, "verify": False}
    weights = Weights()
    artifact = nncc.compile(file, output=folder, name="model", instruments=[weights], **options)
    size = artifact.description["weights_bytes"]
    if words.tune:
        found = file, words.target, size, words.out / TUNE, words.tune, of_products
        print(f"{name}, {precision}: {gpu_tuning.make_candidates(*found)} kernels to tune", flush=True)
    np.savez(folder / "inputs.npz", **inputs)
    (folder / "expected.npz").unlink(missing_ok=True)
    if words.light is not None and size > words.light * 2**20:
        make_up_weights(artifact.library, weights.bytes)
        file.unlink()
    else:
        np.savez(folder / "expected.npz", **reference(file, inputs))
    facts = {"model": name, "precision": precision, "number": list(models()).index(name), "target": words.target}
    facts |= {"nncc": nncc.__version__, "build": artifact.description["build"], "torch": models()[name].get("torch")}
    facts |= {"library_bytes": artifact.library.stat().st_size, "device": artifact.description["device"]}
    (folder / "made.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{name}, {precision}: {artifact.library}", flush=True)


def make_up_weights(library: Path, weights: bytes) -> None:
    """Replace the weights in a library by 4 KiB of them, again and again."""
    data = library.read_bytes()
    at = data.index(weights)
    middle = len(weights) // 2 // PAGE * PAGE
    piece = weights[middle : middle + PAGE]
    made_up = (piece * (len(weights) // len(piece) + 1))[: len(weights)]
    library.write_bytes(data[:at] + made_up + data[at + len(weights) :])


def steps_of(words: argparse.Namespace) -> list[Step]:
    """What there is to do, the most important first: times, by the order of models; sanitizer; candidates."""
    found = [(json.loads(path.read_text()), path.parent) for path in words.made.glob("*/made.json")]
    found = [each for each in found if each[0]["precision"] in words.precisions]
    found = [each for each in found if not words.models or each[0]["model"] in words.models]
    found.sort(key=lambda each: (each[0]["number"], PRECISIONS.index(each[0]["precision"])))
    results = Results(words.results, gpu(required=not words.plan))
    return [
        *_times(found, results, words.rounds),
        *(_sanitizers(found, results) if words.sanitize and shutil.which("compute-sanitizer") else ()),
        *(_candidates(words.made / TUNE) if words.tune else ()),
    ]


def _times(found: list[tuple[dict[str, Any], Path]], results: Results, rounds: int) -> Iterator[Step]:
    for made, folder in found:
        if results.known(made) is not None:
            continue
        who = contestants(made, folder)
        ready = max(NNCC_READY, *(READY.get(name.split("-")[0], 0.0) for name in who))
        seconds = ready + (rounds + 1) * TURN_SECONDS * len(who)

        def run(_: float | None, made: dict[str, Any] = made, folder: Path = folder, who: list[str] = who) -> None:
            row = measure(folder, made, who, rounds, results.gpu)
            results.add(row)
            said = f"{folder.name}: {row['error']}" if "error" in row else row_text({**row, "model": folder.name})
            print(said, flush=True)

        yield Step("times", folder.name, seconds, run)


def _sanitizers(found: list[tuple[dict[str, Any], Path]], results: Results) -> Iterator[Step]:
    for made, folder in found:
        row = results.known(made)
        if row is not None and ("error" in row or row["sanitizer"]):
            continue

        def run(_: float | None, made: dict[str, Any] = made, folder: Path = folder) -> None:
            row = results.known(made)
            if row is not None and "error" not in row:
                row = {**row, "sanitizer": sanitized(folder)}
                results.add(row)
                print(f"{folder.name}: compute-sanitizer: {row['sanitizer']}", flush=True)

        yield Step("sanitizer", folder.name, SANITIZER_SECONDS, run)


def _candidates(folder: Path) -> Iterator[Step]:
    count = len(gpu_tuning.waiting(folder))
    if count:
        name = f"of {count} kernels"
        yield Step(
            "candidates",
            name,
            count * CANDIDATES_SECONDS,
            lambda left: gpu_tuning.measure_candidates(folder, left),
            elastic=True,
        )


def contestants(made: dict[str, Any], folder: Path) -> list[str]:
    """Who is installed, and has a model to run."""
    from gpu_peers import CONTESTANTS

    def has_model(package: str) -> bool:
        if package == "torch":
            return made["torch"] is not None
        return package == "numpy" or (folder / "model.onnx").exists()

    found = []
    for who in CONTESTANTS[made["precision"]]:
        package = {"nncc": "numpy", "torch": "torch"}.get(who.split("-")[0], "onnxruntime-gpu")
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(package)
            found += [who] if has_model(package) else []
    return found


def measure(folder: Path, made: dict[str, Any], who: list[str], rounds: int, gpu: str) -> dict[str, Any]:
    """The row of one library; with ``error`` where it does not run or computes something else."""
    about = {key: made[key] for key in ("model", "precision", "target", "build", "library_bytes")} | {"gpu": gpu}
    running: dict[str, Running] = {}
    failed = ""

    def start(name: str) -> Running | Failed:
        model = folder / ("model.so" if name == "nncc" else "model.onnx")
        try:
            return Running(name, sys.executable, PROGRAM, model, folder, (), {"PYTHONPATH": PATHS}, PATIENCE)
        except Failed as error:
            return error

    with contextlib.ExitStack() as stack, ThreadPoolExecutor(len(who)) as starting:
        for name, started in zip(who, starting.map(start, who), strict=True):
            if isinstance(started, Running):
                running[name] = stack.enter_context(started)
                continue
            failed = str(started) if name == "nncc" else failed
            print(f"{folder.name}: {name} is left out: {started}", file=sys.stderr, flush=True)
        if not failed:
            times = take_turns(running, rounds, folder.name, TURN_SECONDS)
            failed = "" if "nncc" in running else "it failed while it was timed"
    if failed:
        return about | {"error": failed}
    compared = (folder / "expected.npz").exists()
    versions_ = {"nncc": made["nncc"]} | dict(versions())
    rows = {"compared": compared, "sanitizer": "", "versions": versions_, "rounds": rounds}
    return about | times_and_ratios(running, times) | rows


def gpu(required: bool = True) -> str:
    """Its name and the driver's version, as nvidia-smi says them; where that is missing, its name alone; where there is
    none, and none is `required`, nothing."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        from nncc.host import gpu as by_driver

        found = by_driver()
        if not isinstance(found, str):
            return found.name
        if required:
            raise SystemExit(f"gpu.py: {found}") from None
        return ""
    name, _, driver = said.splitlines()[0].partition(", ")
    return f"{name}, driver {driver}"


def sanitized(folder: Path) -> str:
    """What compute-sanitizer's memcheck says of one inference."""
    program = (
        "import sys, numpy; from nncc.runtime.loader import load; load(sys.argv[1]).run(dict(numpy.load(sys.argv[2])))"
    )
    files = [str(folder / "model.so"), str(folder / "inputs.npz")]
    # The driver is asked where pointers are; what it says of those of the processor is no error of the program.
    tool = ["compute-sanitizer", "--tool", "memcheck", "--report-api-errors", "no"]
    try:
        done = subprocess.run(
            [*tool, sys.executable, "-c", program, *files],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=SANITIZER_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {SANITIZER_PATIENCE:.0f} s"
    found = re.search(r"ERROR SUMMARY: (\d+ errors?)", done.stdout + done.stderr)
    return found.group(1) if found else f"it ended with exit status {done.returncode}"


def versions() -> Iterator[tuple[str, str]]:
    for package in ("torch", "onnxruntime-gpu", "tensorrt"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield package, importlib.metadata.version(package)


if __name__ == "__main__":
    main()
