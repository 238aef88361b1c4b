"""Precisions other than static int8, and the steps that make int8 accurate."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from small_models import node_of, ops, parse, quantized, samples, small_cnn, weights

from nncc.errors import UsageError
from nncc.passes.rewriting import constant
from nncc.quant.calibrate import collect
from nncc.quant.equalize import equalize
from nncc.quant.measure import sqnr_db
from nncc.quant.quantize import prepare, quantize
from nncc.quant.recipe import Recipe
from nncc.quant.reconstruct import round_by_least_squares


def two_products() -> onnx_ir.Model:
    return parse(
        """g (float[N,70] x) => (float[N,5] y) {
            h = MatMul (x, A)
            b = Add (h, c)
            r = Relu (b)
            y = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (r, B, d)
        }""",
        {"A": weights(70, 20), "c": weights(20), "B": weights(5, 20), "d": weights(5)},
    )


@pytest.mark.parametrize(
    ("precision", "least_db"),
    # Steps of 1/127 and of 1/7 of the largest weight, about 3 sigma: noise of 1/147 and 1/8 sigma, 43 dB and 18 dB;
    # float16 has 11 bits, bfloat16 8, of each number: 72 and 54 dB. A few decibels are left for two layers in a row.
    [("weight_int8", 36), ("weight_int4", 13), ("weight_float16", 65), ("weight_bfloat16", 47), ("dynamic", 35)],
)
def test_a_precision_without_calibration_is_close(precision, least_db):
    prepared = prepare(two_products())
    result = quantize(prepared, None, Recipe(precision=precision, group_size=16))
    assert sqnr_db(prepared, result, samples(x=(3, 70))) > least_db
    assert "QuantizeLinear" not in ops(result)


def test_int4_has_a_scale_for_each_group_along_the_reduction():
    result = quantize(prepare(two_products()), None, Recipe(precision="weight_int4", group_size=16))
    for op, axis, shape in (("MatMul", 0, (5, 20)), ("Gemm", 1, (5, 2))):
        node = node_of(result, op).inputs[1].producer()
        assert (node.attributes["axis"].value, node.attributes["block_size"].value) == (axis, 16)
        assert node.inputs[0].dtype == onnx_ir.DataType.INT4
        assert constant(node.inputs[1]).shape == shape
    assert result.opset_imports[""] == 21


def test_dynamic_multiplies_integers():
    result = quantize(prepare(two_products()), None, Recipe(precision="dynamic"))
    assert ops(result).count("DynamicQuantizeLinear") == ops(result).count("MatMulInteger") == 2


def test_precisions_mix_by_name():
    prepared = prepare(small_cnn())
    names = [node.name for node in prepared.graph if node.op_type in ("Conv", "Gemm")]
    recipe = Recipe(nodes={names[0]: "weight_float16", names[2]: "weight_int8"})
    result = quantize(prepared, collect(prepared, samples(x=(1, 3, 9, 10)), recipe), recipe)
    assert node_of(result, "Conv", 0).inputs[1].producer().op_type == "Cast"
    assert node_of(result, "Conv", 1).inputs[0].producer().op_type == "DequantizeLinear"
    assert node_of(result, "Gemm").inputs[0].producer().op_type != "DequantizeLinear"


def test_a_precision_that_does_not_fit_a_named_node_is_refused():
    prepared = prepare(small_cnn())
    name = node_of(prepared, "Conv").name
    with pytest.raises(UsageError) as caught:
        quantize(prepared, None, Recipe(precision="weight_int8", nodes={name: "dynamic"}))
    assert caught.value.message == f"`{name}`, a Conv, cannot be dynamic"
    assert caught.value.hint == "dynamic is for MatMul and Gemm, weight_* for layers with constant weights"


def test_int8_without_statistics_is_refused():
    with pytest.raises(UsageError) as caught:
        quantize(prepare(small_cnn()), None, Recipe())
    assert caught.value.message == "int8 needs statistics of the activations"
    assert caught.value.hint == "give calibration samples, or another precision"


def uneven(spread: float = 30.0) -> onnx_ir.Model:
    """Two layers whose channels differ in range, which one scale for all of them cannot serve."""
    by = np.geomspace(1 / spread, spread, 12, dtype=np.float32)
    return parse(
        """g (float[1,4,8,8] x) => (float[1,3,8,8] y) {
            c = Conv (x, A, a)
            r = Relu (c)
            y = Conv (r, B)
        }""",
        {
            "A": weights(12, 4, 1, 1) * by.reshape(-1, 1, 1, 1),
            "a": weights(12) * by,
            "B": weights(3, 12, 1, 1) / by.reshape(-1, 1, 1),
        },
    )


def test_equalization_changes_no_output_and_makes_channels_alike():
    graph = prepare(uneven())
    even = equalize(graph)
    # Weights are rounded to float32 once more in each of at most 20 rounds: 20 * 2^-24 is -118 dB.
    assert sqnr_db(graph, even, samples(x=(1, 4, 8, 8))) > 110
    first = np.abs(constant(node_of(even, "Conv").inputs[1])).max(axis=(1, 2, 3))
    second = np.abs(constant(node_of(even, "Conv", 1).inputs[1])).max(axis=(0, 2, 3))
    assert np.allclose(first, second, rtol=0.03)  # it stops where factors are within 1 % of 1


def test_equalization_helps_where_layers_have_one_scale():
    inputs = samples(x=(1, 4, 8, 8))
    plain = Recipe(per_channel=False, correct_bias=False, reconstruct=False)
    found = {}
    for step in (False, True, "auto"):
        prepared, result, _ = quantized(uneven(), inputs, Recipe(**{**vars(plain), "equalize": step}))
        found[step] = sqnr_db(prepared, result, inputs)
    assert found[True] > found[False] + 10
    assert found["auto"] == found[True]


def test_auto_is_never_worse_than_none_of_the_steps():
    inputs = samples(6, x=(1, 3, 9, 10))
    recipe = Recipe(equalize="auto", correct_bias="auto", reconstruct="auto")
    prepared, automatic, _ = quantized(small_cnn(), inputs, recipe)
    _, plain, _ = quantized(small_cnn(), inputs, Recipe(equalize=False, correct_bias=False, reconstruct=False))
    assert sqnr_db(prepared, automatic, inputs) >= sqnr_db(prepared, plain, inputs)


def test_bias_correction_takes_the_mean_error_off():
    graph = parse(
        "g (float[1,16,8,8] x) => (float[1,4,8,8] y) { c = Conv (x, A) y = Relu (c) }", {"A": weights(4, 16, 3, 3)}
    )
    inputs = [{"x": np.abs(s["x"])} for s in samples(16, x=(1, 16, 8, 8))]  # a mean that rounding errors add up on
    errors = {}
    for step in (False, True):
        recipe = Recipe(correct_bias=step, reconstruct=False, per_channel=False)
        prepared, result, _ = quantized(graph, inputs, recipe)
        errors[step] = sqnr_db(prepared, result, inputs)
    assert errors[True] > errors[False]


@pytest.mark.parametrize("columns", [5, 200])
def test_least_squares_rounding_is_better_on_the_data_than_the_nearest(columns):
    rng = np.random.default_rng(0)
    data = rng.normal(0, 1, (2, columns, 4 * columns))
    data = data + 2 * rng.normal(0, 1, (2, 1, 4 * columns))  # correlated, as activations are
    weight = rng.normal(0, 1, (2, 3, columns))
    scale = np.broadcast_to(np.abs(weight).max(axis=2, keepdims=True) / 7, weight.shape)
    chosen = round_by_least_squares(weight, scale, data @ data.transpose(0, 2, 1))
    nearest = np.rint(weight / scale)
    errors = [np.square((weight - scale * q) @ data).sum() for q in (chosen, nearest)]
    assert errors[0] < 0.7 * errors[1]


def test_least_squares_rounding_leaves_zeros_zero():
    """Kernels skip them; errors of other columns go to those that are not zero."""
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 1, (1, 3, 40)) * (rng.random((1, 3, 40)) < 0.5)
    data = rng.normal(0, 1, (1, 40, 90)) + 2 * rng.normal(0, 1, (1, 1, 90))
    chosen = round_by_least_squares(weight, np.full(weight.shape, 0.2), data @ data.transpose(0, 2, 1))
    assert not chosen[weight == 0].any()
    errors = [np.square((weight - 0.2 * q) @ data).sum() for q in (chosen, np.rint(weight / 0.2))]
    assert errors[0] < 0.7 * errors[1]


def test_least_squares_rounding_without_data_is_the_nearest():
    weight = np.random.default_rng(0).normal(0, 1, (1, 3, 7))
    scale = np.full(weight.shape, 0.02)
    assert np.array_equal(round_by_least_squares(weight, scale, np.zeros((1, 7, 7))), np.rint(weight / scale))


def test_rounding_by_least_squares_is_the_same_in_any_unit_of_the_inputs():
    """Powers of two are exact; squares of the large ones are beyond float32."""
    net = parse("g (float[N,70] x) => (float[N,20] y) { y = MatMul (x, A) }", {"A": weights(70, 20)})
    inputs = samples(x=(4, 70))
    found = []
    for unit in (1.0, 2.0**70, 2.0**-70):
        scaled = [{"x": sample["x"] * np.float32(unit)} for sample in inputs]
        _, result, _ = quantized(net, scaled, Recipe(correct_bias=False))
        weight = node_of(result, "MatMul").inputs[1].producer()
        found.append(constant(weight.inputs[0]))
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    _, result, _ = quantized(net, inputs, Recipe(correct_bias=False, reconstruct=False))
    assert not np.array_equal(found[0], constant(node_of(result, "MatMul").inputs[1].producer().inputs[0]))
