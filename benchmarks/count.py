"""Count the instructions of one inference of a library for Arm, under qemu with a plugin: counts, not times.

    python benchmarks/count.py --plugin libcount.so --zoo FOLDER [--models NAME ...] [--cpu cortex-a72] [--target rpi4]
    python benchmarks/count.py --plugin libcount.so,cache=on --zoo FOLDER        # with options of the plugin's own

The plugin is none of this project: any that prints, when the program ends, a line of names and numbers such as

    instructions 222281880 fmla 112019424 dot 0 load_store 61612512 accesses 0 l1_misses 0 l2_misses 0

``fmla`` are those of vectors, ``dot`` integer dot products; ``accesses`` to a model of the caches is 0 where it has
none. A library is run once and twice: the difference is one inference, without loading. A line of JSON a model is
added to ``benchmarks/results/arm64-counts.jsonl``, and `bench.py --table` makes README's table of it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from compile_cost import NotCompiled, compile_model
from models import chosen, models
from tables import COUNTS, RESULTS

import nncc
from nncc.emulation import emulator, write_runner
from nncc.errors import NnccError
from nncc.target import resolve

COUNTERS = ("instructions", "fmla", "dot", "load_store", "accesses", "l1_misses", "l2_misses")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", required=True, type=_plugin, metavar="FILE[,OPTION=VALUE]", help="for qemu")
    parser.add_argument("--zoo", type=Path, default=Path(os.environ.get("NNCC_ZOO", "zoo")), help="folder with models")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="of benchmarks/models.toml; by default all")
    parser.add_argument("--target", default="rpi4", help="nncc's")
    parser.add_argument("--cpu", default="cortex-a72", help="qemu's, the one of the target")
    return parser


def _plugin(word: str) -> str:
    file, comma, options = word.partition(",")
    if not Path(file).is_file():
        raise argparse.ArgumentTypeError(f"there is no {file}: compile a counting plugin for qemu first")
    return f"{Path(file).resolve()}{comma}{options}"


def main() -> None:
    words = parser().parse_args()
    try:
        files, missing = chosen(words.models, words.zoo)
    except ValueError as error:
        parser().error(str(error))
    print(*missing, sep="\n", end="\n" * bool(missing), file=sys.stderr)
    for name, path in files.items():
        try:
            row = {"model": name, "target": words.target, "cpu": words.cpu} | count(path, models()[name], words)
        except (NotCompiled, NotCounted, NnccError) as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        with (RESULTS / COUNTS).open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, row["counts"], flush=True)


def count(path: Path, entry: dict, words: argparse.Namespace) -> dict:
    """What one inference of the model executes, and of which nncc."""
    emulating = emulator(resolve(words.target))
    if not emulating:
        raise NotCounted(f"this machine runs code for {words.target} without qemu: count on a machine of another kind")
    qemu, *rest = emulating
    command = [qemu, "-cpu", words.cpu, "-plugin", words.plugin, "-d", "plugin", *rest]
    with tempfile.TemporaryDirectory(prefix="nncc-count-") as folder:
        library, _ = compile_model(path, words.target, Path(folder) / "out", entry.get("shape", {}), threads=1)
        program = [*command, str(write_runner(library, Path(folder))), str(library), "--warmup", "0", "--repeat"]
        once, twice = (run([*program, repeat]) for repeat in ("1", "2"))
    return {"counts": {name: twice[name] - once[name] for name in COUNTERS}, "versions": {"nncc": nncc.__version__}}


class NotCounted(Exception):
    """qemu failed, or its plugin said nothing."""


def run(command: list[str]) -> dict[str, int]:
    done = subprocess.run(command, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode:
        raise NotCounted(f"{command[0]} ended with exit status {done.returncode}: {said.strip()[-300:]}")
    return counters(said)


def counters(said: str) -> dict[str, int]:
    """What the plugin printed, found in all that a run printed."""
    lines = re.findall(r"^instructions \d+(?: \w+ \d+)*$", said, re.MULTILINE)
    if not lines:
        raise NotCounted("the plugin printed no line `instructions N fmla N ...`; count.py says what it should print")
    words = lines[-1].split()
    found = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    absent = [name for name in COUNTERS if name not in found]
    if absent:
        raise NotCounted(f"the plugin's line has no {', '.join(absent)}; count.py says what it should print")
    return found


if __name__ == "__main__":
    main()
