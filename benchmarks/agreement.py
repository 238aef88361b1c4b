"""Whether compiled quantized models give ONNX Runtime's integers: differences in steps of the output's scale.

    python benchmarks/agreement.py MODEL.onnx ... [--seeds 5] [--inputs FILE.npz ...] [--target native] [--first]
        [--shape NAME=1x3x224x224 ...] [--int8] [--save] [--by "a tool"]

ONNX Runtime runs each file twice, with its kernels for integers, and without its optimizations, in float32; where these
two differ, nncc can agree with one of them only. On x86 it makes uint8 of int8 activations first, and those that more
than one operator reads it computes in float32; with ``--int8`` it takes int8 as it is, as by default on Arm
(``session.qdqisint8allowed``), and the row says so.

A row a model: by how many steps nncc is from each of the two at most, and the two from each other, and how many of all
elements of all runs differ. Then what such differences mean: how far ONNX Runtime is from itself when each real number
of its inputs is the next larger float32; and how far nncc is from it by each rounding alone, that is, where both get
the same integers before each (`stretches.py`).

Inputs are `--seeds` random ones, and the samples of each FILE.npz whose arrays have the names and shapes of the model's
inputs, where an array may have one more axis in front, of samples. A model whose output is no rounded one has no steps:
its row tells the greatest difference relative to the output's largest element. ``--save`` adds the rows, as lines of
JSON, to ``benchmarks/results/agreement.jsonl``, of which the table of docs/measurements.md is made; `--by` says there
what has quantized the models.

With ``--first`` the rounded tensors are shown that differ though nothing differs before them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import stretches
from bench import processor
from onnx import TensorProto, numpy_helper
from tables import AGREEMENT, RESULTS, agreement

from nncc.frontend.onnx import import_onnx

Arrays = Mapping[str, np.ndarray]

MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity")
"""An output behind these is one of what they move."""


@dataclass(frozen=True)
class Difference:
    """Of the elements of two results of a model."""

    differing: int = 0
    elements: int = 0
    most: float = 0.0
    """In steps; relative to the largest element of an output that has none."""
    in_steps: bool = True

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            self.differing + other.differing,
            self.elements + other.elements,
            max(self.most, other.most),
            self.in_steps and other.in_steps,
        )


def form(model: onnx.ModelProto) -> str:
    """How a model is quantized, the type of its activations, and how many scales its weights have."""
    kinds = {node.op_type for node in model.graph.node}
    constants = constants_of(model)
    scales = [
        constants[node.input[at]]
        for node in model.graph.node
        for at in {"DequantizeLinear": (1,), "QLinearConv": (4,), "QGemm": (4,)}.get(node.op_type, ())
        if node.input[at] in constants
    ]
    points = [
        constants[node.input[2]].data_type
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in constants
    ]
    if any(kind.startswith("DynamicQuantize") for kind in kinds):
        words = ["ranges at run time", "uint8"]
    else:
        kind = "operators on integers" if any(kind.startswith(("QLinear", "QGemm")) for kind in kinds) else "QDQ"
        many = any(int(np.prod(scale.dims)) > 1 for scale in scales)
        signed = points and points[0] == TensorProto.INT8
        words = [kind, "int8" if signed else "uint8", f"a scale for each {'channel' if many else 'tensor'} of weights"]
    return ", ".join(words)


def session(model: str | bytes, *, optimize: bool, int8: bool = False) -> Any:
    """One of ONNX Runtime on one thread; with `int8` its kernels for integers take int8 activations as they are."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if int8:
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs_of(running: Any, feed: Arrays) -> dict[str, np.ndarray]:
    names = [value.name for value in running.get_outputs()]
    return dict(zip(names, running.run(names, dict(feed)), strict=True))


def constants_of(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    found = {each.name: each for each in model.graph.initializer}
    return found | {
        node.output[0]: node.attribute[0].t
        for node in model.graph.node
        if node.op_type == "Constant" and node.attribute
    }


def steps(model: onnx.ModelProto) -> dict[str, float | None]:
    """By output: the scale of its integers, 1 where it is of integers; None where it is not rounded."""
    made = {name: node for node in model.graph.node for name in node.output}
    constants = constants_of(model)
    found: dict[str, float | None] = {}
    for value in model.graph.output:
        node = made.get(value.name)
        while node is not None and node.op_type in MOVES:
            node = made.get(node.input[0])
        scale = constants.get(node.input[1]) if node is not None and node.op_type == "DequantizeLinear" else None
        is_real = value.type.tensor_type.elem_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
        array = numpy_helper.to_array(scale) if scale is not None else np.ones(1 if not is_real else 0)
        found[value.name] = float(array.reshape(-1)[0]) if array.size == 1 else None
    return found


def difference(one: Arrays, other: Arrays, scales: Mapping[str, float | None]) -> Difference:
    total = Difference()
    for name, expected in one.items():
        if name not in scales:
            continue
        apart = np.abs(expected.astype(np.float64) - other[name].astype(np.float64))
        scale = scales[name]
        unit = scale if scale is not None else max(float(np.abs(expected).max(initial=0)), 1e-30)
        apart = np.where(np.isnan(apart), np.inf, apart) / unit
        differing = int((apart > (0.01 if scale is not None else 0)).sum())
        total += Difference(differing, apart.size, float(apart.max(initial=0)), scale is not None)
    return total


def feeds(model: Any, seeds: int, files: Sequence[Path]) -> Iterator[Arrays]:
    """Inputs for a model: random ones, and the samples of files that fit."""
    from nncc.verify import sample_inputs

    yield from (sample_inputs(model, seed) for seed in range(seeds))
    shapes = {spec.name: tuple(spec.shape) for spec in model.inputs}
    for file in files:
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in shapes if name in stored}
        if arrays.keys() != shapes.keys():
            continue
        if all(arrays[name].shape == shape for name, shape in shapes.items()):
            yield arrays
        elif all(arrays[name].shape[1:] == shape for name, shape in shapes.items()):
            counts = {len(array) for array in arrays.values()}
            yield from ({name: array[i] for name, array in arrays.items()} for i in range(min(counts)))


def shaken(feed: Arrays) -> Arrays:
    """The feed with each real number as the next larger one of its type."""
    return {
        name: np.nextafter(array, array.dtype.type(np.inf)) if array.dtype.kind == "f" else array
        for name, array in feed.items()
    }


def measure(
    path: Path,
    folder: Path,
    target: str,
    seeds: int,
    files: Sequence[Path],
    shape: Mapping[str, Sequence[int]],
    int8: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """The row of a model, and a line for each rounding that differs alone; `shape` has the sizes of its open inputs."""
    import onnxruntime

    import nncc
    from nncc.execute import open_library
    from nncc.frontend.proto import to_proto

    model, fixed = onnx.load(path), import_onnx(path, shape=shape)
    library = open_library(nncc.compile(path, target, folder / "library", shape=shape, verify=False).library, 1)
    scales = steps(onnx.shape_inference.infer_shapes(model))
    default, plain = session(str(path), optimize=True, int8=int8), session(str(path), optimize=False)
    pairs = {"default": (0, 2), "plain": (1, 2), "between": (0, 1), "shaken": (0, 3)}
    runs, totals = 0, dict.fromkeys(pairs, Difference())
    for feed in feeds(fixed, seeds, files):
        results = [outputs_of(default, feed), outputs_of(plain, feed), library.run(feed)]
        results.append(outputs_of(default, shaken(feed)))
        for name, (one, other) in pairs.items():
            totals[name] += difference(results[one], results[other], scales)
        runs += 1

    def compiled(pieces: onnx.ModelProto) -> stretches.Run:
        onnx.save(pieces, folder / "pieces.onnx")
        made = nncc.compile(folder / "pieces.onnx", target, folder / "pieces", verify=False)
        return open_library(made.library, 1).run

    def runtime(pieces: onnx.ModelProto, optimize: bool) -> stretches.Run:
        return partial(outputs_of, session(pieces.SerializeToString(), optimize=optimize, int8=int8))

    alone, lines = stretches.compare(
        to_proto(fixed),
        feeds(fixed, seeds, files),
        partial(runtime, optimize=False),
        partial(runtime, optimize=True),
        compiled,
    )
    row = {
        "model": path.name.removesuffix(".onnx"),
        "form": form(model),
        "random": seeds,
        "real": runs - seeds,
        **{name: asdict(total) for name, total in totals.items()},
        "int8": int8,
        "real_inputs": any(spec.dtype.startswith(("float", "bfloat")) for spec in fixed.inputs),
        "alone": asdict(alone),
        "processor": processor(),
        "target": target,
        "versions": {"nncc": nncc.__version__, "onnxruntime": onnxruntime.__version__},
    }
    return row, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL.onnx")
    parser.add_argument("--seeds", type=int, default=5, help="random inputs")
    parser.add_argument("--inputs", type=Path, nargs="+", default=[], metavar="FILE.npz", help="real ones")
    parser.add_argument("--shape", nargs="+", default=[], metavar="NAME=SIZES", help="of inputs that are open")
    parser.add_argument("--int8", action="store_true", help="ONNX Runtime takes int8 activations as they are")
    parser.add_argument("--target", default="native")
    parser.add_argument("--save", action="store_true", help="add the rows to benchmarks/results")
    parser.add_argument("--by", default="", help="what has quantized the models")
    parser.add_argument("--first", action="store_true", help="show the roundings that differ")
    words = parser.parse_args()
    sizes = {name: tuple(map(int, size.split("x"))) for name, _, size in (word.partition("=") for word in words.shape)}
    for path in words.models:
        with tempfile.TemporaryDirectory(prefix="nncc-agreement-") as folder:
            row, lines = measure(path, Path(folder), words.target, words.seeds, words.inputs, sizes, words.int8)
            row["by"] = words.by
            print(agreement([row]), flush=True)
            if words.save:
                with (RESULTS / AGREEMENT).open("a") as file:
                    file.write(json.dumps(row) + "\n")
            if words.first:
                print(*lines, sep="\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
