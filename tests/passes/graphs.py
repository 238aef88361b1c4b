"""Small models for the tests of passes, and the claim most of them make: simplified, a model computes the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import numpy_helper

from nncc.frontend.specs import specs
from nncc.ir import Model
from nncc.passes.infer_shapes import infer_shapes
from nncc.passes.simplify import check_graph, simplify_reported
from nncc.verify import reference, sample_inputs


def parse(text: str, constants: dict[str, np.ndarray] | None = None, opset: int = 17) -> Model:
    """A Model from ONNX text (signature and body), with `constants` as initializers and shapes inferred."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}, "custom": 1]> {text}')
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(proto)
    for output in proto.graph.output:  # "float y" means a scalar to the parser; here, whatever is inferred
        output.type.tensor_type.ClearField("shape")
    graph = onnx_ir.from_proto(proto)
    infer_shapes(graph)
    return Model(graph, proto.graph.name, specs(graph.graph.inputs, "input"), specs(graph.graph.outputs, "output"))


def ops(model: Model) -> list[str]:
    """Operator names in order."""
    return [node.op_type for node in model.graph.graph]


def simplified(model: Model, tolerance: float = 0.0) -> Model:
    """Simplify; claim that names, dtypes, shapes and order of outputs stay, and results up to `tolerance`."""
    after, _ = simplify_reported(model)
    check_graph(after.graph, "test")
    inputs = sample_inputs(model, seed=3)
    expected, actual = reference(model, inputs), reference(after, inputs)
    assert list(expected) == list(actual)
    for name, array in expected.items():
        other = actual[name]
        assert (array.shape, array.dtype) == (other.shape, other.dtype)
        error = np.abs(array.astype(np.float64) - other.astype(np.float64)).max(initial=0.0)
        assert error <= tolerance * max(np.abs(array.astype(np.float64)).max(initial=0.0), 1.0), (name, error)
    return after


def same_bits(
    before: Model, after: Model, seed: int, real: Callable[[np.random.Generator, tuple[int, ...]], Any]
) -> None:
    """Claim that ONNX Runtime gives both the same bits, for `real` numbers and for integers of the whole range."""
    random = np.random.default_rng(seed)
    inputs = {}
    for spec in before.inputs:
        if spec.dtype == "float32":
            inputs[spec.name] = real(random, spec.shape).astype(np.float32)
        else:
            info = np.iinfo(spec.dtype)
            inputs[spec.name] = random.integers(info.min, info.max, spec.shape, endpoint=True).astype(spec.dtype)
    expected, actual = reference(before, inputs), reference(after, inputs)
    for name, array in expected.items():
        assert array.dtype == actual[name].dtype
        np.testing.assert_array_equal(array, actual[name])


def refusals(model: Model) -> dict[str, str]:
    """Reasons by node, of all passes."""
    return {node: why for report in simplify_reported(model)[1].values() for node, why in report.refusals.items()}
