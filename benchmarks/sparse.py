"""What skipping blocks of zeros saves: single layers with 50, 70 and 90 % of their blocks zero, beside dense ones.

    taskset -c 1 python benchmarks/sparse.py [--target x86-64-v3] [--layers WORD ...] [--rounds 15]
    python benchmarks/bench.py --table                      # writes the tables of README and docs

Blocks are 16 outputs by 4 inputs at one place of the window, zeros are spread at random, as many in each row of blocks.
All libraries of a layer run in turn, one thread. Rows go to `results/sparse.jsonl`: the median time of the layer's own
kernel and, with what brings its input into blocks of channels and back, of the whole; and the median of the rounds'
ratios, dense / sparse, with its quartiles. Dense is the best way that nncc knows for a layer without zeros, `direct` a
convolution that is not Winograd's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bench import processor
from onnx import helper, numpy_helper
from tables import RESULTS, SPARSE
from turns import quartiles

import nncc

SPARSITIES = (0.5, 0.7, 0.9)
OUTPUTS, INPUTS = 16, 4
"""Of a block."""
WORDS = ("conv2d", "winograd", "matmul")
"""In the names of the kernels of a layer itself."""


@dataclass(frozen=True)
class Layer:
    """A convolution of as many channels as it gives, or a product [rows, depth] x [depth, columns] by a constant."""

    window: int = 0
    channels: int = 0
    pixels: int = 0
    product: tuple[int, int, int] = (0, 0, 0)
    quantized: bool = False

    def __str__(self) -> str:
        if self.window:
            what = f"{self.window}x{self.window}, {self.channels} channels, {self.pixels}x{self.pixels} pixels"
        else:
            what = "matmul {}x{} by {}x{}".format(*self.product[:2], *self.product[1:])
        return f"{what}, {'int8' if self.quantized else 'float32'}"

    def weights(self, sparsity: float) -> np.ndarray:
        """[O, I, window, window] of int8."""
        random = np.random.default_rng(0)
        _, depth, columns = self.product
        out, width = (self.channels, self.window) if self.window else (columns, 1)
        blocks = -(-out // OUTPUTS), (self.channels or depth) // INPUTS, width, width
        kept = np.zeros((blocks[0], blocks[1] * width * width), bool)
        for row in kept:
            row[random.permutation(len(row))[: max(1, round(len(row) * (1 - sparsity)))]] = True
        values = random.integers(-127, 128, (blocks[0], OUTPUTS, blocks[1], INPUTS, width, width))
        masked = values * kept.reshape(blocks)[:, None, :, None]
        return masked.reshape(blocks[0] * OUTPUTS, -1, width, width)[:out].astype(np.int8)

    def model(self, sparsity: float) -> onnx.ModelProto:
        weights = self.weights(sparsity)
        constants: dict[str, np.ndarray] = {}
        axis, kind, attributes = 0, "Conv", {"pads": [self.window // 2] * 4}
        shape = (1, self.channels, self.pixels, self.pixels)
        if not self.window:
            weights, axis, kind, attributes = weights[..., 0, 0].T.copy(), 1, "MatMul", {}
            shape = self.product[:2]
        scale, spread = np.float32(0.01), np.float32(0.5 * np.sqrt(weights[0].size * (1 - sparsity)))
        nodes, x, w = [], "x", "w"
        if self.quantized:
            zero = np.zeros(weights.shape[axis], np.int8)
            constants |= {"w": weights, "sw": np.full(zero.shape, scale), "zw": zero, "sy": spread}
            constants |= {"sx": np.float32(0.02), "zx": np.uint8(13), "zy": np.uint8(117)}
            nodes += [
                helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["real_x"]),
                helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["real_w"], axis=axis),
            ]
            x, w = "real_x", "real_w"
        else:
            constants["w"] = weights * scale
        result = "product" if self.quantized else "y"
        nodes.append(helper.make_node(kind, [x, w], [result], **attributes))
        if self.quantized:
            nodes.append(helper.make_node("QuantizeLinear", ["product", "sy", "zy"], ["y"]))
        element = onnx.TensorProto.UINT8 if self.quantized else onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "layer",
            [helper.make_tensor_value_info("x", element, shape)],
            [helper.make_empty_tensor_value_info("y")],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made)


def layers() -> Iterator[Layer]:
    sizes = {1: [(128, 28), (256, 28), (512, 14)], 3: [(128, 28), (256, 14), (512, 7)]}
    for quantized in (True, False):
        for window, some in sizes.items():
            yield from (Layer(window, channels, pixels, quantized=quantized) for channels, pixels in some)
        for product in ((128, 768, 3072), (1, 2048, 1000)):
            yield Layer(product=product, quantized=quantized)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="native")
    parser.add_argument("--layers", nargs="+", default=[""], metavar="WORD", help="those whose names have one of these")
    parser.add_argument("--rounds", type=int, default=15)
    words = parser.parse_args()
    for layer in layers():
        if any(word in str(layer) for word in words.layers):
            row = measured(layer, words.target, words.rounds)
            with (RESULTS / SPARSE).open("a") as file:
                file.write(json.dumps(row) + "\n")
            middle = ", ".join(f"{100 * s:.0f} % {row['ratios'][str(s)][1]:.2f}" for s in SPARSITIES)
            print(f"{layer}: {row['ways']['dense']} {row['milliseconds']['dense']:.4f} ms; {middle}", flush=True)


def measured(layer: Layer, target: str, rounds: int) -> dict[str, Any]:
    """The row of one layer."""
    with tempfile.TemporaryDirectory(prefix="nncc-sparse-") as folder:
        libraries = {str(s): compiled(layer, s, target, Path(folder) / str(s)) for s in SPARSITIES}
        libraries["dense"] = compiled(layer, 0.0, target, Path(folder) / "dense")
        if "winograd" in libraries["dense"][1]:
            only = [Path(__file__).with_name("direct_only.py")]
            libraries["direct"] = compiled(layer, 0.0, target, Path(folder) / "direct", only)
        modules = {who: nncc.load(path, threads=1) for who, (path, _) in libraries.items()}
        tensor = next(iter(modules.values())).inputs[0]
        random = np.random.default_rng(0).integers(0, 256, tensor.shape)
        inputs = {"x": random.astype(np.uint8) if layer.quantized else (random / 128 - 1).astype(np.float32)}
        seconds: dict[str, list[tuple[float, float]]] = {who: [] for who in modules}
        for _ in range(rounds + 1):
            for who, module in modules.items():
                calls = np.median(module.profile_rounds(inputs, 400, seconds=0.05, warmup=2), axis=0)
                own = [any(w in call["name"] for w in WORDS) for call in module.description["calls"]]
                seconds[who].append((float(calls[own].sum()), float(calls.sum())))
        for module in modules.values():
            module.close()
    times = {who: np.array(found[1:]) for who, found in seconds.items()}
    row: dict[str, Any] = {
        "model": str(layer),
        "processor": processor(),
        "target": target,
        "rounds": rounds,
        "ways": {who: way for who, (_, way) in libraries.items()},
        "versions": {"nncc": nncc.__version__},
    }
    for at, (name, ratios) in enumerate((("milliseconds", "ratios"), ("whole_milliseconds", "whole_ratios"))):
        row[name] = {who: round(1e3 * statistics.median(found[:, at]), 5) for who, found in times.items()}
        row[ratios] = {
            str(s): [round(q, 3) for q in quartiles(list(times["dense"][:, at] / times[str(s)][:, at]))]
            for s in SPARSITIES
        }
    return row


def compiled(
    layer: Layer, sparsity: float, target: str, folder: Path, schedules: list[Path] | None = None
) -> tuple[Path, str]:
    """The library, checked against ONNX Runtime, and what its layer's kernel is."""
    folder.mkdir()
    onnx.save(layer.model(sparsity), folder / "layer.onnx")
    artifact = nncc.compile(
        folder / "layer.onnx", target, folder / "out", threads=1, schedules=schedules or (), shipped_records=False
    )
    ways = artifact.description["schedules"].values()
    return artifact.library, " and ".join(way.split()[0] for way in ways if any(word in way for word in WORDS))


if __name__ == "__main__":
    main()
