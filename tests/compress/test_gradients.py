"""Gradients as graphs, against differences of ONNX Runtime's own outputs."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from nncc.compress.gradients import GRADIENTS, backward
from nncc.compress.tape import Tape
from nncc.quant.quantize import shapes_of
from nncc.quant.session import Session, open_graph

RNG = np.random.default_rng(0)
W = {
    "conv": (6, 4, 3, 3),
    "deep": (4, 1, 3, 3),
    "up": (4, 3, 3, 3),
    "gemm": (5, 8),
    "matmul": (7, 5),
    "row": (1, 4, 1, 1),
}
CASES = [
    ("Conv", ["x", "conv"], (1, 4, 7, 6), {"strides": [2, 2], "pads": [1, 1, 0, 1]}),
    ("Conv", ["x", "conv"], (1, 4, 9, 9), {"dilations": [2, 2], "strides": [3, 1]}),
    ("Conv", ["x", "deep"], (2, 4, 6, 6), {"group": 4, "pads": [1, 1, 1, 1]}),
    ("ConvTranspose", ["x", "up"], (1, 4, 4, 5), {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    ("Gemm", ["x", "gemm"], (3, 8), {"transB": 1, "alpha": 0.5}),
    ("MatMul", ["x", "matmul"], (2, 3, 7), {}),
    ("Add", ["x", "row"], (1, 4, 3, 3), {}),
    ("Sub", ["row", "x"], (1, 4, 3, 3), {}),
    ("Mul", ["x", "row"], (2, 4, 3, 3), {}),
    ("Mul", ["x", "x"], (2, 3), {}),
    ("Div", ["row", "x"], (1, 4, 2, 2), {}),
    ("Relu", ["x"], (3, 5), {}),
    ("LeakyRelu", ["x"], (3, 5), {"alpha": 0.1}),
    ("Sigmoid", ["x"], (3, 5), {}),
    ("Tanh", ["x"], (3, 5), {}),
    ("Erf", ["x"], (3, 5), {}),
    ("HardSigmoid", ["x"], (3, 5), {"alpha": 0.3}),
    ("HardSwish", ["x"], (3, 5), {}),
    ("Identity", ["x"], (3, 5), {}),
    ("Flatten", ["x"], (2, 3, 4), {}),
    ("Transpose", ["x"], (2, 3, 4), {"perm": [1, 2, 0]}),
    ("Concat", ["x", "row", "x"], (1, 4, 1, 1), {"axis": 1}),
    ("GlobalAveragePool", ["x"], (2, 3, 4, 5), {}),
    ("AveragePool", ["x"], (1, 3, 7, 7), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ("MaxPool", ["x"], (1, 3, 7, 6), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    ("Softmax", ["x"], (3, 5), {"axis": 1}),
]


def model(nodes, shape, weights=(), opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(RNG.normal(0, 1, W[name]).astype(np.float32), name) for name in weights],
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8))


def values(shape):
    """Numbers that are far from each other and from 0, so that no small step crosses a kink."""
    size = int(np.prod(shape))
    return {"x": (RNG.permutation(np.linspace(-3.7, 3.9, size)) + 1e-3).astype(np.float32).reshape(shape)}


def gradient(graph, sample):
    """What the tape says for random v, and v."""
    (y,) = open_graph(graph).run(sample, ["y"])
    v = RNG.normal(0, 1, y.shape).astype(np.float32)
    tape = Tape(graph, shapes_of(graph, sample))
    tape.proto.graph.input.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, None))
    backward(tape, {"y": "v"})
    name = tape.of("x")
    if name is None:
        return None, v
    tape.proto.graph.output.add().name = name
    return Session(tape.proto.SerializeToString()).run({**sample, "v": v}, [name])[0], v


@pytest.mark.parametrize(("op_type", "operands", "shape", "attributes"), CASES)
def test_a_gradient_is_the_limit_of_differences(op_type, operands, shape, attributes):
    """Along a random direction: the difference of two steps of 1e-2 has an error of 1e-4 of the third derivative, and
    one of 1e-5 by the rounding of float32."""
    weights = sorted({name for name in operands if name in W})
    graph = model([helper.make_node(op_type, operands, ["y"], name="n", **attributes)], shape, weights)
    sample, step = values(shape), 1e-2 / np.sqrt(np.prod(shape))
    session = open_graph(graph)
    found, v = gradient(graph, sample)
    assert found.shape == sample["x"].shape
    for _ in range(3):
        direction = RNG.choice([-1.0, 1.0], shape).astype(np.float32)
        ahead, behind = (
            session.run({"x": (sample["x"] + sign * step * direction).astype(np.float32)}, ["y"])[0] for sign in (1, -1)
        )
        expected = float((v.astype(np.float64) * (ahead.astype(np.float64) - behind)).sum() / (2 * step))
        assert float((found * direction).sum()) == pytest.approx(expected, rel=2e-2, abs=2e-2)


def test_every_rule_has_a_case():
    shared = {"Dropout", "Reshape", "Squeeze", "Unsqueeze", "ReduceMean", "Clip"}  # of rules that have another's case
    assert set(GRADIENTS) == {case[0] for case in CASES} | shared


def test_clip_stops_what_it_cut():
    most = helper.make_node("Constant", [], ["most"], value_float=1.0)
    graph = model([most, helper.make_node("Clip", ["x", "", "most"], ["y"], name="n")], (4,))
    found, v = gradient(graph, {"x": np.array([-2, 0.5, 1.5, 3], np.float32)})
    np.testing.assert_array_equal(found, v * [1, 1, 0, 0])


def test_what_is_read_twice_adds_up_and_what_is_not_known_is_not_guessed():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="a"),
        helper.make_node("Neg", ["x"], ["b"], name="b"),
        helper.make_node("Add", ["a", "x"], ["y"], name="y"),
    ]
    found, v = gradient(model([nodes[0], nodes[2]], (4,)), {"x": np.array([-2, -1, 1, 2], np.float32)})
    np.testing.assert_allclose(found, v * [1, 1, 2, 2], rtol=1e-6)
    nodes[2] = helper.make_node("Add", ["a", "b"], ["y"], name="y")
    assert gradient(model(nodes, (4,)), {"x": np.ones(4, np.float32)})[0] is None, "there is no rule for Neg"


@pytest.mark.parametrize("op_type", ["Gemm", "Conv", "ConvTranspose", "Clip"])
def test_operands_that_are_computed_have_no_gradient_rather_than_none_of_it(op_type):
    """Both operands of the last node depend on x."""
    shape = (2, 2) if op_type == "Gemm" else () if op_type == "Clip" else (2, 2, 2, 2)
    last = helper.make_node(op_type, ["x", "a"], ["y"], name="y")
    graph = model([helper.make_node("Tanh", ["x"], ["a"], name="a"), last], shape)
    assert gradient(graph, {"x": np.ones(shape, np.float32)})[0] is None
