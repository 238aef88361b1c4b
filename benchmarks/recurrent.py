"""Recurrent layers beside ONNX Runtime: LSTM, GRU and RNN of the sizes that voice models have, one thread each.

    taskset -c 1 python benchmarks/recurrent.py [--target native] [--layers WORD ...] [--rounds 15]

A row a layer: the median milliseconds of a run of nncc, of ONNX Runtime, and of nncc's recurrent kernel alone, which is
what is left beside the product of all steps; and the median of the rounds' ratios, ONNX Runtime / nncc, with its
quartiles. Both are checked against each other before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from turns import quartiles

import nncc

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
SECONDS = 0.1
"""What one contestant runs in one round, about."""
TOLERANCE = 1e-4
"""Of outputs that are at most 1, over some hundred steps of weights that make the states decay."""


@dataclass(frozen=True)
class Layer:
    """A recurrent layer that starts with states of zeros."""

    kind: str
    steps: int
    batch: int
    inputs: int
    hidden: int
    direction: str = "forward"

    def __str__(self) -> str:
        both = ", both directions" if self.direction == "bidirectional" else ""
        return f"{self.kind} {self.inputs} -> {self.hidden}, {self.steps} steps, batch {self.batch}{both}"

    def model(self) -> onnx.ModelProto:
        random = np.random.default_rng(0)
        directions, rows = 1 + (self.direction == "bidirectional"), GATES[self.kind] * self.hidden
        shapes = {
            "w": (directions, rows, self.inputs),
            "r": (directions, rows, self.hidden),
            "b": (directions, 2 * rows),
        }
        weights = {
            name: (random.standard_normal(shape) * 0.5 * shape[-1] ** -0.5).astype(np.float32)
            for name, shape in shapes.items()
        }
        node = helper.make_node(self.kind, ["x", *weights], ["y"], hidden_size=self.hidden, direction=self.direction)
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (self.steps, self.batch, self.inputs))],
            [helper.make_empty_tensor_value_info("y")],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


LAYERS = (
    Layer("LSTM", 31, 1, 128, 128),
    Layer("LSTM", 1, 1, 128, 128),
    Layer("LSTM", 160, 1, 40, 256),
    Layer("LSTM", 160, 1, 256, 256),
    Layer("LSTM", 160, 8, 256, 256),
    Layer("LSTM", 50, 1, 256, 256, "bidirectional"),
    Layer("GRU", 100, 1, 128, 128),
    Layer("GRU", 100, 8, 128, 128),
    Layer("RNN", 100, 1, 128, 128),
)


def seconds_of(run: Callable[[], object], count: int) -> float:
    """The mean of `count` runs."""
    begin = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - begin) / count


def measured(layer: Layer, target: str, rounds: int) -> str:
    """The row of one layer."""
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="nncc-recurrent-") as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(layer.model(), path)
        artifact = nncc.compile(path, target, Path(folder) / "out", threads=1, verify=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        x = np.random.default_rng(1).standard_normal((layer.steps, layer.batch, layer.inputs)).astype(np.float32)
        module = nncc.load(artifact.library, threads=1)
        (expected,) = session.run(None, {"x": x})
        error = float(np.abs(module.run({"x": x})["y"] - expected).max())
        if not error < TOLERANCE:
            raise SystemExit(f"{layer}: differs from ONNX Runtime by {error:.3g}")
        runs = {"nncc": lambda: module.run({"x": x}), "onnxruntime": lambda: session.run(None, {"x": x})}
        count = max(1, round(SECONDS / seconds_of(runs["onnxruntime"], 3)))
        found: dict[str, list[float]] = {who: [] for who in runs}
        for _ in range(rounds + 1):
            for who, run in runs.items():
                found[who].append(seconds_of(run, count))
        calls = np.median(module.profile_rounds({"x": x}, 400, seconds=SECONDS, warmup=2), axis=0)
        own = sum(
            float(t) for t, call in zip(calls, module.description["calls"], strict=True) if "recurrent" in call["name"]
        )
        module.close()
    ours, theirs = found["nncc"][1:], found["onnxruntime"][1:]
    low, middle, high = quartiles([b / a for a, b in zip(ours, theirs, strict=True)])
    times = [1e3 * t for t in (statistics.median(ours), statistics.median(theirs), own)]
    return (
        f"{layer}: nncc {times[0]:.4f} ms (its loop {times[2]:.4f}), ONNX Runtime {times[1]:.4f} ms; "
        f"ratio {middle:.2f} [{low:.2f}, {high:.2f}]"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="native")
    parser.add_argument("--layers", nargs="+", default=[""], metavar="WORD", help="those whose names have one of these")
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    for layer in LAYERS:
        if any(word in str(layer) for word in words.layers):
            print(measured(layer, words.target, words.rounds), flush=True)


if __name__ == "__main__":
    main()
