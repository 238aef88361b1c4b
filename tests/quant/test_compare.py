"""Comparison layer by layer: which tensors are paired, and that the figures are those of the tensors."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from quant_models import images, lopsided

from nncc.errors import DataError, ModelError
from nncc.frontend.read_graph import read_graph
from nncc.quant import compare
from nncc.quant.calibrate import collect
from nncc.quant.compare import compare_models
from nncc.quant.correspond import correspondence
from nncc.quant.quantize import prepare, quantize
from nncc.quant.recipe import Recipe
from nncc.quant.samples import input_specs, read_samples
from nncc.reports.compare import compare_facts, compare_text

VALUE = helper.make_tensor_value_info


def model(nodes, constants=None, outputs=("y",), shape=(1, 2, 4, 4)):
    """A graph from x of `shape`."""
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, name=outs[0] + "_node", **attrs) for op, ins, outs, attrs in nodes],
        "made",
        [VALUE("x", TensorProto.FLOAT, shape)],
        [VALUE(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    return onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.fixture
def lopsided_pair(tmp_path):
    """A float graph, its quantized form, and samples."""
    graph = read_graph(lopsided(tmp_path / "l.onnx"))
    samples = read_samples(images(tmp_path / "c.npz"), input_specs(graph))
    prepared = prepare(graph)
    return graph, quantize(prepared, collect(prepared, samples, Recipe()), Recipe()), samples


WEIGHT = np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32)
SAMPLES = [{"x": np.random.default_rng(seed).standard_normal((1, 2, 4, 4)).astype(np.float32)} for seed in range(3)]
SCALE = {"s": np.float32(0.05), "z": np.uint8(128)}


def rounded(array):
    """What QuantizeLinear and DequantizeLinear make of it, by SCALE."""
    steps = np.clip(np.rint(array / np.float32(0.05)) + 128, 0, 255) - 128
    return (steps * np.float32(0.05)).astype(np.float32)


FLOAT = model([("Conv", ["x", "w"], ["h"], {}), ("Relu", ["h"], ["r"], {}), ("Neg", ["r"], ["y"], {})], {"w": WEIGHT})


def test_figures_are_those_of_the_dequantized_tensors_over_all_samples():
    other = model(
        [
            ("Conv", ["x", "w"], ["h"], {}),
            ("Relu", ["h"], ["r"], {}),
            ("QuantizeLinear", ["r", "s", "z"], ["q"], {}),
            ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
            ("Neg", ["d"], ["y"], {}),
        ],
        {"w": WEIGHT, **SCALE},
    )
    found = compare_models(FLOAT, other, SAMPLES)
    assert [(each.name, each.op_type) for each in found.layers] == [("h", "Conv"), ("r", "Relu"), ("y", "Neg")]
    h, r, y = found.layers
    assert (h.sqnr_db, h.cosine, h.max_error) == (math.inf, 1.0, 0.0)
    exact = np.stack([np.maximum(np.einsum("oihw,nixy->noxy", WEIGHT, s["x"]), 0) for s in SAMPLES])
    error = exact - rounded(exact)
    # Its own convolution adds up in another order: 1e-6 of a value may fall on the other side of a step.
    assert r.sqnr_db == pytest.approx(10 * np.log10((exact**2).sum() / (error**2).sum()), abs=0.2)
    assert r.max_error == pytest.approx(abs(error).max(), abs=1e-4)
    assert y.sqnr_db == pytest.approx(r.sqnr_db) and found.outputs[0].sqnr_db == pytest.approx(r.sqnr_db)
    assert found.first_below(60.0) == r and found.first_below(1.0) is None


def test_a_relu_that_rounding_does_as_well_is_paired_with_what_is_rounded():
    above_zero = {"s": np.float32(0.02), "z": np.uint8(0)}
    other = model(
        [
            ("Conv", ["x", "w"], ["h"], {}),
            ("QuantizeLinear", ["h", "s", "z"], ["q"], {}),
            ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
            ("Neg", ["d"], ["y"], {}),
        ],
        {"w": WEIGHT, **above_zero},
    )
    found = compare_models(FLOAT, other, SAMPLES)
    assert [each.name for each in found.layers] == ["r", "y"]
    assert found.layers[0].sqnr_db > 25
    alone = compare_models(FLOAT, other, SAMPLES, isolate=True)
    assert alone.layers[0].sqnr_db > 25 and alone.layers[1].sqnr_db == math.inf


def test_a_folded_batch_norm_is_paired_with_the_convolution_that_took_it():
    statistics = {
        name: np.float32(value) for name, value in zip("gbmv", ([2, 3], [1, -1], [0.5, 0], [4, 1]), strict=True)
    }
    norm = model(
        [
            ("Conv", ["x", "w"], ["h"], {}),
            ("BatchNormalization", ["h", "g", "b", "m", "v"], ["n"], {"epsilon": 0.0}),
            ("Relu", ["n"], ["y"], {}),
        ],
        {"w": WEIGHT, **statistics},
    )
    scale = statistics["g"] / np.sqrt(statistics["v"])
    folded = model(
        [("Conv", ["x", "w", "c"], ["h"], {}), ("Relu", ["h"], ["y"], {})],
        {"w": WEIGHT * scale[:, None, None, None], "c": statistics["b"] - statistics["m"] * scale},
    )
    found = compare_models(norm, folded, SAMPLES)
    assert [(each.name, each.op_type) for each in found.layers] == [("n", "BatchNormalization"), ("y", "Relu")]
    assert all(each.sqnr_db > 100 for each in found.layers)


def test_integers_of_qlinear_operators_are_dequantized():
    integers = np.array([[[[64]], [[-32]]], [[[16]], [[127]]]], np.int8)
    weight = (integers * np.float32(0.01)).astype(np.float32)
    float_model = model([("Conv", ["x", "w"], ["h"], {}), ("Flatten", ["h"], ["y"], {})], {"w": weight})
    scales = {"s": np.float32(0.05), "z": np.uint8(128), "ws": np.float32(0.01), "wz": np.int8(0)}
    other = model(
        [
            ("QuantizeLinear", ["x", "s", "z"], ["x_quantized"], {}),
            ("QLinearConv", ["x_quantized", "s", "z", "wq", "ws", "wz", "s", "z"], ["h_quantized"], {}),
            ("Flatten", ["h_quantized"], ["y_quantized"], {}),
            ("DequantizeLinear", ["y_quantized", "s", "z"], ["y"], {}),
        ],
        {"wq": integers, **scales},
    )
    for isolate in (False, True):
        found = compare_models(float_model, other, SAMPLES, isolate=isolate)
        assert [each.name for each in found.layers] == ["h", "y"]
        # One step of 0.05 off at most, for the input's rounding and the output's.
        assert found.layers[0].max_error < 0.1 and found.layers[0].sqnr_db > 20


def test_without_common_names_operators_are_aligned_by_their_order():
    other = model(
        [
            ("Identity", ["x"], ["0"], {}),
            ("Conv", ["0", "w"], ["1"], {}),
            ("Relu", ["1"], ["2"], {}),
            ("Neg", ["2"], ["out"], {}),
        ],
        {"w": WEIGHT * np.float32(1.01)},
        outputs=("out",),
    )
    found = compare_models(FLOAT, other, SAMPLES)
    assert [(each.name, each.by) for each in found.layers] == [(name, "position") for name in "hry"]
    # x against 1.01 x: 20 log10(100) dB.
    assert [each.sqnr_db for each in found.layers] == pytest.approx([40.0] * 3, abs=0.01)
    assert found.outputs[0].name == "y"


def test_isolated_layers_are_charged_with_their_own_error_only():
    wrong = WEIGHT.copy()
    wrong[0] *= 2
    nodes = [("Conv", ["x", "w"], ["h"], {}), ("Conv", ["h", "v"], ["k"], {}), ("Conv", ["k", "w"], ["y"], {})]
    ours, theirs = model(nodes, {"w": WEIGHT, "v": WEIGHT}), model(nodes, {"w": WEIGHT, "v": wrong})
    together, alone = (compare_models(ours, theirs, SAMPLES, isolate=isolate) for isolate in (False, True))
    assert [each.sqnr_db == math.inf for each in together.layers] == [True, False, False]
    assert [each.sqnr_db == math.inf for each in alone.layers] == [True, False, True]
    assert alone.layers[1] == together.layers[1]


def test_integers_of_shape_arithmetic_are_no_layers():
    nodes = [
        ("Conv", ["x", "w"], ["h"], {}),
        ("Shape", ["h"], ["s"], {}),
        ("Identity", ["s"], ["t"], {}),
        ("Reshape", ["h", "t"], ["y"], {}),
    ]
    ours, theirs = model(nodes, {"w": WEIGHT}), model(nodes, {"w": WEIGHT * np.float32(1.01)})
    for isolate in (False, True):
        found = compare_models(ours, theirs, SAMPLES, isolate=isolate)
        assert [each.name for each in found.layers] == ["h", "y"]
    assert [each.sqnr_db for each in found.layers] == [pytest.approx(40, abs=0.01), math.inf]


def test_the_layer_that_reads_a_lopsided_tensor_is_where_it_falls(lopsided_pair):
    found = compare_models(*lopsided_pair)
    first = found.first_below(20.0)
    assert first is not None and first.name in ("c", "d")
    layer, before = found.steepest()
    assert layer.name in ("c", "d") and before > 30 > layer.sqnr_db


def test_few_tensors_are_held_at_a_time(lopsided_pair, monkeypatch):
    whole = compare_models(*lopsided_pair)
    monkeypatch.setattr(compare, "MOST_BYTES", 4 * 8 * 8 * 8)
    assert compare_models(*lopsided_pair) == whole
    alone = compare_models(*lopsided_pair, isolate=True)
    monkeypatch.undo()
    assert compare_models(*lopsided_pair, isolate=True) == alone


def test_every_product_has_a_pair(lopsided_pair):
    graph, other, _ = lopsided_pair
    names = {pair.name for pair in correspondence(graph, other)}
    assert {"d", "scores"} <= names and {"a", "b"} & names and {"c", "d"} & names


def test_nothing_in_common_is_an_error():
    other = model([("Shape", ["x"], ["a"], {}), ("Cast", ["a"], ["b"], {"to": 1})], outputs=("a", "b"))
    with pytest.raises(ModelError) as caught:
        compare_models(FLOAT, other, SAMPLES)
    assert caught.value.message == "the models have no tensor in common"
    assert caught.value.hint == "give the float model first, then what was made of it"
    renamed = helper.make_graph(
        [helper.make_node("Neg", ["u"], ["y"])], "r", [VALUE("u", 1, (1, 2))], [VALUE("y", 1, None)]
    )
    other = onnx_ir.from_proto(helper.make_model(renamed, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    with pytest.raises(ModelError) as caught:
        compare_models(FLOAT, other, SAMPLES)
    assert caught.value.message == "the second model has an input `u`, which the first has not; it has `x`"
    with pytest.raises(DataError) as data:
        compare_models(FLOAT, FLOAT, [])
    assert data.value.message == "there are no samples to compare the models on"


def test_the_report_has_the_worst_layers_first_and_says_where_it_falls(lopsided_pair):
    facts = compare_facts(compare_models(*lopsided_pair), 20.0)
    text = compare_text(facts, top=3)
    assert "the worst layers first, over 24 samples\n" in text
    assert f"first below 20 dB: {facts['first_below_threshold']};" in text
    shown = [line.split()[-1] for line in text.splitlines()[3:6]]
    worst = sorted((each for each in facts["layers"] if each["sqnr_db"] is not None), key=lambda each: each["sqnr_db"])
    assert shown == [each["tensor"] for each in worst[:3]]
    assert "better ones; `--top 0` shows all\n" in text and "outputs\n" in text


def test_the_report_says_equal_of_what_has_no_error():
    facts = compare_facts(compare_models(FLOAT, FLOAT, SAMPLES), 20.0)
    assert {each["sqnr_db"] for each in (*facts["layers"], *facts["outputs"])} == {None}
    text = compare_text(facts, 0)
    assert "no layer is below 20 dB\n" in text and text.count("equal") == 4
