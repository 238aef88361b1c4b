"""A float model becomes a QDQ model: in the canonical form, close to the float one, the same bytes every time."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from small_models import node_of, ops, parse, quantized, samples, small_cnn, weights

from nncc.errors import ModelError, RunError, UsageError
from nncc.passes.rewriting import constant
from nncc.quant.calibrate import collect
from nncc.quant.execution import run
from nncc.quant.measure import sqnr_db
from nncc.quant.quantize import layers, prepare, quantize
from nncc.quant.recipe import Recipe

# Uniform rounding to 8 bits alone gives about 6.02*8 + 1.76 - 12 = 38 dB for normal data that fills a range of 8 sigma;
# a few layers in a row, each with weights and activations rounded, lose some of it. 25 dB is an error of 6 %.
CLOSE_DB = 25.0


def dequantized_from(value: onnx_ir.Value) -> onnx_ir.Node:
    node = value.producer()
    assert node is not None and node.op_type == "DequantizeLinear", value.name
    return node


def parameters(value: onnx_ir.Value) -> tuple[float, int]:
    node = dequantized_from(value)
    return float(constant(node.inputs[1])), int(constant(node.inputs[2]))


def test_every_operator_of_a_small_cnn_computes_on_integers():
    prepared, result, _ = quantized(small_cnn(), samples(x=(1, 3, 9, 10)))
    assert [node for node in ops(prepared) if node == "BatchNormalization"] == []
    for node in result.graph:
        if node.op_type in ("Conv", "Gemm", "Add", "GlobalAveragePool", "Flatten"):
            assert all(dequantized_from(value) for value in node.inputs)
        if node.op_type == "Conv":  # the Relu is between it and the next QuantizeLinear
            (relu,) = [user for user, _ in node.outputs[0].uses()]
            assert relu.op_type == "Relu"
            assert [user.op_type for user, _ in relu.outputs[0].uses()] == ["QuantizeLinear"]
    assert result.graph.outputs[0].dtype == onnx_ir.DataType.FLOAT
    assert sqnr_db(prepared, result, samples(x=(1, 3, 9, 10))) > CLOSE_DB


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_weights_are_symmetric_by_output_channel_and_biases_at_the_scale_of_the_sums(activations):
    recipe = Recipe(activations=activations)
    _, result, _ = quantized(small_cnn(), samples(x=(1, 3, 9, 10)), recipe)
    for node in result.graph:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        given, weight, bias = (dequantized_from(value) for value in node.inputs)
        integers, scale, zero = (constant(value) for value in weight.inputs)
        assert integers.dtype == np.int8 and integers.min() >= -127 and not zero.any()
        assert weight.attributes["axis"].value == (0 if node.op_type == "Conv" else 1)
        sums, bias_scale = constant(bias.inputs[0]), constant(bias.inputs[1])
        assert sums.dtype == np.int32 and len(bias.inputs) == 2
        assert np.array_equal(bias_scale, constant(given.inputs[1]) * scale)
        assert given.inputs[0].dtype == onnx_ir.DataType[activations.upper()]


def test_int8_and_uint8_activations_give_the_same_numbers():
    inputs = samples(x=(1, 3, 9, 10))
    found = [quantized(small_cnn(), inputs, Recipe(activations=a))[1] for a in ("uint8", "int8")]
    (unsigned,), (signed,) = (next(run(graph, ["y"], inputs[:1], optimized=False)) for graph in found)
    assert np.array_equal(unsigned, signed)


def test_open_dimensions_stay_open_and_samples_may_differ_in_size():
    graph = parse(
        "g (float[N,3,8,W] x) => (float[N,4,8,W] y) { c = Conv <pads = [1,1,1,1]> (x, W0) y = Sigmoid (c) }",
        {"W0": weights(4, 3, 3, 3)},
    )
    inputs = [*samples(2, x=(1, 3, 8, 10)), *samples(2, x=(2, 3, 8, 17))]
    prepared, result, _ = quantized(graph, inputs)
    assert [str(d) for d in result.graph.inputs[0].shape] == ["N", "3", "8", "W"]
    assert sqnr_db(prepared, result, inputs) > CLOSE_DB


def test_the_same_input_gives_the_same_bytes():
    recipe = Recipe(reconstruct=True, correct_bias=True)
    first, second = (quantized(small_cnn(), samples(x=(1, 3, 9, 10)), recipe)[1] for _ in range(2))
    assert onnx_ir.to_proto(first).SerializeToString() == onnx_ir.to_proto(second).SerializeToString()


def test_what_is_moved_keeps_its_scale():
    graph = parse(
        """g (float[1,4,8,8] x) => (float[1,4,n] y) {
            c = Conv (x, W)
            m = MaxPool <kernel_shape = [2,2]> (c)
            t = Transpose <perm = [0,2,3,1]> (m)
            r = Reshape (t, shape)
            y = MatMul (r, V)
        }""",
        {"W": weights(4, 4, 3, 3), "V": weights(4, 5), "shape": np.array([1, -1, 4])},
    )
    _, result, _ = quantized(graph, samples(x=(1, 4, 8, 8)))
    found = {parameters(node_of(result, op).inputs[0]) for op in ("MaxPool", "Transpose", "Reshape", "MatMul")}
    assert len(found) == 1


def concatenation(scale: float) -> onnx_ir.Model:
    return parse(
        """g (float[1,4,6,6] x) => (float[1,2,6,6] y) {
            a = Conv (x, A)
            b = Conv (x, B)
            c = Concat <axis = 1> (a, b)
            y = Conv (c, C)
        }""",
        {"A": weights(3, 4, 1, 1), "B": weights(3, 4, 1, 1) * np.float32(scale), "C": weights(2, 6, 1, 1)},
    )


@pytest.mark.parametrize(("scale", "count"), [(1.0, 1), (20.0, 3)])
def test_a_concat_shares_a_scale_where_its_inputs_are_alike(scale, count):
    _, result, _ = quantized(concatenation(scale), samples(x=(1, 4, 6, 6)))
    concat = node_of(result, "Concat")
    values = [*concat.inputs, node_of(result, "Conv", 2).inputs[0]]
    # The wider input and the output have the same range.
    assert len({parameters(value) for value in values}) == min(count, 2)


@pytest.mark.parametrize(
    "chain",
    [
        "s = Sigmoid (c) z = Mul (c, s)",
        "d = Div (c, root) e = Erf (d) f = Add (e, one) g = Mul (c, f) z = Mul (g, half)",
        "f = Add (c, three) e = Clip (f, zero, six) g = Mul (c, e) z = Div (g, six)",
    ],
    ids=["silu", "gelu", "hardswish"],
)
def test_within_a_function_of_one_value_nothing_is_quantized(chain):
    numbers = {"root": 2**0.5, "one": 1, "half": 0.5, "three": 3, "zero": 0, "six": 6}
    graph = parse(
        f"g (float[1,4,6,6] x) => (float[1,2,6,6] y) {{ c = Conv (x, A) {chain} y = Conv (z, C) }}",
        {k: np.float32(v) for k, v in numbers.items() if k in chain}
        | {"A": weights(3, 4, 1, 1), "C": weights(2, 3, 1, 1)},
    )
    prepared, result, _ = quantized(graph, samples(x=(1, 4, 6, 6)))
    assert ops(result).count("QuantizeLinear") == 4  # x, c, z, y
    assert dequantized_from(node_of(result, "Conv", 1).inputs[0])
    assert sqnr_db(prepared, result, samples(x=(1, 4, 6, 6))) > CLOSE_DB


def test_a_normalization_and_the_end_of_the_model_stay_float():
    graph = parse(
        """g (float[1,5,8] x) => (float[1,5,8] y) {
            h = MatMul (x, A)
            b = Add (h, bias)
            s = Add (x, b)
            n = LayerNormalization (s, gamma)
            m = MatMul (n, B)
            y = Softmax (m)
        }""",
        {"A": weights(8, 8), "B": weights(8, 8), "bias": weights(8), "gamma": np.ones(8, np.float32)},
    )
    prepared, result, _ = quantized(graph, samples(x=(1, 5, 8)))
    assert ops(result).count("QuantizeLinear") == 2  # x and n
    bias = dequantized_from(node_of(result, "Add").inputs[1])
    assert constant(bias.inputs[0]).dtype == np.int32
    assert node_of(result, "Softmax").inputs[0].producer().op_type == "MatMul"
    assert sqnr_db(prepared, result, samples(x=(1, 5, 8))) > CLOSE_DB


def test_nodes_stay_float_by_name_and_layers_lists_them():
    prepared = prepare(small_cnn())
    found = layers(prepared)
    assert [(layer.op_type, layer.macs, layer.weights) for layer in found] == [
        ("Conv", 8 * 27 * 90, 216),
        ("Relu", 0, 0),
        ("Conv", 8 * 9 * 90, 72),
        ("Relu", 0, 0),
        ("Add", 0, 0),
        ("GlobalAveragePool", 0, 0),
        ("Flatten", 0, 0),
        ("Gemm", 40, 40),
    ]
    recipe = Recipe(float_nodes=(found[2].name,))
    result = quantize(prepared, collect(prepared, samples(x=(1, 3, 9, 10)), recipe), recipe)
    assert constant(node_of(result, "Conv", 1).inputs[1]).dtype == np.float32


def test_a_graph_output_in_the_middle_keeps_its_name_and_type():
    graph = parse(
        "g (float[1,4,6,6] x) => (float[1,3,6,6] c, float[1,2,6,6] y) { c = Conv (x, A) y = Conv (c, C) }",
        {"A": weights(3, 4, 1, 1), "C": weights(2, 3, 1, 1)},
    )
    prepared, result, _ = quantized(graph, samples(x=(1, 4, 6, 6)))
    assert [(v.name, v.dtype) for v in result.graph.outputs] == [
        ("c", onnx_ir.DataType.FLOAT),
        ("y", onnx_ir.DataType.FLOAT),
    ]
    assert sqnr_db(prepared, result, samples(x=(1, 4, 6, 6))) > CLOSE_DB


ODD = {
    "weights of zeros": ("y = Conv (x, A)", {"A": np.zeros((3, 4, 1, 1), np.float32)}),
    "a channel of zeros": ("y = Conv (x, A)", {"A": weights(3, 4, 1, 1) * np.float32([[[[1]]], [[[0]]], [[[1]]]])}),
    "tiny weights, large bias": ("y = Conv (x, A, b)", {"A": weights(3, 4, 1, 1) * 1e-20, "b": weights(3) * 1e6}),
    "huge weights": ("c = Conv (x, A) y = Conv (c, B)", {"A": weights(3, 4, 1, 1) * 1e15, "B": weights(3, 3, 1, 1)}),
    "dead activations": (
        "c = Conv (x, A, b) r = Relu (c) y = Conv (r, B)",
        {"A": weights(3, 4, 1, 1), "b": np.full(3, -1e3, np.float32), "B": weights(3, 3, 1, 1)},
    ),
    "shared weights": ("c = Conv (x, A) y = Conv (c, A)", {"A": weights(4, 4, 1, 1)}),
    "weights through Identity": ("i = Identity (A) y = Conv (x, i)", {"A": weights(3, 4, 1, 1)}),
    "weights through Constant": ("i = Constant <value = float[1,4,1,1] {1,2,3,4}> () y = Conv (x, i)", {}),
    "float16 weights": ("i = Cast <to = 1> (A) y = Conv (x, i)", {"A": weights(3, 4, 1, 1).astype(np.float16)}),
    "a bias of one number": ("f = Flatten (x) y = Gemm <transB = 1> (f, A, b)",
                             {"A": weights(5, 144), "b": np.float32([0.5])}),
    "scaled Gemm": ("f = Flatten (x) y = Gemm <alpha = 0.5, beta = 2.0> (f, A, b)",
                    {"A": weights(144, 5), "b": weights(1, 5)}),
    "bias of every element": ("f = Flatten (x) y = Gemm (f, A, b)", {"A": weights(144, 5), "b": weights(1, 5)}),
    "transposed": ("y = ConvTranspose <strides = [2,2], group = 2> (x, A, b)",
                   {"A": weights(4, 3, 2, 2), "b": weights(6)}),
    "weights on the left": ("y = MatMul (A, x)", {"A": weights(1, 4, 6, 6)}),
    "stack of weights": ("y = MatMul (x, A)", {"A": weights(4, 6, 3)}),
    "both operands": ("s = Sigmoid (x) y = MatMul (x, s)", {}),
    "computed weights": ("s = Conv (x, A) u = Conv (x, B) "
                         "t = Transpose <perm = [1,0,2,3]> (s) y = Conv <group = 2> (u, t)",
                         {"A": weights(2, 4, 5, 5), "B": weights(2, 4, 1, 1)}),
    "constant operand": ("c = Conv (x, A) m = Mul (c, k) y = Conv (m, A)",
                         {"A": weights(4, 4, 1, 1), "k": weights(1, 4, 6, 6)}),
    "pads": ("p = Pad (x, n) c = Conv (p, A) q = Pad (c, n) r = Relu (q) y = Conv (r, A)",
             {"A": weights(4, 4, 1, 1), "n": np.array([0, 0, 1, 1, 0, 0, 1, 1])}),
    "split and concat": ("c = Conv (x, A) a, b = Split <axis = 1> (c) d = Concat <axis = 1> (b, a) y = Conv (d, A)",
                         {"A": weights(4, 4, 1, 1)}),
    "resize": ("c = Conv (x, A) u = Resize <mode = \"nearest\"> (c, , k) y = Conv (u, A)",
               {"A": weights(4, 4, 1, 1), "k": np.float32([1, 1, 2, 2])}),
    "one dimension": ("r = Reshape (x, n) y = Conv <pads = [1,1]> (r, A)",
                      {"A": weights(3, 4, 3), "n": np.array([1, 4, 36])}),
    "automatic pads": ("y = Conv <auto_pad = \"SAME_UPPER\", strides = [2,2]> (x, A)", {"A": weights(3, 4, 3, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("steps", [False, True], ids=["plain", "steps"])
@pytest.mark.parametrize("case", ODD)
def test_odd_models_come_out_valid_and_close(case, steps):
    body, constants = ODD[case]
    constants = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in constants.items()}
    graph = parse(f"g (float[1,4,6,6] x) => (float[a,b,c,d] y) {{ {body} }}", constants)
    graph.graph.outputs[0].shape = None
    inputs = samples(x=(1, 4, 6, 6))
    recipe = Recipe(reconstruct=steps, correct_bias=steps)
    prepared, result, _ = quantized(graph, inputs, recipe)
    assert "DequantizeLinear" in ops(result)
    onnx.checker.check_model(onnx_ir.to_proto(result))
    assert sqnr_db(prepared, result, inputs) > CLOSE_DB
    for (optimized,) in run(result, ["y"], inputs[:1]):  # ONNX Runtime's integer kernels take it too
        assert np.isfinite(optimized).all()


def test_a_model_without_products_is_refused():
    prepared = prepare(parse("g (float[1,4] x) => (float[1,4] y) { y = Relu (x) }"))
    statistics = collect(prepared, samples(x=(1, 4)), Recipe())
    with pytest.raises(ModelError) as caught:
        quantize(prepared, statistics, Recipe())
    assert caught.value.message == (
        "there is nothing to quantize: no convolution or matrix product with constant float32 weights stays"
    )
    assert caught.value.hint == "look at the list of float nodes, or at the model with `nncc show`"


def test_a_quantized_model_is_refused():
    _, result, _ = quantized(small_cnn(), samples(x=(1, 3, 9, 10)))
    with pytest.raises(ModelError) as caught:
        prepare(result)
    assert caught.value.message == "the model is quantized already: `x/quantize` is a QuantizeLinear"
    assert caught.value.hint == "give the float model it was made of"


def test_a_name_that_is_no_node_is_refused():
    prepared = prepare(small_cnn())
    recipe = Recipe(float_nodes=("c00",))
    with pytest.raises(UsageError) as caught:
        quantize(prepared, collect(prepared, samples(x=(1, 3, 9, 10)), recipe), recipe)
    assert caught.value.message == "the recipe names `c00`, which is no node of the model"


@pytest.mark.parametrize(
    ("inputs", "message", "hint"),
    [
        ([], "there are no calibration samples", "give at least one; a hundred, like real inputs, are better"),
        ([{"X": np.zeros((1, 3, 9, 10), np.float32)}],
         "calibration sample 0 has an array for `X`, which is no input of the model", "the model has `x`"),
        ([{}], "calibration sample 0 has no array for input `x`", "give one array for each input"),
        ([{"x": np.zeros((1, 3, 9, 11), np.float32)}],
         "calibration sample 0 has float32[1x3x9x11] for input `x`, which is float32[Nx3x9x10]",
         "convert the array, or add the dimension of the batch"),
        ([{"x": np.zeros((1, 3, 9, 10))}],
         "calibration sample 0 has float64[1x3x9x10] for input `x`, which is float32[Nx3x9x10]",
         "convert the array, or add the dimension of the batch"),
        ([{"x": np.full((1, 3, 9, 10), np.nan, np.float32)}],
         "calibration sample 0 has values for input `x` that are not finite", "leave that sample out"),
        ([{"x": np.full((1, 3, 9, 10), 3e38, np.float32)}],
         "calibration sample 0 gives `c0` values that are not finite",
         "leave that sample out, or the node `c0` float"),
    ],
)  # fmt: skip
def test_samples_that_do_not_fit_are_refused(inputs, message, hint):
    with pytest.raises(RunError) as caught:
        collect(prepare(small_cnn()), inputs, Recipe())
    assert caught.value.message == message
    assert caught.value.hint == hint


def test_scores_behind_a_mask_of_infinity_stay_float_and_the_products_around_them_do_not():
    text = """g (float[1,8,16] x, bool[1,8,8] kept) => (float[1,8,16] y) {
        q = MatMul (x, WQ)
        k = MatMul (x, WK)
        t = Transpose <perm = [0, 2, 1]> (k)
        s = MatMul (q, t)
        m = Where (kept, zero, never)
        h = Add (s, m)
        p = Softmax <axis = -1> (h)
        o = MatMul (p, x)
        y = MatMul (o, WO)
    }"""
    masks = {"zero": np.float32(0), "never": np.float32(-np.inf)}
    net = parse(text, {name: weights(16, 16, seed=at) for at, name in enumerate(("WQ", "WK", "WO"))} | masks)
    lower = np.tril(np.ones((1, 8, 8), bool))
    inputs = [sample | {"kept": lower} for sample in samples(x=(1, 8, 16))]
    prepared, result, statistics = quantized(net, inputs)
    assert "s" in statistics.observations and not {"m", "h"} & set(statistics.observations)
    assert all(dequantized_from(value) for node in result.graph if node.op_type == "MatMul" for value in node.inputs)
    assert not any(
        value.producer() and value.producer().op_type == "DequantizeLinear" for value in node_of(result, "Add").inputs
    )
    assert sqnr_db(prepared, result, inputs) > CLOSE_DB


def test_a_constant_that_is_not_finite_is_named_where_calibration_meets_it():
    text = "g (float[1,3,8,8] x) => (float[1,4,8,8] y) { c = Conv (x, W)  y = Conv (c, V) }"
    wrong = weights(4, 3, 1, 1)
    wrong[1, :2] = np.nan
    net = prepare(parse(text, {"W": wrong, "V": weights(4, 4, 1, 1)}))
    with pytest.raises(ModelError) as caught:
        collect(net, samples(x=(1, 3, 8, 8)), Recipe())
    assert caught.value.message == (
        "calibration sample 0 gives `c` values that are not finite: `W`, a constant of `c`, has NaN or infinity in 2 "
        "of 12 elements"
    )
    assert caught.value.hint == "export the model again, or leave the node `y` float"


def test_a_node_that_is_left_float_may_have_values_that_are_not_finite():
    text = """g (float[1,3,8,8] x) => (float[1,4,8,8] y) {
        l = Log (x)
        c = Conv (l, W)
        r = IsNaN (c)
        z = Where (r, zero, c)
        d = Clip (z, low)
        y = Conv (d, V)
    }"""
    constants = {"W": weights(4, 3, 1, 1), "V": weights(4, 4, 1, 1), "zero": np.float32(0), "low": np.float32(-5)}
    net = prepare(parse(text, constants))
    inputs = samples(x=(1, 3, 8, 8))
    with pytest.raises(RunError) as caught:
        collect(net, inputs, Recipe())
    assert caught.value.hint == "leave that sample out, or the node `c` float"
    recipe = Recipe(float_nodes=("c",))
    result = quantize(net, collect(net, inputs, recipe), recipe)
    assert [len(node.inputs[0].producer().inputs) > 1 for node in result.graph if node.op_type == "Conv"] == [
        False,
        True,
    ]
