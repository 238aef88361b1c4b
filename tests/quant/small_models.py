"""Small float models for the tests of quantization, made from ONNX text, and samples for them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
from onnx import numpy_helper

from nncc.quant.calibrate import Statistics, collect
from nncc.quant.quantize import prepare, quantize
from nncc.quant.recipe import Recipe


def parse(text: str, constants: dict[str, np.ndarray] | None = None, opset: int = 17) -> onnx_ir.Model:
    """A graph from ONNX text (signature and body) with `constants` as initializers."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> {text}')
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(proto)
    return onnx_ir.from_proto(proto)


def weights(*shape: int, seed: int = 0, spread: float = 0.4) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)


def samples(count: int = 8, seed: int = 1, **shapes: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    """Normal float32 inputs of these shapes."""
    rng = np.random.default_rng(seed)
    return [{n: rng.normal(0, 1, s).astype(np.float32) for n, s in shapes.items()} for _ in range(count)]


def small_cnn(batch: str | int = "N") -> onnx_ir.Model:
    """conv + batch norm + relu, depthwise conv + relu, residual add, global mean, gemm."""
    constants = {
        "W0": weights(8, 3, 3, 3, seed=1),
        "gamma": np.linspace(0.5, 2, 8, dtype=np.float32),
        "beta": weights(8, seed=2),
        "mean": weights(8, seed=3),
        "var": np.linspace(0.2, 1.5, 8, dtype=np.float32),
        "W1": weights(8, 1, 3, 3, seed=4),
        "b1": weights(8, seed=5),
        "W2": weights(8, 5, seed=6),
        "b2": weights(5, seed=7),
    }
    return parse(
        f"""g (float[{batch},3,9,10] x) => (float[{batch},5] y) {{
            c0 = Conv <pads = [1,1,1,1]> (x, W0)
            n0 = BatchNormalization (c0, gamma, beta, mean, var)
            r0 = Relu (n0)
            c1 = Conv <pads = [1,1,1,1], group = 8> (r0, W1, b1)
            r1 = Relu (c1)
            a = Add (r0, r1)
            p = GlobalAveragePool (a)
            f = Flatten (p)
            y = Gemm (f, W2, b2)
        }}""",
        constants,
    )


def quantized(
    graph: onnx_ir.Model, inputs: list[dict[str, np.ndarray]], recipe: Recipe | None = None
) -> tuple[onnx_ir.Model, onnx_ir.Model, Statistics]:
    """The prepared graph, its quantized form and the statistics between them."""
    recipe = recipe or Recipe()
    prepared = prepare(graph)
    statistics = collect(prepared, inputs, recipe)
    return prepared, quantize(prepared, statistics, recipe), statistics


def ops(graph: onnx_ir.Model) -> list[str]:
    """Operator names in order."""
    return [node.op_type for node in graph.graph]


def node_of(graph: onnx_ir.Model, op: str, at: int = 0) -> onnx_ir.Node:
    """The operator of that type, number `at`."""
    return [node for node in graph.graph if node.op_type == op][at]
