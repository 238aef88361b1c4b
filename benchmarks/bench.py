"""Measure nncc against other runtimes: same model, input and threads, in turn A B A B ... within one run.

    python benchmarks/bench.py --zoo FOLDER [--threads 1] [--models NAME ...] [--peers onnxruntime ...] [--rounds 12]
    python benchmarks/bench.py --zoo FOLDER --python iree=iree/bin/python --python ncnn=ncnn/bin/python
    python benchmarks/bench.py --zoo FOLDER --isa avx2      # code for AVX2 on a processor that has more
    python benchmarks/bench.py --zoo FOLDER --int8          # quantized models, and nncc's own float32 beside them
    python benchmarks/bench.py --table                      # writes the tables of README and docs

Each contestant is a process of its own, idle while another one runs; `peers.py` says which there are and how to install
them. One that is not installed, cannot load a model or computes something else is left out, with a line on standard
error. A line of JSON a model is added to ``benchmarks/results/<processor>-<threads>.jsonl``: medians, and for each peer
the median of the rounds' ratios (peer's time / nncc's) with its quartiles; a ratio above 1 means that nncc is faster.
With ``--isa`` the file is ``<processor>-<threads>-<isa>.jsonl``, nncc compiles for the target of that instruction set,
and the row names the peers that have no switch for it and so run with all that the processor has. With ``--int8`` all
contestants get one QDQ model (`qdq.py`), and ``nncc-float`` is nncc with the model as it was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from compile_cost import NotCompiled, compile_model
from models import chosen, models
from peers import CONTESTANTS
from qdq import SAMPLES, quantize
from tables import PAGES, RESULTS, with_tables
from turns import Failed, Running, row_text, take_turns, times_and_ratios
from tvm.target import codegen

PEERS = [name for name in CONTESTANTS if not name.startswith("nncc")]
QUANTIZED = ("onnxruntime", "openvino")
"""The peers that take a QDQ model as it is."""
PROGRAM = Path(__file__).with_name("peers.py")
"""What each contestant runs."""
ISAS = {"avx2": "x86-64-v3"}
"""The targets of the instruction sets that a run can be limited to."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=Path(os.environ.get("NNCC_ZOO", "zoo")), help="folder with models")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="of benchmarks/models.toml; by default all")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, metavar="PEER", help=", ".join(PEERS))
    parser.add_argument(
        "--python",
        type=_named_python,
        action="append",
        default=[],
        metavar="PEER=PATH",
        help="the Python that has this peer's package, where it is not this one; repeatable",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--target", help="nncc's; by default native, or that of --isa")
    parser.add_argument("--isa", choices=ISAS, default="", help="the most that the contestants may use")
    parser.add_argument("--int8", action="store_true", help="measure quantized models")
    parser.add_argument("--table", action="store_true", help="write the tables of README and docs, measure nothing")
    return parser


def _named_python(word: str) -> tuple[str, str]:
    name, equals, path = word.partition("=")
    if name not in PEERS or not equals:
        raise argparse.ArgumentTypeError(f"`{word}` is not PEER=PATH with one of {', '.join(PEERS)}")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"there is no {path}: create the virtual environment that peers.py describes")
    return name, str(Path(path).absolute())  # not resolved: a virtual environment's is a link


def main() -> None:
    words = parser().parse_args()
    if words.table:
        for page in (Path(__file__).resolve().parents[1] / name for name in PAGES):
            page.write_text(with_tables(page.read_text()))
        return
    try:
        files, missing = chosen(words.models, words.zoo)
    except ValueError as error:
        parser().error(str(error))
    peers = [who for who in words.peers if who in QUANTIZED or not words.int8]
    pythons = dict.fromkeys(peers, sys.executable) | dict(words.python)
    versions = {who: version(pythons[who], CONTESTANTS[who].package) for who in peers}
    missing += [f"{who} is not installed for {pythons[who]}: left out" for who in versions if not versions[who]]
    print(*missing, sep="\n", end="\n" * bool(missing), file=sys.stderr)
    installed = {who: pythons[who] for who in versions if versions[who]}
    for name, path in files.items():
        row = measure(name, path, words, installed)
        if row is None:
            continue
        row["versions"] |= {who: versions[who] for who in row["ratios"] if who in versions}
        with (RESULTS / file_name(row)).open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row_text(row), flush=True)


def version(python: str, package: str) -> str:
    """The version of `package` that `python` has, empty if it has none."""
    program = f"import importlib.metadata, numpy; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", program], capture_output=True, text=True).stdout.strip()


def measure(name: str, path: Path, words: argparse.Namespace, peers: Mapping[str, str]) -> dict[str, Any] | None:
    """Compile, start all contestants, let them run in turn; None where there is nothing to tell of nncc."""
    import nncc
    from nncc.frontend.onnx import import_onnx
    from nncc.frontend.proto import save
    from nncc.verify import reference, sample_inputs

    shape = models()[name].get("shape", {})
    target = words.target or ISAS.get(words.isa, "native")
    with tempfile.TemporaryDirectory(prefix="nncc-bench-") as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        model = import_onnx(path, shape=shape, name=name)
        inputs = sample_inputs(model)
        fixed = work / "fixed.onnx"
        save(model, fixed)
        files = dict.fromkeys(peers, fixed)
        try:
            if words.int8:
                files["nncc-float"], _ = compile_model(fixed, target, work / "float", {}, words.threads)
                quantize(fixed, [sample_inputs(model, seed) for seed in range(SAMPLES)], work / "quantized.onnx")
                fixed = work / "quantized.onnx"
                files |= dict.fromkeys(peers, fixed)
            files["nncc"], cost = compile_model(fixed, target, work / "out", {}, words.threads)
        except NotCompiled as error:
            print(f"{name}: nncc does not compile it: {error}", file=sys.stderr)
            return None
        np.savez(work / "inputs.npz", **inputs)
        np.savez(work / "expected.npz", **reference(fixed, inputs))
        precision = "int8" if words.int8 else "float32"
        running: dict[str, Running] = {}
        for who in ("nncc", *(["nncc-float"] if words.int8 else []), *peers):
            python = peers.get(who, sys.executable)
            try:
                limits = CONTESTANTS[who].limits.get(words.isa, {})
                entrant = Running(
                    who, python, PROGRAM, files[who], work, (str(words.threads), words.isa, precision), limits
                )
                running[who] = stack.enter_context(entrant)
            except Failed as error:
                print(f"{name}: {who} is left out: {error}", file=sys.stderr)
        rounds = take_turns(running, words.rounds, name)
    if "nncc" not in running:
        return None
    return {
        "model": name,
        "threads": words.threads,
        "processor": processor(),
        "isa": words.isa,
        "precision": precision,
        "unlimited": [who for who in running if words.isa and words.isa not in CONTESTANTS[who].limits],
        "target": target,
        **times_and_ratios(running, rounds),
        "compile": cost,
        "versions": {"nncc": nncc.__version__},
        "rounds": words.rounds,
    }


def processor() -> str:
    """This machine's processor: its name, LLVM's word for it, which tells those of one name apart, and its vectors."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    flags = re.search(r"flags\s*:\s*(.+)", text)
    words = set(flags.group(1).split()) if flags else set()
    vectors = "AVX-512" if "avx512f" in words else "AVX2" if "avx2" in words else ""
    kind = codegen.llvm_get_system_cpu()
    return " ".join(filter(None, [found.group(1).strip() if found else platform.machine(), kind, vectors]))


def file_name(row: Mapping[str, Any]) -> str:
    words = [re.sub(r"[^A-Za-z0-9]+", "-", row["processor"]).strip("-"), str(row["threads"]), row["isa"]]
    words += ["int8"] if row.get("precision") == "int8" else []
    return "-".join(filter(None, words)) + ".jsonl"


if __name__ == "__main__":
    main()
