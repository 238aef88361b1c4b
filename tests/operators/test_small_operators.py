"""Operators with converters of a few lines: the corner cases that TVM's importer gets wrong, against numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from compiled import ROUNDING, Net, agrees, compile_net
from onnx import TensorProto, helper

import nncc
from nncc.errors import ModelError

INF = np.inf


def _run(folder, op, inputs, output, opset=18, outputs=1, **attributes):
    """The outputs of one node; an input whose name ends in ``_c`` is a constant."""
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    fixed = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items() if name.endswith("_c")]
    given = {name: array for name, array in arrays.items() if not name.endswith("_c")}
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    names = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, list(arrays), names, **attributes)
    made = [helper.make_tensor_value_info(name, *what) for name, what in zip(names, output, strict=True)]
    graph = helper.make_graph([node], "g", values, made, fixed)
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    artifact = nncc.compile(path, output=folder / "out", verify=False, threads=1)
    with nncc.load(artifact.library) as module:
        return list(module.run(given).values())


def test_shifts_by_the_width_and_more_leave_zero_or_the_sign(tmp_path):
    x, y = np.array([-8, 4, -1, 1], np.int32), np.array([32, 100, 31, -1], np.int32)
    (right,) = _run(tmp_path, "BitShift", {"x": x, "y": y}, [(TensorProto.INT32, (4,))], 28, direction="RIGHT")
    assert right.tolist() == [-1, 0, -1, 0]
    (left,) = _run(tmp_path, "BitShift", {"x": x, "y": y}, [(TensorProto.INT32, (4,))], 28, direction="LEFT")
    assert left.tolist() == [0, 0, -(2**31), 0]


def test_booleans_are_compared(tmp_path):
    net = Net(18)
    x, y = net.input(3, 4, dtype=bool), net.op("Greater", net.input(3, 4), net.input(3, 4))
    same = net.op("Equal", x, y)
    net.output(same, net.op("Not", same), net.op("Equal", y, net.constant([True, False, True, False])))
    net.output(net.op("Equal", net.op("Shape", x), net.ints(3, 5)), net.op("Equal", net.input(4, 1), net.input(5)))
    agrees(net, tmp_path)


def test_infinities_of_one_sign_are_found(tmp_path):
    x = np.array([INF, -INF, np.nan, 1.0], np.float32)
    for positive, negative, expected in ((1, 0, [1, 0, 0, 0]), (0, 1, [0, 1, 0, 0]), (0, 0, [0, 0, 0, 0])):
        (found,) = _run(
            tmp_path, "IsInf", {"x": x}, [(TensorProto.BOOL, (4,))], detect_positive=positive, detect_negative=negative
        )
        assert found.tolist() == [bool(e) for e in expected]


@pytest.mark.parametrize("fmod", [0, 1])
def test_remainders_of_reals_have_the_sign_that_is_asked_for(tmp_path, fmod):
    values = [-4.3, 7.2, 5.0, -0.0, 3.0, INF, -6.0]
    x, y = (a.reshape(-1).astype(np.float32) for a in np.meshgrid(values, [2.1, -3.4, INF, -INF]))
    (found,) = _run(tmp_path, "Mod", {"x": x, "y": y}, [(TensorProto.FLOAT, x.shape)], fmod=fmod)
    with np.errstate(invalid="ignore"):
        expected = np.fmod(x, y) if fmod else np.mod(x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (np.array([2, -3, 5], np.int32), np.array([10, 3, 0], np.int64), [1024, -27, 1]),
        (np.array([2, 1, -1], np.int64), np.array([-1, -5, 2], np.int32), [0, 1, 1]),
        (np.array([2, 3], np.int32), np.array([0.5, 2.0], np.float32), [1, 9]),
        (np.array([2.0, 9.0], np.float32), np.array([3, -1], np.int64), [8.0, 1 / 9]),
    ],
)
def test_powers_have_the_type_of_their_base(tmp_path, x, y, expected):
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    (found,) = _run(tmp_path, "Pow", {"x": x, "y": y}, [(kind, x.shape)], 15)
    np.testing.assert_allclose(found, np.array(expected, x.dtype), rtol=1e-6)


def test_a_maximum_of_minus_infinities_is_minus_infinity(tmp_path):
    x = np.array([[-INF, -INF], [-INF, 1.0]], np.float32)
    (found,) = _run(tmp_path, "ReduceMax", {"x": x, "a_c": np.array([1])}, [(TensorProto.FLOAT, (2,))], keepdims=0)
    assert found.tolist() == [-INF, 1.0]


def test_booleans_are_reduced_to_any_and_all(tmp_path):
    x = np.array([[True, False], [True, True]])
    for op, expected in (("ReduceMax", [True, True]), ("ReduceMin", [False, True])):
        (found,) = _run(tmp_path, op, {"x": x, "a_c": np.array([1])}, [(TensorProto.BOOL, (2,))], 20, keepdims=0)
        assert found.tolist() == expected


def test_reductions_of_nothing_are_their_neutral_elements(tmp_path):
    x = np.zeros((2, 0), np.float32)
    expected = {"ReduceSum": 0, "ReduceProd": 1, "ReduceMax": -INF, "ReduceMin": INF, "ReduceLogSum": -INF}
    for op, value in expected.items():
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 0))]
        graph = helper.make_graph(
            [helper.make_node(op, ["x", "a"], ["y"], keepdims=0)],
            "g",
            inputs,
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2,))],
            [onnx.numpy_helper.from_array(np.array([1]), "a")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        compiled = compile_net(model, tmp_path / op, shape={"x": (2, 0)})
        with nncc.load(compiled.library) as module:
            assert module.run({"x": x})["y"].tolist() == [value, value]


def test_one_hot_takes_values_that_are_computed(tmp_path):
    values = {"i": np.array([0, -1, 7], np.int64), "d_c": np.array(3), "v": np.array([2.0, 5.0], np.float32)}
    (found,) = _run(tmp_path, "OneHot", values, [(TensorProto.FLOAT, (3, 3))])
    assert found.tolist() == [[5, 2, 2], [2, 2, 5], [2, 2, 2]]


def test_batch_normalization_of_a_batch_gives_its_statistics(tmp_path):
    net = Net(15)
    x, scale, bias, mean, variance = net.input(4, 3, 5), *(net.input(3) for _ in range(4))
    net.output(*net.op("BatchNormalization", x, scale, bias, mean, variance, outputs=3, training_mode=1, momentum=0.7))
    agrees(net, tmp_path, tolerance=10 * ROUNDING)


def test_dropout_that_draws_is_refused(tmp_path):
    inputs = {"x": np.ones(4, np.float32), "r_c": np.float32(0.5), "t_c": np.array(True)}
    with pytest.raises(ModelError) as caught:
        _run(tmp_path, "Dropout", inputs, [(TensorProto.FLOAT, (4,))], 13)
    assert str(caught.value) == (
        "the operator `Dropout` is used in a form that cannot be compiled: Dropout in training mode, which drops "
        "elements at random"
    )


def test_dropout_of_nothing_keeps_all(tmp_path):
    inputs = {"x": np.arange(3, dtype=np.float32), "r_c": np.float32(0), "t_c": np.array(True)}
    kept, mask = _run(tmp_path, "Dropout", inputs, [(TensorProto.FLOAT, (3,)), (TensorProto.BOOL, (3,))], 13, outputs=2)
    assert kept.tolist() == [0, 1, 2] and mask.all()


def test_norms_of_zeros_divide_nothing(tmp_path):
    x = np.array([[0, 0], [3, 4]], np.float32)
    for p, expected in ((1, [[0, 0], [3 / 7, 4 / 7]]), (2, [[0, 0], [0.6, 0.8]])):
        (found,) = _run(tmp_path, "LpNormalization", {"x": x}, [(TensorProto.FLOAT, (2, 2))], 22, p=p)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_bits_are_taken_for_another_type(tmp_path):
    x = np.array([1.0, -0.0, 3.5], np.float32)
    (found,) = _run(tmp_path, "BitCast", {"x": x}, [(TensorProto.INT32, (3,))], 26, to=TensorProto.INT32)
    assert np.array_equal(found, x.view(np.int32))


def test_empty_parts_of_a_split_are_there(tmp_path):
    x = np.arange(3, dtype=np.float32)
    shapes = [(TensorProto.FLOAT, (n,)) for n in (0, 2, 1)]
    found = _run(tmp_path, "Split", {"x": x, "s_c": np.array([0, 2, 1])}, shapes, outputs=3)
    assert [part.tolist() for part in found] == [[], [0, 1], [2]]


def test_slopes_have_any_shape_that_is_broadcast(tmp_path):
    x = np.array([[-1, 2], [-3, -4]], np.float32)
    slope = np.array([[0.5], [2.0]], np.float32)
    (found,) = _run(tmp_path, "PRelu", {"x": x, "s_c": slope}, [(TensorProto.FLOAT, (2, 2))], 16)
    assert found.tolist() == [[-0.5, 2], [-6, -8]]


def test_constants_have_all_their_forms(tmp_path):
    for name, value in (("value_int", 7), ("value_ints", [1, 2]), ("value_float", 0.5), ("value_floats", [0.25, 4.0])):
        kind = TensorProto.INT64 if "int" in name else TensorProto.FLOAT
        (found,) = _run(tmp_path, "Constant", {}, [(kind, np.shape(value))], **{name: value})
        assert found.tolist() == value


def test_a_border_has_a_value_that_is_computed(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    inputs = {"x": x, "p_c": np.array([1, -1]), "v": np.float32(7), "a_c": np.array([-1])}
    (found,) = _run(tmp_path, "Pad", inputs, [(TensorProto.FLOAT, (2, 3))])
    assert found.tolist() == [[7, 0, 1], [7, 3, 4]]
