"""What is trained and what is not, and that files get back what they had: integers as integers, zeros as zeros."""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx import helper
from students import FLOAT, classifier, saved

from nncc.distillation.weights import find_weights, write_weights
from nncc.passes.rewriting import constant


def names(path, **choices):
    return {weight.name: weight for weight in find_weights(onnx_ir.load(path), **choices)}


def test_weights_and_biases_are_trained_and_shapes_are_not(tmp_path):
    assert set(names(classifier(tmp_path / "m.onnx"))) == {"w1", "b1", "w2", "b2"}


def test_numbers_of_the_function_itself_are_not_trained(tmp_path):
    """A scalar factor, a mean that is taken off, a mask, statistics of a batch norm."""
    rng = np.random.default_rng(0)
    row = rng.standard_normal((1, 3)).astype(np.float32)
    constants = {
        "half": np.float32(0.5), "mean": row, "mask": np.where(row > 0, np.float32(-1e9), row), "row": row,
        **{name: np.abs(row[0]) for name in ("gamma", "beta", "average", "variance")},
    }  # fmt: skip
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["a"]),
        helper.make_node("Sub", ["a", "mean"], ["b"]),
        helper.make_node("Add", ["b", "mask"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "average", "variance"], ["d"]),
        helper.make_node("Identity", ["row"], ["same"]),
        helper.make_node("Add", ["d", "same"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, [("x", FLOAT, ["N", 3])], [("y", FLOAT, ["N", 3])], constants)
    assert set(names(path)) == {"gamma", "beta", "row"}


def quantized(path, integers, scale, zero_point, **attributes):
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["w"], **attributes),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {"q": integers, "scale": scale, "zero_point": zero_point}
    rows, columns = integers.shape
    return saved(path, nodes, [("x", FLOAT, ["N", rows])], [("y", FLOAT, ["N", columns])], constants, 21)


def test_integers_are_trained_as_real_numbers_and_stored_as_integers(tmp_path):
    rng = np.random.default_rng(0)
    integers = rng.integers(-127, 128, (4, 6)).astype(np.int8)
    scale = rng.uniform(0.01, 0.1, 6).astype(np.float32)
    path = quantized(tmp_path / "m.onnx", integers, scale, np.zeros(6, np.int8), axis=1)
    weight = names(path)["q"]
    np.testing.assert_array_equal(weight.start, integers * scale)
    np.testing.assert_array_equal(weight.stored(weight.start), integers)
    beyond = weight.stored(np.full((4, 6), -99, np.float32))
    assert beyond.dtype == np.int8 and (beyond == -127).all(), "-128 stays unused where it was"
    graph = onnx_ir.load(path)
    write_weights(graph, (weight,), {"q": weight.start + scale})
    found = constant(graph.graph.initializers["q"])
    np.testing.assert_array_equal(found, np.minimum(integers.astype(int) + 1, 127))


def test_zero_points_and_blocks_belong_to_the_grid(tmp_path):
    rng = np.random.default_rng(1)
    integers = rng.integers(0, 256, (4, 6)).astype(np.uint8)
    scale, zero_point = rng.uniform(0.01, 0.1, (2, 6)).astype(np.float32), rng.integers(0, 256, (2, 6)).astype(np.uint8)
    weight = names(quantized(tmp_path / "m.onnx", integers, scale, zero_point, axis=0, block_size=2))["q"]
    spread = [np.repeat(each.astype(np.float32), 2, 0) for each in (scale, zero_point)]
    np.testing.assert_array_equal(weight.start, (integers - spread[1]) * spread[0])
    np.testing.assert_array_equal(weight.stored(weight.start), integers)


def test_zeros_are_a_pattern_from_their_share_on(tmp_path):
    """One of 216 weights may be zero by chance; a block of them is none, unless the caller says so."""
    path = classifier(tmp_path / "m.onnx")
    model = onnx_ir.load(path)

    def with_zeros(rows):
        value = model.graph.initializers["w1"]
        array = np.array(constant(value))
        array.reshape(8, -1)[:rows, : 1 if rows == 1 else 27] = 0
        value.const_value = onnx_ir.tensor(array, name="w1")
        onnx_ir.save(model, path)

    with_zeros(1)
    assert names(path)["w1"].keep is None
    with_zeros(2)
    keep = names(path)["w1"].keep
    assert keep is not None and (keep == 0).sum() == 54 and keep.reshape(8, -1)[2:].all()
    assert names(path, keep_zeros=False)["w1"].keep is None


def test_integers_want_a_larger_share_of_zeros(tmp_path):
    integers = np.arange(-12, 12).reshape(4, 6).astype(np.int8)
    integers[0, :3] = 0
    some = names(quantized(tmp_path / "a.onnx", integers, np.float32(0.1), np.int8(0)))["q"]
    integers[:2] = 0
    many = names(quantized(tmp_path / "b.onnx", integers, np.float32(0.1), np.int8(0)))["q"]
    assert some.keep is None and many.keep is not None and (many.keep == 0).sum() == 13
