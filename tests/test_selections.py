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


def selected(net: Net, tmp_path, *runs: dict[str, np.ndarray], tolerance: float = 0.0) -> nncc.runtime.loader.Module:
    """Compile, and compare every output of all runs with ONNX Runtime's, exactly or up to `tolerance`; the library."""
    onnx.save(net.model(), tmp_path / "net.onnx")
    made = nncc.compile(tmp_path / "net.onnx", output=tmp_path / "out", threads=1, verify=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    module = nncc.load(made.library)
    for inputs in runs:
        for found, expected in zip(module.run(inputs).values(), session.run(None, inputs), strict=True):
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert np.allclose(found, expected, rtol=tolerance, atol=tolerance), inputs
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


def detections(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "boxes": random.random((1, 30, 4), np.float32),
        "scores": random.random((1, 3, 30), np.float32) * random.choice([0.1, 1]).astype(np.float32),
    }


def test_boxes_classes_and_scores_of_what_a_detector_selects(tmp_path):
    """What exporters put behind NonMaxSuppression: the columns of its places, and rows of tensors by these."""
    net = Net()
    boxes, scores = net.input(1, 30, 4, name="boxes"), net.input(1, 3, 30, name="scores")
    limits = net.ints(5), net.constant([0.4], np.float32), net.constant([0.3], np.float32)
    places = net.op("NonMaxSuppression", boxes, scores, *limits)
    columns = [net.op("Gather", places, net.ints(at), axis=1) for at in (1, 2)]
    classes, which = (net.op("Squeeze", column, net.ints(1)) for column in columns)
    rows = net.op("Gather", net.op("Squeeze", boxes, net.ints(0)), which, axis=0)
    found = net.op("GatherND", scores, places)
    detected = net.op("Concat", rows, net.op("Unsqueeze", found, net.ints(1)), axis=1)
    net.output(net.op("Mul", detected, net.constant(np.float32(2))), net.op("Cast", classes, to=onnx.TensorProto.INT32))
    random = np.random.default_rng(0)
    module = selected(
        net, tmp_path, *(detections(random) for _ in range(6)), {name: 0 * a for name, a in detections(random).items()}
    )
    assert [(dim.low, dim.high, dim.from_data) for dim in module.dims] == [(0, 15, True)], "five of each class"


def test_elements_that_are_not_zero(tmp_path):
    """As PyTorch exports a mask as an index; the places too are an output, which is not in the order of the axes."""
    net = Net()
    x = net.input(4, 5, name="x")
    places = net.op("NonZero", net.op("Relu", x))
    rows = net.op("Transpose", places, perm=[1, 0])
    net.output(net.op("GatherND", x, rows), places, net.op("Mul", places, net.constant(np.int64(3))))
    random = np.random.default_rng(0)
    runs = [{"x": random.standard_normal((4, 5), np.float32)} for _ in range(3)]
    selected(net, tmp_path, *runs, {"x": np.zeros((4, 5), np.float32)}, {"x": np.ones((4, 5), np.float32)})


@pytest.mark.parametrize("axis", [0, 1])
def test_slices_go_through_layers(tmp_path, axis):
    """A product, a softmax, sums: rows of which some are selected, along an axis that is the first or not."""
    net = Net()
    x, condition = net.input(6, 7, 8, name="x"), net.input(6 + axis, dtype=bool, name="condition")
    y = net.op("Compress", x, condition, axis=axis)
    y = net.op("Softmax", net.op("Add", net.op("MatMul", y, net.weight(8, 5)), net.weight(5)), axis=-1)
    halves = net.op("Split", y, net.ints(2, 3), axis=2, outputs=2)
    net.output(net.op("ReduceSum", halves[1], net.ints(2), keepdims=0), net.op("Exp", y), y)
    random = np.random.default_rng(0)
    data, length = random.standard_normal((6, 7, 8), np.float32), 6 + axis
    runs = [random.random(length) < 0.5, np.zeros(length, bool), np.ones(length, bool)]
    selected(net, tmp_path, *({"x": data, "condition": each} for each in runs), tolerance=1e-6)


def test_different_elements_sorted_and_counted(tmp_path):
    net = Net()
    values, _, _, counts = net.op("Unique", net.input(20, dtype=np.int64, name="x"), outputs=4)
    net.output(
        net.op("Mul", values, counts),
        net.op("Reshape", values, net.ints(-1, 1)),
        net.op("CumSum", counts, net.constant(np.int64(0))),
    )
    random = np.random.default_rng(0)
    selected(net, tmp_path, *({"x": random.integers(0, most, 20)} for most in (1, 4, 50)))


def test_equal_selections_are_one(tmp_path):
    """Exporters write NonZero once for each use."""
    net = Net()
    x = net.input(3, 4, name="x")
    first, second = (net.op("Gather", net.op("NonZero", x), net.constant(np.int64(at))) for at in (0, 1))
    net.output(net.op("Add", first, second))
    selected(net, tmp_path, {"x": np.eye(3, 4, dtype=np.float32)}, {"x": np.zeros((3, 4), np.float32)})


def test_each_stage_agrees_with_onnx_runtime(tmp_path):
    net = Net()
    places = net.op("NonZero", net.op("Relu", net.input(4, 5, name="x")))
    net.output(net.op("Neg", net.op("Transpose", places, perm=[1, 0])))
    onnx.save(net.model(), tmp_path / "net.onnx")
    nncc.compile(tmp_path / "net.onnx", output=tmp_path / "out", threads=1, verify=True)


WHY = {
    "all elements": "another operand has as many elements as may be selected, not as many as are",
    "two selections": "its operands are open in several ways",
    "a product": "how much is selected decides what it computes",
}


@pytest.mark.parametrize("why", WHY)
def test_what_depends_on_how_much_is_selected_is_refused(tmp_path, why):
    net = Net()
    x = net.input(6, name="x")
    places = net.op("NonZero", x)
    makes = {
        "all elements": lambda: net.op("Add", places, net.constant(np.arange(6))),
        "two selections": lambda: net.op("Add", places, net.op("NonZero", net.op("Relu", x))),
        "a product": lambda: net.op("MatMul", places, net.constant(np.ones((6, 2), np.int64))),
    }
    made = makes[why]()
    net.output(made)
    onnx.save(net.model(), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        nncc.compile(tmp_path / "net.onnx", verify=False, until="import")
    operator = made.partition("_")[0]
    assert (
        caught.value.message == f"{operator} `{made}` uses what `{places}` selects, as much as the data say: {WHY[why]}"
    )
    assert caught.value.hint == "cut the model before it, and make what it uses an output"


def test_selections_in_control_flow_are_refused(tmp_path):
    net = Net()
    x, places = net.input(6, name="x"), None
    places = net.op("NonZero", x)
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", [places], ["negated"])],
        "then",
        [],
        [onnx.helper.make_tensor_value_info("negated", onnx.TensorProto.INT64, None)],
    )
    net.output(net.op("If", net.input(1, dtype=bool, name="condition"), then_branch=inner, else_branch=inner))
    onnx.save(net.model(), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        nncc.compile(tmp_path / "net.onnx", verify=False, until="import")
    assert caught.value.message.endswith("uses what `NonZero_1` selects, as much as the data say: control flow cannot")


def test_many_rows_of_open_length_are_refused(tmp_path):
    net = Net()
    x, condition = net.input(300, 4, name="x"), net.input(4, dtype=bool, name="condition")
    net.output(net.op("Neg", net.op("Compress", x, condition, axis=1)))
    onnx.save(net.model(), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        nncc.compile(tmp_path / "net.onnx", verify=False, until="flatten")
    assert caught.value.message == "output `Neg_2` has 300 rows of as many elements as the data say; nncc takes 256"
    assert caught.value.hint == "transpose it, so that this axis comes first"


@pytest.mark.parametrize(("axis", "step"), [(0, 1), (1, 1), (-1, 3)])
def test_slices_whose_ends_are_inputs(tmp_path, axis, step):
    """Places count from the end where they are negative, and beyond it they are the end."""
    net = Net()
    x, start, end = net.input(3, 7, 8, name="x"), *(net.input(1, dtype=np.int64, name=name) for name in ("from", "to"))
    y = net.op("Slice", x, start, end, net.ints(axis), net.ints(step))
    net.output(net.op("Relu", y), y)
    data = np.random.default_rng(0).standard_normal((3, 7, 8), np.float32)
    places = [(0, 2), (1, 100), (-2, 7), (-100, -1), (2, 2), (3, 1)]
    module = selected(net, tmp_path, *({"x": data, "from": np.array([a]), "to": np.array([b])} for a, b in places))
    assert [(dim.low, dim.from_data) for dim in module.dims] == [(0, True)], "of both outputs"


def test_as_many_of_the_largest_as_an_input_says(tmp_path):
    net = Net()
    scores, k, boxes = (
        net.input(20, name="scores"),
        net.input(1, dtype=np.int64, name="k"),
        net.input(20, 4, name="boxes"),
    )
    values, places = net.op("TopK", scores, k, outputs=2)
    net.output(
        values,
        net.op("Mul", values, net.op("Cast", places, to=onnx.TensorProto.FLOAT)),
        net.op("Gather", boxes, places),
    )
    random = np.random.default_rng(0)
    given = {"scores": random.standard_normal(20, np.float32), "boxes": random.random((20, 4), np.float32)}
    module = selected(net, tmp_path, *(given | {"k": np.array([k])} for k in (0, 1, 7, 20)))
    assert len(module.dims) == 1, "values and places are as many"
