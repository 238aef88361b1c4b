"""Operators that compute along an open axis, of what is selected alone; selections of what is selected."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from compiled import Net
from test_selections import selected

from nncc.errors import ModelError

RANDOM = np.random.default_rng(0)


def numbers(*least: float) -> list[dict[str, np.ndarray]]:
    """Runs of a model that selects the rows of x whose first element is above a number."""
    x = RANDOM.standard_normal((9, 4), np.float32)
    return [{"x": x, "least": np.array([each], np.float32)} for each in least]


def rows(net: Net) -> str:
    """Of x [9, 4], the rows whose first element is above `least`."""
    x, least = net.input(9, 4, name="x"), net.input(1, name="least")
    first = net.op("Gather", x, net.constant(np.int64(0)), axis=1)
    places = net.op("NonZero", net.op("Greater", first, least))
    return net.op("Gather", x, net.op("Squeeze", places, net.ints(0)), axis=0)


def test_reductions_along_the_open_axis(tmp_path):
    net = Net()
    y = rows(net)
    net.output(net.op("ReduceSum", y, net.ints(0)), net.op("ReduceMax", y, axes=[0], keepdims=0))
    net.output(net.op("ReduceMean", y, axes=[0]), net.op("ArgMax", y, axis=0), net.op("ReduceMin", y, axes=[0, 1]))
    net.output(net.op("Softmax", net.op("Transpose", y, perm=[1, 0]), axis=-1))
    selected(net, tmp_path, *numbers(-9, 0, 0.5), tolerance=1e-6)


def test_the_shape_of_what_is_selected(tmp_path):
    net = Net()
    y = rows(net)
    net.output(net.op("Shape", y), net.op("Cast", net.op("Shape", y), to=onnx.TensorProto.FLOAT))
    selected(net, tmp_path, *numbers(-9, 0, 9))


def test_the_first_of_what_is_selected(tmp_path):
    net = Net()
    y = rows(net)
    net.output(net.op("Relu", net.op("Slice", y, net.ints(1), net.ints(3), net.ints(0))), y)
    selected(net, tmp_path, *numbers(-9, 0, 1.0, 9))


def test_selections_of_what_is_selected(tmp_path):
    """Rows by a condition on rows that were selected by another."""
    net = Net()
    y = rows(net)
    last = net.op("Gather", y, net.constant(np.int64(3)), axis=1)
    positive = net.op("Greater", last, net.constant(np.float32(0)))
    z = net.op("Compress", y, positive, axis=0)
    net.output(net.op("Neg", z), net.op("ReduceSum", z, net.ints(0)), net.op("NonZero", net.op("Relu", y)))
    selected(net, tmp_path, *numbers(-9, 0, 9), tolerance=1e-6)


def test_a_detector_that_filters_before_it_suppresses(tmp_path):
    """Boxes with a score above a threshold; of these, those that do not overlap; of those, the first four."""
    net = Net()
    boxes, scores = net.input(30, 4, name="boxes"), net.input(30, name="scores")
    sure = net.op("Squeeze", net.op("NonZero", net.op("Greater", scores, net.constant(np.float32(0.5)))), net.ints(0))
    some, their = net.op("Gather", boxes, sure), net.op("Gather", scores, sure)
    limits = net.ints(20), net.constant([0.3], np.float32)
    places = net.op(
        "NonMaxSuppression", net.op("Unsqueeze", some, net.ints(0)), net.op("Unsqueeze", their, net.ints(0, 1)), *limits
    )
    kept = net.op("Slice", net.op("Gather", places, net.constant(np.int64(2)), axis=1), net.ints(0), net.ints(4))
    net.output(net.op("Gather", some, kept), net.op("Gather", their, kept))
    runs = [
        {"boxes": RANDOM.random((30, 4), np.float32), "scores": RANDOM.random(30, np.float32) * top}
        for top in (1, 1, 0.4)
    ]
    selected(net, tmp_path, *({name: array.astype(np.float32) for name, array in run.items()} for run in runs))


@pytest.mark.parametrize("kind", ["TopK", "MatMul"])
def test_what_is_not_masked_is_refused(tmp_path, kind):
    net = Net()
    y = rows(net)
    made = (
        net.op("TopK", y, net.ints(2), axis=0, outputs=2)[0]
        if kind == "TopK"
        else net.op("MatMul", net.weight(3, 9), y)
    )
    net.output(made)
    with pytest.raises(ModelError) as caught:
        selected(net, tmp_path)
    assert caught.value.message.endswith("as much as the data say: how much is selected decides what it computes")
