"""Libraries with open dimensions beside those of one size: time and size, in turn, one thread each.

    python benchmarks/dynamic.py --zoo FOLDER --libraries FOLDER --compile-only
    taskset -c 1 python benchmarks/dynamic.py --zoo FOLDER --libraries FOLDER [--cases WORD ...] [--rounds 15]

The first command compiles what is not in the folder of libraries yet. A row for each size of a case goes to
`results/dynamic.jsonl`: the median milliseconds of a run of the open library and of the static one, the median of the
rounds' ratios, open / static, with its quartiles; whether the size is a bucket; and the bytes of both libraries. Their
outputs are compared before.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from bench import processor
from models import chosen
from tables import DYNAMIC, RESULTS
from turns import quartiles

import nncc

SECONDS = 0.05
"""What one library runs in one round, about."""
TOLERANCE = 1e-4
"""Of outputs, relative to the largest: both forms round alike, but not in the same order."""


@dataclass(frozen=True)
class Case:
    """A model of `models.toml` with an open dimension."""

    model: str
    shapes: Mapping[str, tuple[int | str, ...]]
    dim: str
    bounds: tuple[int, int]
    buckets: tuple[int, ...]
    sizes: tuple[int, ...]
    """That are timed."""

    def __str__(self) -> str:
        buckets = f", buckets {' '.join(map(str, self.buckets))}" if self.buckets else ""
        return f"{self.model} {self.dim}={self.bounds[0]}..{self.bounds[1]}{buckets}"

    def at(self, size: int) -> dict[str, tuple[int, ...]]:
        return {name: tuple(size if d == self.dim else int(d) for d in shape) for name, shape in self.shapes.items()}


TOKENS = {"input_ids": (1, "S"), "attention_mask": (1, "S")}
CASES = (
    Case("minilm_l6", TOKENS, "S", (16, 512), (128,), (128,)),
    Case("minilm_l6", TOKENS, "S", (16, 512), (), (16, 128, 384, 512)),
    Case("PP-OCRv6_rec_small", {"x": (1, 3, 48, "W")}, "W", (32, 640), (320,), (320, 160, 640)),
    Case("resnet18", {"input": ("N", 3, 224, 224)}, "N", (1, 4), (1,), (1, 2, 4)),
)


def compiled(path: Path, case: Case, size: int | None, libraries: Path) -> Path:
    """The library of a case for all sizes, or for one; it is compiled where it is not there."""
    word = f"at-{size}" if size is not None else f"open-{'-'.join(map(str, case.buckets)) or 'general'}"
    folder = libraries / f"{case.model}-{word}"
    if not (folder / "model.so").is_file():
        options: dict[str, Any] = {"shape": case.at(size) if size is not None else case.shapes}
        if size is None:
            options |= {"range": {case.dim: case.bounds}, "buckets": {case.dim: case.buckets} if case.buckets else {}}
        nncc.compile(path, output=folder, threads=1, name="model", verify=False, **options)
    return folder / "model.so"


def inputs_of(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random numbers; small ones where they are integers, ones where they are a mask."""
    random = np.random.default_rng(0)
    found = {}
    for tensor in module.inputs:
        shape, dtype = shapes[tensor.name], np.dtype(tensor.dtype)
        values = random.standard_normal(shape) if dtype.kind == "f" else random.integers(1, 1000, shape)
        found[tensor.name] = np.ones(shape, dtype) if "mask" in tensor.name else values.astype(dtype)
    return found


def measured(case: Case, size: int, libraries: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    """The row of one size."""
    modules = {who: nncc.load(path, threads=1) for who, path in libraries.items()}
    inputs = inputs_of(modules["static"], case.at(size))
    results = {who: module.run(inputs) for who, module in modules.items()}
    for name, expected in results["static"].items():
        error = float(np.abs(results["open"][name] - expected).max() / max(np.abs(expected).max(), 1e-30))
        if not error < TOLERANCE:
            raise SystemExit(f"{case}: `{name}` of the open library differs by {error:.3g} at {size}")
    counts = {who: max(1, int(SECONDS / min(module.benchmark(inputs, 3)))) for who, module in modules.items()}
    found: dict[str, list[float]] = {who: [] for who in modules}
    for _ in range(rounds + 1):
        for who, module in modules.items():
            found[who].append(statistics.median(module.benchmark(inputs, counts[who])))
    for module in modules.values():
        module.close()
    times = {who: seconds[1:] for who, seconds in found.items()}
    return {
        "model": str(case),
        "size": size,
        "form": "bucket" if size in case.buckets else "general",
        "processor": processor(),
        "rounds": rounds,
        "milliseconds": {who: round(1e3 * statistics.median(seconds), 4) for who, seconds in times.items()},
        "ratio": [round(q, 3) for q in quartiles([a / b for a, b in zip(times["open"], times["static"], strict=True)])],
        "bytes": {who: path.stat().st_size for who, path in libraries.items()},
        "versions": {"nncc": nncc.__version__},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--libraries", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", default=[""], metavar="WORD", help="those whose names have one of these")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile-only", action="store_true")
    words = parser.parse_args()
    for case in CASES:
        if not any(word in str(case) for word in words.cases):
            continue
        files, missing = chosen([case.model], words.zoo)
        print("".join(f"{line}\n" for line in missing), end="")
        for size in case.sizes if files else ():
            path = files[case.model]
            libraries = {
                "open": compiled(path, case, None, words.libraries),
                "static": compiled(path, case, size, words.libraries),
            }
            if words.compile_only:
                continue
            row = measured(case, size, libraries, words.rounds)
            with (RESULTS / DYNAMIC).open("a") as file:
                file.write(json.dumps(row) + "\n")
            times, (low, middle, high) = row["milliseconds"], row["ratio"]
            print(
                f"{case} at {size}, {row['form']}: {times['open']:.3f} ms, static {times['static']:.3f} ms, "
                f"ratio {middle:.3f} [{low:.3f}, {high:.3f}]; bytes {row['bytes']}",
                flush=True,
            )


if __name__ == "__main__":
    main()
