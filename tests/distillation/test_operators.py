"""Each operator in torch gives what ONNX Runtime gives; both compute in float32, in other orders of summation."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from nncc.distillation.network import Network, trainable_graph  # noqa: E402
from nncc.errors import ModelError  # noqa: E402
from nncc.quant.session import open_graph  # noqa: E402

RNG = np.random.default_rng(0)


def floats(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def whole(*numbers):
    return np.array(numbers, np.int64)


X = floats(2, 6, 7, 5)


def graph_of(op, operands, attributes, opset, outputs):
    """A graph of one node. The first operand is the input `x`, the others are constants."""
    names = ["x", *(f"c{at}" if array is not None else "" for at, array in enumerate(operands[1:]))]
    kind = helper.np_dtype_to_tensor_dtype(operands[0].dtype)
    graph = helper.make_graph(
        [helper.make_node(op, names, [f"y{at}" for at in range(outputs)], name="node", **attributes)],
        "one",
        [helper.make_tensor_value_info("x", kind, operands[0].shape)],
        [helper.make_tensor_value_info(f"y{at}", TensorProto.UNDEFINED, None) for at in range(outputs)],
        [numpy_helper.from_array(a, n) for a, n in zip(operands[1:], names[1:], strict=True) if a is not None],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    for value in model.graph.output:
        value.ClearField("type")
    return onnx_ir.from_proto(model)


CASES = [
    ("Conv", [X, floats(4, 6, 3, 3), floats(4)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", [X, floats(6, 1, 3, 3)], {"group": 6, "dilations": [2, 1], "auto_pad": "VALID"}),
    ("Conv", [X, floats(4, 6, 2, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", [X, floats(4, 6, 2, 3)], {"auto_pad": "SAME_LOWER"}),
    ("Conv", [floats(2, 3, 9), floats(4, 3, 3)], {"pads": [1, 1]}),
    ("ConvTranspose", [X, floats(6, 2, 3, 3), floats(4)], {"group": 2, "strides": [2, 2], "pads": [1, 0, 0, 1]}),
    ("ConvTranspose", [X, floats(6, 2, 3, 3)], {"strides": [2, 3], "output_padding": [1, 2]}),
    ("ConvTranspose", [X, floats(6, 2, 3, 3)], {"strides": [2, 2], "output_shape": [14, 10]}),
    ("Gemm", [floats(3, 4), floats(5, 4), floats(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [floats(4, 3), floats(4, 5)], {"transA": 1}),
    ("MatMul", [floats(2, 3, 4), floats(4, 5)], {}),
    ("MaxPool", [X], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", [X], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", [X], {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("GlobalAveragePool", [X], {}),
    ("GlobalMaxPool", [X], {}),
    ("BatchNormalization", [X, floats(6), floats(6), floats(6), floats(6) ** 2 + 0.1], {"epsilon": 1e-3}),
    ("InstanceNormalization", [X, floats(6), floats(6)], {}),
    ("LayerNormalization", [X, floats(5), floats(5)], {"axis": -1}),
    ("LayerNormalization", [X, floats(7, 5)], {"axis": 2, "epsilon": 1e-3}),
    ("Softmax", [X], {"axis": 1}),
    ("LogSoftmax", [X], {}),
    ("Resize", [X, None, floats(0), whole(2, 6, 14, 10)], {"coordinate_transformation_mode": "asymmetric",
                                                          "nearest_mode": "floor"}),
    ("Resize", [X, None, np.array([1, 1, 2, 2], np.float32)], {}),
    ("Resize", [X, None, floats(0), whole(2, 6, 10, 9)], {"mode": "linear"}),
    ("Resize", [X, None, floats(0), whole(2, 6, 10, 9)], {"mode": "linear",
                                                         "coordinate_transformation_mode": "align_corners"}),
    *((op, [X], {}) for op in ("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish",
                               "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Sign", "Sin",
                               "Softplus", "Softsign", "Tanh")),
    *((op, [X**2 + 0.1], {}) for op in ("Log", "Reciprocal", "Sqrt")),
    *((op, [X, floats(6, 1, 1) + 4], {}) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")),
    ("Pow", [X**2, np.array(1.5, np.float32)], {}),
    ("Div", [whole(-7, 7, 9), whole(2)], {}),
    ("PRelu", [X, floats(6, 1, 1)], {}),
    ("Clip", [X, np.array(-0.5, np.float32), np.array(0.7, np.float32)], {}),
    ("Clip", [X, None, np.array(0.7, np.float32)], {}),
    ("Gelu", [X], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("Where", [X > 0, X, floats(5)], {}),
    *((op, [X, floats(5)], {}) for op in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")),
    ("Reshape", [X, whole(0, -1, 5)], {}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Transpose", [X], {}),
    ("Flatten", [X], {"axis": 2}),
    ("Flatten", [X], {"axis": -1}),
    ("Concat", [X, floats(2, 1, 7, 5)], {"axis": 1}),
    ("Slice", [X, whole(1, -1), whole(100, -8), whole(1, 2), whole(2, -2)], {}),
    ("Slice", [X, whole(-3), whole(-1), whole(2)], {}),
    ("Gather", [X, whole(0, -1, 2)], {"axis": 1}),
    ("Gather", [X, np.array(-2, np.int64)], {"axis": 3}),
    ("Squeeze", [floats(2, 1, 3, 1), whole(1, -1)], {}),
    ("Unsqueeze", [floats(2, 3), whole(0, -1)], {}),
    ("Expand", [floats(2, 1, 5), whole(2, 1, 7, 1)], {}),
    ("Tile", [X, whole(1, 2, 1, 3)], {}),
    ("Pad", [X, whole(0, 0, 1, 2, 0, 1, 0, 0), np.array(0.5, np.float32)], {}),
    ("Pad", [X, whole(0, 0, 1, 2, 0, 0, 3, 1)], {"mode": "reflect"}),
    ("Pad", [X, whole(2, 1, 0, 3), None, whole(2, 3)], {"mode": "edge"}),
    ("Shape", [X], {"start": 1}),
    ("Cast", [X], {"to": TensorProto.INT32}),
    ("DepthToSpace", [floats(2, 8, 3, 2)], {"blocksize": 2}),
    ("DepthToSpace", [floats(2, 8, 3, 2)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [floats(2, 3, 4, 6)], {"blocksize": 2}),
    ("Einsum", [floats(2, 3), floats(3, 4)], {"equation": "ij,jk->ki"}),
    *((op, [X, whole(2, 3)], {"keepdims": 0}) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceL2")),
    ("ReduceMin", [X, whole(-1)], {}),
    ("ReduceMean", [X], {}),
    ("QuantizeLinear", [X, np.array(0.03, np.float32), np.array(100, np.uint8)], {}),
    ("QuantizeLinear", [X, np.abs(floats(6)) / 20, RNG.integers(-9, 9, 6).astype(np.int8)], {"axis": 1}),
    ("DequantizeLinear", [RNG.integers(0, 255, (2, 6, 3)).astype(np.uint8), floats(6),
                          RNG.integers(0, 255, 6).astype(np.uint8)],
     {"axis": 1}),
    ("DequantizeLinear", [RNG.integers(-9, 9, (2, 6)).astype(np.int8), floats(2, 3)], {"axis": 1, "block_size": 2}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "operands", "attributes"), CASES, ids=[f"{at}-{c[0]}" for at, c in enumerate(CASES)])
def test_torch_gives_what_onnx_runtime_gives(op, operands, attributes):
    opset = 21 if "block_size" in attributes else 20 if op == "Gelu" else 18
    graph = graph_of(op, operands, attributes, opset, 1)
    expected = open_graph(graph).run({"x": operands[0]}, ["y0"])[0]
    found = Network(trainable_graph(graph, ()), ())({"x": torch.from_numpy(operands[0])}, ["y0"])[0].numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_split_has_several_results():
    for operands, attributes in (([X, whole(1, 3, 2)], {"axis": 1}), ([X], {"axis": 1, "num_outputs": 3})):
        graph = graph_of("Split", operands, attributes, 18, 3)
        expected = open_graph(graph).run({"x": X}, ["y0", "y1", "y2"])
        found = Network(trainable_graph(graph, ()), ())({"x": torch.from_numpy(X)}, ["y0", "y1", "y2"])
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(expected, found, strict=True))


def test_an_old_opset_is_raised():
    graph = graph_of("Squeeze", [floats(1, 2, 1, 3)], {"axes": [0, 2]}, 11, 1)
    found = Network(trainable_graph(graph, ()), ())({"x": torch.ones(1, 2, 1, 3)}, ["y0"])[0]
    assert found.shape == (2, 3)


def test_rounding_passes_the_gradient_and_saturation_stops_it():
    graph = graph_of("QuantizeLinear", [floats(3), np.array(0.5, np.float32), np.array(10, np.uint8)], {}, 17, 1)
    x = torch.tensor([-100.0, 0.3, 200.0], requires_grad=True)
    whole_numbers = Network(trainable_graph(graph, ()), ())({"x": x}, ["y0"])[0]
    assert whole_numbers.tolist() == [0.0, 11.0, 255.0]
    whole_numbers.sum().backward()
    assert x.grad.tolist() == [0.0, 2.0, 0.0], "d(x / scale) where it is not saturated"


@pytest.mark.parametrize("zero_point", [np.uint8(0), np.uint8(131), np.int8(-3)])
def test_one_scale_and_a_scale_for_each_channel_give_the_same_integers_and_gradients(zero_point):
    """One scale has a function of its own. Ties are rounded alike; at the two where saturation begins, only values are
    compared: there the gradient jumps."""
    halves = np.arange(-600, 600, dtype=np.float32) / 2
    x = np.stack([halves, halves + np.float32(0.3), np.random.default_rng(0).normal(0, 90, 1200).astype(np.float32)], 1)
    results = []
    for scale in (np.array(0.5, np.float32), np.full(3, 0.5, np.float32)):
        points = np.full(scale.shape, zero_point)
        graph = graph_of("QuantizeLinear", [floats(1200, 3), scale, points], {"axis": 1}, 17, 1)
        given = torch.tensor(x * 0.5, requires_grad=True)
        whole_numbers = Network(trainable_graph(graph, ()), ())({"x": given}, ["y0"])[0]
        whole_numbers.square().sum().backward()
        limits = np.iinfo(zero_point.dtype)
        edge = np.isin(x, (limits.min - 0.5 - int(zero_point), limits.max + 0.5 - int(zero_point)))
        results.append((whole_numbers.detach().numpy(), np.where(edge, 0, given.grad.numpy())))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize(
    ("op", "operands", "attributes", "what"),
    [
        ("Resize", [X, None, floats(0), whole(2, 6, 10, 9)], {}, "by half_pixel and round_prefer_floor"),
        ("Resize", [X, None, floats(0), whole(2, 6, 9, 9)], {"mode": "cubic"}, "by cubic and half_pixel"),
        ("AveragePool", [X], {"kernel_shape": [2, 2], "dilations": [2, 2]}, "with dilations"),
        ("Pad", [X, whole(0, 1, 0, 0, 0, 0, 0, 0)], {"mode": "reflect"}, "by reflect"),
    ],
)
def test_a_form_that_torch_lacks_is_named(op, operands, attributes, what):
    network = Network(trainable_graph(graph_of(op, operands, attributes, 19, 1), ()), ())
    with pytest.raises(ModelError) as caught:
        network({"x": torch.from_numpy(operands[0])}, ["y0"])
    assert caught.value.message == f"`node`: {op} {what} cannot be trained"
    assert caught.value.hint == "cut the model before it"


def test_operators_that_are_not_known_are_listed():
    graph = helper.make_graph(
        [
            helper.make_node("Det", ["x"], ["a"], name="first"),
            helper.make_node("NonZero", ["a"], ["y"], name="second"),
            helper.make_node("MaxPool", ["x"], ["b", "z"], name="third", kernel_shape=[1]),
        ],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 3])],
        [helper.make_tensor_value_info(name, TensorProto.INT64, None) for name in ("y", "z")],
    )
    with pytest.raises(ModelError) as caught:
        trainable_graph(onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])), ())
    assert caught.value.message == (
        "the student has 3 operators that cannot be trained through:\n"
        "  Det: 1 x, `first`\n"
        "  MaxPool with several results: 1 x, `third`\n"
        "  NonZero: 1 x, `second`"
    )
    assert caught.value.hint == "cut the model before them"
