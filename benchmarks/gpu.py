"""Check and measure libraries for a GPU: made on any machine, measured on one that has the GPU, unattended.

    python benchmarks/gpu.py make --zoo FOLDER --target cuda-sm90 --out MADE [--models NAME ...] [--tune 15]
    python benchmarks/gpu.py measure MADE [--rounds 12] [--sanitize] [--tune]
    python benchmarks/gpu.py learn MADE --records FOLDER

`make` compiles each model, computes what ONNX Runtime does with made-up inputs, and puts both with the model's file
into a folder of its own. `measure` needs numpy, the folder, this checkout and the GPU's driver; no TVM. It compares
nncc's outputs, lets compute-sanitizer look on where that is installed, and then has nncc, onnxruntime-gpu, TensorRT and
torch run in turn, those that are installed (`gpu_peers.py`). A line of JSON a model is added to
``benchmarks/results/gpu.jsonl``, from which `bench.py --table` makes README's table.

With ``--tune``, `make` also builds so many candidates of each kernel, `measure` measures them first, one process for
all, and `learn` makes tuning records of what it found, with which `make --records FOLDER` compiles (`gpu_tuning.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_tuning
import numpy as np
from models import chosen, models
from turns import Failed, Running, row_text, take_turns, times_and_ratios

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(__file__).with_name("gpu_peers.py")
PATHS = os.pathsep.join([str(ROOT), str(PROGRAM.parent)])
"""Where it finds its modules, even where Python does not look into a program's own folder (PYTHONSAFEPATH)."""
TUNE = "tune"
"""The folder with the candidates of all models."""
RESULTS = Path(__file__).with_name("results") / "gpu.jsonl"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    make_ = verbs.add_parser("make", help="compile; no GPU needed")
    make_.add_argument("--zoo", type=Path, default=Path(os.environ.get("NNCC_ZOO", "zoo")), help="folder with models")
    make_.add_argument("--models", nargs="+", metavar="NAME", help="of benchmarks/models.toml; by default all")
    make_.add_argument("--target", default="cuda-sm80")
    make_.add_argument("--out", type=Path, required=True)
    make_.add_argument("--tune", type=int, default=0, metavar="N", help="candidates of each kernel to build as well")
    make_.add_argument("--records", action="append", default=[], metavar="PLACE", help="tuning records to compile with")
    measure_ = verbs.add_parser("measure", help="check and measure what `make` has made")
    measure_.add_argument("made", type=Path)
    measure_.add_argument("--models", nargs="+", metavar="NAME", help="of those that were made; by default all")
    measure_.add_argument("--rounds", type=int, default=12)
    measure_.add_argument("--sanitize", action="store_true", help="run each once under compute-sanitizer")
    measure_.add_argument("--tune", action="store_true", help="measure the candidates that `make --tune` has built")
    learn_ = verbs.add_parser("learn", help="make records of what `measure --tune` has measured; no GPU needed")
    learn_.add_argument("made", type=Path)
    learn_.add_argument("--records", type=Path, required=True, metavar="FOLDER")
    return parser


def main() -> None:
    words = parser().parse_args()
    if words.verb == "make":
        make(words)
        return
    if words.verb == "learn":
        print(f"{gpu_tuning.learn(words.made / TUNE, words.records)} kernels are faster than their defaults")
        return
    if words.tune:
        gpu_tuning.measure_candidates(words.made / TUNE)
    folders = [path.parent for path in sorted(words.made.glob("*/made.json"))]
    for folder in folders:
        if words.models and folder.name not in words.models:
            continue
        row = measure(folder, words.rounds, words.sanitize)
        if row is not None:
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row_text(row)}   {row['sanitizer']}", flush=True)


def make(words: argparse.Namespace) -> None:
    """A folder for each model: ``model.so``, ``model.onnx``, ``inputs.npz``, ``expected.npz``, ``made.json``."""
    import nncc
    from nncc.errors import NnccError
    from nncc.frontend.onnx import import_onnx
    from nncc.frontend.proto import save
    from nncc.verify import reference, sample_inputs

    files, missing = chosen(words.models, words.zoo)
    print(*missing, sep="\n", end="\n" * bool(missing), file=sys.stderr)
    for name, path in files.items():
        folder = words.out / name
        try:
            model = import_onnx(path, shape=models()[name].get("shape", {}), name=name)
            folder.mkdir(parents=True, exist_ok=True)
            save(model, folder / "model.onnx")
            options = {"target": words.target, "records": words.records}
            artifact = nncc.compile(folder / "model.onnx", output=folder, name="model", **options)
            if words.tune:
                size = artifact.description["weights_bytes"]
                found = folder / "model.onnx", words.target, size, words.out / TUNE, words.tune
                print(f"{name}: {gpu_tuning.make_candidates(*found)} kernels to tune", flush=True)
        except NnccError as error:
            print(f"{name}: nncc does not compile it: {error}", file=sys.stderr)
            continue
        inputs = sample_inputs(model)
        np.savez(folder / "inputs.npz", **inputs)
        np.savez(folder / "expected.npz", **reference(folder / "model.onnx", inputs))
        facts = {"model": name, "target": words.target, "nncc": nncc.__version__}
        facts |= {"library_bytes": artifact.library.stat().st_size, "device": artifact.description["device"]}
        (folder / "made.json").write_text(json.dumps(facts, indent=2) + "\n")
        print(f"{name}: {artifact.library}", flush=True)


def measure(folder: Path, rounds: int, sanitize: bool) -> dict[str, Any] | None:
    """The row of one model; None where nncc's library does not run or computes something else."""
    from gpu_peers import CONTESTANTS

    made = json.loads((folder / "made.json").read_text())
    running: dict[str, Running] = {}
    with contextlib.ExitStack() as stack:
        for who in CONTESTANTS:
            model = folder / ("model.so" if who == "nncc" else "model.onnx")
            try:
                entrant = Running(who, sys.executable, PROGRAM, model, folder, (), {"PYTHONPATH": PATHS})
                running[who] = stack.enter_context(entrant)
            except Failed as error:
                print(f"{folder.name}: {who} is left out: {error}", file=sys.stderr, flush=True)
        times = take_turns(running, rounds, folder.name)
    if "nncc" not in running:
        return None
    return {
        "model": folder.name,
        "gpu": gpu(),
        "target": made["target"],
        **times_and_ratios(running, times),
        "library_bytes": made["library_bytes"],
        "sanitizer": sanitized(folder) if sanitize else "",
        "versions": {"nncc": made["nncc"]} | dict(versions()),
        "rounds": rounds,
    }


def gpu() -> str:
    """Its name and the driver's version, as nvidia-smi says them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "a GPU"
    name, _, driver = said.splitlines()[0].partition(", ")
    return f"{name}, driver {driver}"


def sanitized(folder: Path) -> str:
    """What compute-sanitizer's memcheck says of one inference; empty where it is not installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return ""
    program = (
        "import sys, numpy; from nncc.runtime.loader import load; load(sys.argv[1]).run(dict(numpy.load(sys.argv[2])))"
    )
    files = [str(folder / "model.so"), str(folder / "inputs.npz")]
    done = subprocess.run(
        # The driver is asked where pointers are; what it says of those of the processor is no error of the program.
        [tool, "--tool", "memcheck", "--report-api-errors", "no", sys.executable, "-c", program, *files],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    found = re.search(r"ERROR SUMMARY: (\d+ errors?)", done.stdout + done.stderr)
    return found.group(1) if found else f"it ended with exit status {done.returncode}"


def versions() -> Iterator[tuple[str, str]]:
    import importlib.metadata

    for package in ("torch", "onnxruntime-gpu", "tensorrt"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield package, importlib.metadata.version(package)


if __name__ == "__main__":
    main()
