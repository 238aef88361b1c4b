"""What quantizing costs in accuracy: a labelled set's score of the float model, of its quantized file, and compiled.

    python benchmarks/accuracy.py --sets FILE.py [--only kws ic ...]

FILE.py knows the sets. It has `SETS`, a dict from a set's name to something with the attribute `model`, a path that is
absolute or relative to its `ZOO`; `calibration(name)`, a list of samples, each a dict of arrays with batch 1, empty
where a set has none, which then are made-up images; and `score(name, predict)`, a dict whose first number is the score:
it calls predict with a dict of arrays, and gets a list of arrays. Calibration and test samples must not overlap.

Models are quantized by `nncc.quantize` with nothing but the samples. ONNX Runtime scores the files; the library, for
this machine, is scored too where all samples have one shape. A line of JSON a set is added to
``benchmarks/results/accuracy.jsonl``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tables import ACCURACY, RESULTS

IMAGES = 32
"""How many made-up images stand for calibration samples."""

Arrays = Mapping[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True, help="Python file that knows the labelled sets")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of its sets; by default all")
    words = parser.parse_args()
    sets = loaded(words.sets)
    for name in words.only or list(sets.SETS):
        row = measure(name, sets)
        with (RESULTS / ACCURACY).open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def measure(name: str, sets: ModuleType) -> dict[str, Any]:
    import nncc
    from nncc.frontend.read_graph import read_graph
    from nncc.quant.samples import input_specs

    path = Path(getattr(sets, "ZOO", ".")) / sets.SETS[name].model
    (spec,) = input_specs(read_graph(path))
    samples = sets.calibration(name) or images(spec.name)
    with tempfile.TemporaryDirectory(prefix="nncc-accuracy-") as folder:
        file = Path(folder) / "model.int8.onnx"
        start = time.perf_counter()
        done = nncc.quantize(path, samples, file)
        seconds = time.perf_counter() - start
        shapes: set[tuple[int, ...]] = set()
        scores = {
            "float32": sets.score(name, runtime(path, shapes)),
            "int8": sets.score(name, runtime(file, shapes)),
        }
        if len(shapes) == 1:
            library = nncc.compile(file, output=Path(folder) / "out", shape={spec.name: shapes.pop()}, threads=1)
            module = nncc.load(library.library, threads=1)
            scores["compiled"] = sets.score(name, lambda feed: list(module.run(feed).values()))
    first = {kind: dict(score) for kind, score in scores.items()}
    metric = next(iter(first["float32"]))
    macs = sum(layer.macs for layer in done.outcome.layers)
    integer = sum(layer.macs for layer in done.outcome.layers if done.outcome.recipe.precision_of(layer.name) == "int8")
    return {
        "model": path.name.removesuffix(".onnx"),
        "set": name,
        "metric": metric,
        "samples": first["float32"].get("n"),
        "calibration": len(samples) if sets.calibration(name) else f"{len(samples)} made-up images",
        "scores": {kind: float(score[metric]) for kind, score in first.items()},
        "int8_macs": integer / macs if macs else 0.0,
        "bytes": [done.float_bytes, done.int8_bytes],
        "seconds": round(seconds, 1),
        "versions": {"nncc": nncc.__version__},
    }


def runtime(path: Path, shapes: set[tuple[int, ...]]) -> Callable[[Arrays], list[np.ndarray]]:
    """ONNX Runtime on one thread; the shapes of what it is given are added to `shapes`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def predict(feed: Arrays) -> list[np.ndarray]:
        shapes.update(tuple(array.shape) for array in feed.values())
        return session.run(None, dict(feed))

    return predict


def images(name: str, size: int = 224, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Made-up images [1, 3, size, size] in [-1, 1] that look like photographs to a network: noise whose power falls
    with frequency as theirs does (Field 1987), correlated colours, and flat rectangles for edges."""
    random = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency[:, None], frequency[None])
    radius[0, 0] = 1 / size
    found = []
    for _ in range(IMAGES):
        shared = random.normal(size=(size, size))
        channels = []
        for _ in range(3):
            noise = np.fft.fft2(0.85 * shared + 0.5 * random.normal(size=(size, size)))
            channel = np.fft.ifft2(noise / radius ** random.uniform(0.8, 1.4)).real
            channels.append(channel / channel.std())
        image = (
            np.stack(channels) * random.uniform(0.3, 0.8) + random.normal(0, 0.25, (3, 1, 1)) + random.normal() * 0.3
        )
        for _ in range(random.integers(2, 9)):
            height, width = random.integers(10, 150, 2)
            top, left = random.integers(0, size - height), random.integers(0, size - width)
            opacity = random.uniform(0.3, 1)
            part = image[:, top : top + height, left : left + width]
            part[:] = (1 - opacity) * part + opacity * random.uniform(-1, 1, (3, 1, 1))
        found.append({name: np.clip(image, -1, 1).astype(np.float32)[None]})
    return found


if __name__ == "__main__":
    main()
