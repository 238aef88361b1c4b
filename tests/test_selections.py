"""Outputs whose size the data say: NonZero, Compress, Unique, NonMaxSuppression."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from compiled import Net

import nncc
from nncc.errors import ModelError
from nncc.execute import open_library


def selected(net: Net, tmp_path, *runs: dict[str, np.ndarray]) -> nncc.runtime.loader.Module:
    """Compile, and compare every output of all runs with ONNX Runtime's, exactly; the library."""
    onnx.save(net.model(), tmp_path / "net.onnx")
    made = nncc.compile(tmp_path / "net.onnx", output=tmp_path / "out", threads=1, verify=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    module = nncc.load(made.library)
    for inputs in runs:
        for found, expected in zip(module.run(inputs).values(), session.run(None, inputs), strict=True):
            assert found.dtype == expected.dtype and np.array_equal(found, expected), inputs
    return module


def test_places_of_what_is_not_zero(tmp_path):
    net = Net()
    x = net.input(3, 4, 5, name="x")
    net.output(net.op("NonZero", x), net.op("NonZero", net.op("Relu", x)))
    random = np.random.default_rng(0)
    some = random.standard_normal((3, 4, 5), np.float32) * (random.random((3, 4, 5)) < 0.5)
    runs = [{"x": each.astype(np.float32)} for each in (some, np.zeros_like(some), np.ones_like(some), some)]
    module = selected(net, tmp_path, *runs)
    assert [(dim.low, dim.high, dim.from_data) for dim in module.dims] == [(0, 60, True)] * 2
    (path,) = tmp_path.glob("out/*.so")
    found = open_library(path).run(runs[0])
    assert [array.shape for array in found.values()] == [(3, np.count_nonzero(some)), (3, np.count_nonzero(some > 0))]


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_slices_that_a_condition_picks(tmp_path, axis):
    net = Net()
    x, condition = net.input(3, 4, 2, name="x"), net.input(3 if axis is not None else 20, dtype=bool, name="condition")
    net.output(net.op("Compress", x, condition, **({} if axis is None else {"axis": axis})))
    random = np.random.default_rng(0)
    length = 20 if axis is None else 3
    if axis == -1:
        length = 3  # longer than the axis: the rest does not count
    data = random.standard_normal((3, 4, 2), np.float32)
    conditions = [random.random(length) < 0.5, np.zeros(length, bool), np.ones(length, bool)]
    if axis in (None, -1):  # ONNX Runtime reads beyond the axis otherwise
        for each in conditions:
            each[2 if axis == -1 else 24 :] = False
    selected(net, tmp_path, *({"x": data, "condition": each} for each in conditions))


@pytest.mark.parametrize("sorted_", [0, 1])
@pytest.mark.parametrize(("axis", "dtype"), [(None, np.float32), (0, np.int64), (1, np.float32)])
def test_different_slices(tmp_path, sorted_, axis, dtype):
    net = Net()
    x = net.input(7, 4, dtype=dtype, name="x")
    attributes = {"sorted": sorted_} | ({} if axis is None else {"axis": axis})
    net.output(*net.op("Unique", x, outputs=4, **attributes))
    random = np.random.default_rng(0)
    few = random.integers(0, 2, (7, 4)).astype(dtype)
    selected(
        net, tmp_path, {"x": few}, {"x": np.zeros_like(few)}, {"x": np.arange(28).reshape(7, 4)[::-1].astype(dtype)}
    )


@pytest.mark.parametrize("center", [0, 1])
def test_boxes_that_do_not_overlap(tmp_path, center):
    net = Net()
    boxes, scores = net.input(2, 20, 4, name="boxes"), net.input(2, 3, 20, name="scores")
    most = net.input(1, dtype=np.int64, name="most")
    overlap, least = net.constant([0.3], np.float32), net.constant([0.2], np.float32)
    net.output(net.op("NonMaxSuppression", boxes, scores, most, overlap, least, center_point_box=center))
    random = np.random.default_rng(0)
    where, score = random.random((2, 20, 4), np.float32), random.random((2, 3, 20), np.float32)
    runs = [{"boxes": where, "scores": score, "most": np.array([n])} for n in (0, 1, 3, 100)]
    selected(net, tmp_path, *runs, {"boxes": where, "scores": 0 * score, "most": np.array([5])})


def test_open_dimensions_too_are_refused(tmp_path):
    net = Net()
    net.output(net.op("NonZero", net.input("N", 3, name="x")))
    onnx.save(net.model(), tmp_path / "net.onnx")
    for general in (True, False):
        with pytest.raises(ModelError) as caught:
            nncc.compile(tmp_path / "net.onnx", range={"N": (1, 4)}, buckets={"N": (2,)}, general=general)
        assert caught.value.message == (
            "the size of output `NonZero_1` depends on the data, which cannot be compiled with open dimensions"
        )
        assert caught.value.hint == "compile a library for each size, with `--shape`"


def test_what_others_use_is_refused(tmp_path):
    net = Net()
    net.output(net.op("ReduceMax", net.op("NonZero", net.input(3, name="x")), keepdims=0))
    onnx.save(net.model(), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        nncc.compile(tmp_path / "net.onnx", verify=False, until="specialize")
    assert caught.value.message == (
        "NonZero `NonZero_1` selects as many elements as the data say, which can be compiled for outputs of the model "
        "only"
    )
    assert caught.value.hint == "cut the model behind it, and make what it selects an output"
