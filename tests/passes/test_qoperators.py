"""Every operator on integers, compiled, against ONNX Runtime on the file as it came: within one step of the result.

One model holds them all, so that it is compiled once. A step apart may be what lies between two integers: ONNX Runtime
rounds sums of integers, the QDQ form rounds sums of floats.
"""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from compiled import compile_net
from graphs import ops
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from quantized_nets import QuantizedNet, both, full_range, steps_apart

import nncc
from nncc.errors import ModelError
from nncc.frontend.onnx import import_onnx
from nncc.passes.integer_matmuls import INTEGER_MATMULS, integer_matmuls
from nncc.passes.qoperators import QOPERATORS, qoperators_to_qdq
from nncc.passes.simplify import simplify, simplify_reported
from nncc.verify import reference

U8, S8, F32 = np.uint8, np.int8, np.float32


def conv(net, dtype=U8, weights=S8, *, channel=False, zero=0, bias=True, last=False, scalar=True, **attributes):
    group = attributes.get("group", 1)
    x = net.input(*((1, 7, 6, 4) if last else (1, 4, 7, 6)), dtype=dtype)
    weight = net.integers(6 if group == 1 else 8, 4 // group, 3, 3, dtype=weights)
    out = 6 if group == 1 else 8
    scale = net.random.uniform(0.002, 0.004, out if channel else () if scalar else 1).astype(np.float32)
    zeros = np.full(scale.shape, zero, weights)
    operands = [x, *net.parameters(0.02, 3 if dtype is U8 else -5, dtype), weight]
    operands += [net.constant(scale), net.constant(zeros), *net.parameters(0.05, 100 if dtype is U8 else 1, dtype)]
    operands += [net.constant(net.random.integers(-9000, 9000, out).astype(np.int32))] if bias else []
    attributes = {"pads": [1, 1, 1, 1], **attributes}
    if last:
        return net.ms("QLinearConv", *operands, channels_last=1, **attributes), dtype
    return net.op("QLinearConv", *operands, **attributes), dtype


def matmul(net, dtype=U8, weights=S8, *, channel=False, shape=(3, 20), wide=None):
    x = net.input(*shape, dtype=dtype)
    scale = np.full(5 if channel else (), 0.01, np.float32)
    weight = net.integers(*(wide or (20, 5)), dtype=weights)
    zeros = net.constant(np.full(scale.shape, 130 if weights is U8 else -3, weights))
    out = net.parameters(0.3, 90 if dtype is U8 else -20, dtype)
    return net.op("QLinearMatMul", x, *net.parameters(0.03, 7, dtype), weight, net.constant(scale), zeros, *out), dtype


def gemm(net, *, real=False, channel=False, flipped=True, alpha=1.0, bias=(5,)):
    x = net.input(3, 20, dtype=U8)
    weight = net.integers(*((5, 20) if flipped else (20, 5)), dtype=S8)
    scale = net.constant(net.random.uniform(0.005, 0.01, 5 if channel else ()).astype(np.float32))
    zero = net.constant(np.zeros(5 if channel else (), S8))
    operands = [x, *net.parameters(0.03, 7), weight, scale, zero]
    operands += [net.constant(net.random.integers(-9000, 9000, bias).astype(np.int32)) if bias is not None else ""]
    operands += [] if real else net.parameters(0.3, 90)
    return net.ms("QGemm", *operands, transB=int(flipped), alpha=alpha), np.float32 if real else U8


def binary(net, kind, dtype=U8, other=(1, 4, 7, 6), zeros=True):
    z = (10, 200, 120) if dtype is U8 else (-3, 4, 9)
    a, b = net.input(1, 4, 7, 6, dtype=dtype), net.input(*other, dtype=dtype)
    x, y, out = (net.parameters(s, zero, dtype) for s, zero in zip((0.0213, 0.0527, 0.0631), z, strict=True))
    return net.ms(kind, a, *x, b, *y, *out[: 2 if zeros else 1]), dtype


def unary(net, kind, dtype=U8, shape=(2, 4, 7, 6), out=(0.02, 5), zeros=True, **attributes):
    x = net.input(*shape, dtype=dtype)
    given = net.parameters(0.0413, 110 if dtype is U8 else -7, dtype)
    result = net.parameters(*out, dtype)
    if not zeros:
        given, result = (given[0], ""), (result[0], "")
    return net.ms(kind, x, *given, *result, **attributes), dtype


def concat(net, dtype=U8):
    parts = []
    for channels, scale, zero in ((2, 0.02, 3), (3, 0.05, 100)):
        parts += [net.input(1, channels, 5, dtype=dtype), *net.parameters(scale, zero, dtype)]
    return net.ms("QLinearConcat", *net.parameters(0.03, 20, dtype), *parts, axis=1), dtype


def where(net):
    mask, x, y = net.input(3, 5, dtype=np.bool_), net.input(3, 5, dtype=U8), net.input(1, 5, dtype=U8)
    operands = [mask, x, *net.parameters(0.02, 3), y, *net.parameters(0.05, 100), *net.parameters(0.03, 20)]
    return net.ms("QLinearWhere", *operands), U8


def quantize(net, dtype=U8):
    return net.ms("QuantizeLinear", net.input(3, 5), *net.parameters(0.01, 7, dtype)), dtype


def dequantize(net, axis=None):
    x = net.input(3, 4, dtype=U8)
    if axis is None:
        return net.ms("DequantizeLinear", x, *net.parameters(0.01, 7)), np.float32
    scale, zero = net.constant(net.random.uniform(0.01, 0.1, 4).astype(np.float32)), net.integers(4)
    return net.ms("DequantizeLinear", x, scale, zero, axis=axis), np.float32


def conv_integer(net, weights=S8, zeros=True, **attributes):
    x = net.input(1, 4, 7, 6, dtype=U8)
    weight = net.integers(6, 4 // attributes.get("group", 1), 3, 3, dtype=weights, low=-127 if weights is S8 else 0)
    zero = 0 if weights is S8 else 3
    points = [net.constant(np.array(9, U8)), net.constant(np.array(zero, weights))] if zeros else []
    return net.op("ConvInteger", x, weight, *points, **attributes), np.int32


def matmul_integer(net, weights=S8, channel=False, zeros=True):
    x, weight = net.input(2, 3, 20, dtype=U8), net.integers(20, 5, dtype=weights)
    points = [net.constant(np.array(9, U8)), net.constant(np.full(5 if channel else (), 3, weights))] if zeros else []
    return net.op("MatMulInteger", x, weight, *points), np.int32


def to_float(net, channel=False, bias=True, zeros=True):
    x, weight = net.input(3, 20, dtype=U8), net.integers(20, 5, dtype=S8)
    scale = net.constant(np.full(5 if channel else (), 0.01, np.float32))
    points = [net.constant(np.array(9, U8)), net.constant(np.full(5 if channel else (), 2, S8))] if zeros else ["", ""]
    operands = [x, weight, net.constant(np.float32(0.02)), scale, *points]
    return net.ms("MatMulIntegerToFloat", *operands, *([net.weight(5)] if bias else [])), np.float32


def dynamic(net, bias=True):
    x, weight = net.input(3, 20), net.integers(20, 5, dtype=S8)
    operands = [x, weight, net.constant(np.full(5, 0.01, np.float32)), net.constant(np.zeros(5, S8))]
    return net.ms("DynamicQuantizeMatMul", *operands, *([net.weight(5)] if bias else [])), np.float32


def dynamic_standard(net):
    x, scale, zero = net.op("DynamicQuantizeLinear", net.input(3, 20), outputs=3)
    sums = net.op("MatMulInteger", x, net.integers(20, 5, dtype=S8), zero)
    return net.op("Mul", net.op("Cast", sums, to=1), scale), np.float32


def dynamic_conv(net, **attributes):
    x, scale, zero = net.op("DynamicQuantizeLinear", net.input(1, 4, 7, 6), outputs=3)
    sums = net.op("ConvInteger", x, net.integers(8, 4, 3, 3, dtype=S8, low=-127), zero, **attributes)
    return net.op("Mul", net.op("Cast", sums, to=1), scale), np.float32


def n_bits(net, bits=4, zeros="none", k=40, block=16, groups=False, bias=False, n=5):
    blocks = -(-k // block)
    x = net.input(3, k)
    weight = net.integers(n, blocks, block * bits // 8)
    scale = net.constant(net.random.uniform(0.01, 0.02, (n, blocks)).astype(np.float32))
    operands = [x, weight, scale]
    if zeros == "packed":
        operands += [net.integers(n, -(-blocks * bits // 8))]
    elif zeros == "float":
        operands += [net.constant(net.random.uniform(6, 9, (n, blocks)).astype(np.float32))]
    elif groups or bias:
        operands += [""]
    operands += [net.constant(net.random.integers(0, blocks, k).astype(np.int32))] if groups else [""] if bias else []
    operands += [net.weight(n)] if bias else []
    return net.ms("MatMulNBits", *operands, K=k, N=n, bits=bits, block_size=block), np.float32


def bnb4(net, kind, k=40, n=5, block=32, flipped=1):
    x = net.input(3, k if flipped else n)
    weight = net.integers(-(-n * k // 2))
    scale = net.constant(net.random.uniform(0.5, 2, -(-n * k // block)).astype(np.float32))
    return net.ms("MatMulBnb4", x, weight, scale, K=k, N=n, block_size=block, quant_type=kind, transB=flipped), F32


CASES = {
    "QLinearConv": lambda n: conv(n),
    "QLinearConv per channel": lambda n: conv(n, channel=True),
    "QLinearConv of int8": lambda n: conv(n, S8, channel=True),
    "QLinearConv of uint8 weights": lambda n: conv(n, weights=U8, zero=120),
    "QLinearConv of one scale in a row": lambda n: conv(n, scalar=False),
    "QLinearConv without bias": lambda n: conv(n, bias=False, strides=[2, 1]),
    "QLinearConv grouped": lambda n: conv(n, group=4, channel=True),
    "QLinearConv dilated": lambda n: conv(n, dilations=[2, 2]),
    "QLinearConv padded by itself": lambda n: conv(n, auto_pad="SAME_UPPER", strides=[2, 2], pads=None),
    "QLinearConv of channels last": lambda n: conv(n, channel=True, last=True),
    "QLinearMatMul": lambda n: matmul(n),
    "QLinearMatMul per column": lambda n: matmul(n, channel=True),
    "QLinearMatMul of uint8": lambda n: matmul(n, weights=U8),
    "QLinearMatMul of int8": lambda n: matmul(n, S8, channel=True),
    "QLinearMatMul in batches": lambda n: matmul(n, shape=(2, 3, 20), wide=(2, 20, 5)),
    "QGemm": lambda n: gemm(n),
    "QGemm per column": lambda n: gemm(n, channel=True, flipped=False),
    "QGemm to float": lambda n: gemm(n, real=True, channel=True),
    "QGemm scaled": lambda n: gemm(n, alpha=0.5),
    "QGemm without bias": lambda n: gemm(n, bias=None),
    "QLinearAdd": lambda n: binary(n, "QLinearAdd"),
    "QLinearAdd of int8": lambda n: binary(n, "QLinearAdd", S8, other=(4, 1, 1)),
    "QLinearAdd without the last zero point": lambda n: binary(n, "QLinearAdd", zeros=False),
    "QLinearMul": lambda n: binary(n, "QLinearMul"),
    "QLinearMul of int8": lambda n: binary(n, "QLinearMul", S8, other=(1, 4, 1, 1)),
    "QLinearConcat": lambda n: concat(n),
    "QLinearConcat of int8": lambda n: concat(n, S8),
    "QLinearGlobalAveragePool": lambda n: unary(n, "QLinearGlobalAveragePool"),
    "QLinearGlobalAveragePool of int8": lambda n: unary(n, "QLinearGlobalAveragePool", S8),
    "QLinearGlobalAveragePool of channels last": lambda n: unary(n, "QLinearGlobalAveragePool", channels_last=1),
    "QLinearAveragePool": lambda n: unary(n, "QLinearAveragePool", kernel_shape=[3, 2], pads=[1, 0, 1, 1]),
    "QLinearAveragePool that counts its padding": lambda n: unary(
        n, "QLinearAveragePool", S8, kernel_shape=[3, 2], pads=[1, 0, 1, 1], count_include_pad=1
    ),
    "QLinearAveragePool of channels last": lambda n: unary(
        n, "QLinearAveragePool", kernel_shape=[3, 2], strides=[2, 2], channels_last=1
    ),
    "QLinearSigmoid": lambda n: unary(n, "QLinearSigmoid", out=(1 / 256, 0)),
    "QLinearSigmoid of int8": lambda n: unary(n, "QLinearSigmoid", S8, out=(1 / 256, -128)),
    "QLinearLeakyRelu": lambda n: unary(n, "QLinearLeakyRelu", alpha=0.3),
    "QLinearLeakyRelu without zero points": lambda n: unary(n, "QLinearLeakyRelu", S8, zeros=False),
    "QLinearSoftmax": lambda n: unary(n, "QLinearSoftmax", out=(1 / 256, 0), axis=-1, opset=13),
    "QLinearSoftmax of an old opset": lambda n: unary(n, "QLinearSoftmax", out=(1 / 256, 0), axis=1, opset=11),
    "QLinearWhere": where,
    "QuantizeLinear of com.microsoft": quantize,
    "QuantizeLinear of com.microsoft to int8": lambda n: quantize(n, S8),
    "DequantizeLinear of com.microsoft": dequantize,
    "DequantizeLinear of com.microsoft per axis": lambda n: dequantize(n, axis=1),
    "ConvInteger": lambda n: conv_integer(n, pads=[1, 1, 1, 1]),
    "ConvInteger of uint8 weights": lambda n: conv_integer(n, U8, strides=[2, 2], group=2),
    "ConvInteger without zero points": lambda n: conv_integer(n, zeros=False),
    "ConvInteger padded by itself": lambda n: conv_integer(n, auto_pad="SAME_LOWER"),
    "MatMulInteger": lambda n: matmul_integer(n),
    "MatMulInteger per column": lambda n: matmul_integer(n, channel=True),
    "MatMulInteger of uint8 weights": lambda n: matmul_integer(n, U8, channel=True),
    "MatMulInteger of uint8 weights without zero points": lambda n: matmul_integer(n, U8, zeros=False),
    "MatMulInteger without zero points": lambda n: matmul_integer(n, zeros=False),
    "MatMulIntegerToFloat": lambda n: to_float(n),
    "MatMulIntegerToFloat per column": lambda n: to_float(n, channel=True, bias=False),
    "MatMulIntegerToFloat without zero points": lambda n: to_float(n, zeros=False),
    "DynamicQuantizeMatMul": lambda n: dynamic(n),
    "DynamicQuantizeMatMul without bias": lambda n: dynamic(n, bias=False),
    "DynamicQuantizeLinear and MatMulInteger": dynamic_standard,
    "DynamicQuantizeLinear and ConvInteger": dynamic_conv,
    "DynamicQuantizeLinear and padded ConvInteger": lambda n: dynamic_conv(
        n, pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2]
    ),
}
WEIGHT_ONLY = {
    "MatMulNBits": lambda n: n_bits(n),
    "MatMulNBits with zero points": lambda n: n_bits(n, zeros="packed"),
    "MatMulNBits with zero points of float": lambda n: n_bits(n, zeros="float"),
    "MatMulNBits with groups": lambda n: n_bits(n, groups=True),
    "MatMulNBits with bias": lambda n: n_bits(n, bias=True, k=32),
    "MatMulNBits of 8 bits": lambda n: n_bits(n, bits=8, zeros="packed"),
    "MatMulNBits of 2 bits": lambda n: n_bits(n, bits=2),
    "MatMulBnb4 of fp4": lambda n: bnb4(n, 0),
    "MatMulBnb4 of nf4": lambda n: bnb4(n, 1, k=33, block=16),
}
EXACT = ("Integer", "QuantizeLinear of", "DequantizeLinear of", "LeakyRelu")
"""Integers stay integers, or each number is computed by itself in the same order."""


def net_of(cases, opset):
    net = QuantizedNet(opset)
    results = {}
    for case, make in cases.items():
        name, dtype = make(net)
        results[case] = net.result(name, dtype)
    for node in net.nodes:  # an attribute of None is one left out
        kept = [a for a in node.attribute if a.type]
        del node.attribute[:]
        node.attribute.extend(kept)
    return net, results


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    found = {}
    for cases, opset, folder in ((CASES, 17, "integers"), (WEIGHT_ONLY, 17, "weights")):
        net, results = net_of(cases, opset)
        pairs = both(net, tmp_path_factory.mktemp(folder), full_range(net.model()))
        found |= {case: pairs[name] for case, name in results.items()}
    return found


@pytest.mark.parametrize("case", [*CASES, *WEIGHT_ONLY])
def test_an_operator_on_integers_gives_what_onnx_runtime_gives(compiled, case):
    expected, actual = compiled[case]
    apart = steps_apart(expected, actual)
    if expected.dtype.kind == "f":  # sums of products in float32, in another order; N bits: of 40
        assert apart <= 1e-5 * np.abs(expected).max()
    elif any(word in case for word in EXACT):
        assert apart == 0
    else:
        assert apart <= 1
        assert np.mean(expected != actual) < 0.03
        assert len(np.unique(expected)) > 3


@pytest.mark.parametrize("cases", [CASES, WEIGHT_ONLY], ids=["integers", "weights"])
def test_nothing_but_standard_operators_is_left(cases, tmp_path):
    net, _ = net_of(cases, 17)
    after = simplify(import_onnx(net.save(tmp_path / "net.onnx")))
    assert {node.domain for node in after.graph.graph} == {""}
    assert not any(kind.startswith("QLinear") or kind == "QGemm" for kind in ops(after))


@pytest.mark.parametrize(("axes", "keepdims", "opset"), [([2, 3], 1, 18), ([-1], 0, 13), (None, 1, 17)])
def test_the_mean_of_integers_is_what_its_definition_says(axes, keepdims, opset, tmp_path):
    """ONNX Runtime has none for processors; defined is DequantizeLinear, ReduceMean, QuantizeLinear."""
    net = QuantizedNet(opset)
    attributes = {} if axes is None else {"axes": axes}
    name, dtype = unary(net, "QLinearReduceMean", S8, keepdims=keepdims, **attributes)
    net.result(name, dtype)
    inputs = full_range(net.model())
    after = simplify(import_onnx(net.save(tmp_path / "net.onnx")))
    real = (next(iter(inputs.values())).astype(np.float32) + 7) * np.float32(0.0413)
    mean = real.mean(axis=None if axes is None else tuple(axes), keepdims=bool(keepdims))
    expected = np.clip(np.rint(mean / np.float32(0.02)) + 5, -128, 127).astype(S8)
    assert steps_apart(expected, reference(after, inputs)[name]) <= 1


@pytest.mark.parametrize("zeros", ["none", "packed"])
def test_weights_of_4_bits_stay_small_in_the_library(zeros, tmp_path):
    net = QuantizedNet()
    name, dtype = n_bits(net, k=128, n=64, block=32, zeros=zeros)
    net.result(name, dtype)
    compiled = compile_net(net, tmp_path)
    inputs = full_range(net.model())
    expected, actual = reference(compiled.path, inputs)[name], compiled.run(inputs)[name]
    assert steps_apart(expected, actual) <= 1e-5 * np.abs(expected).max()
    blocks = 128 // 32 * 64
    assert compiled.program.weights.nbytes <= 128 * 64 // 2 + 2 * 4 * blocks + 1024


def test_groups_of_weights_with_zero_points_are_refused_with_the_reason(tmp_path):
    net = QuantizedNet()
    name, dtype = n_bits(net, groups=True, zeros="packed")
    net.result(name, dtype)
    _, reports = simplify_reported(import_onnx(net.save(tmp_path / "net.onnx")))
    why = "it has both groups in an order of their own and zero points"
    assert reports["integer_matmuls"].refusals == {name: why}


@pytest.mark.parametrize(
    ("kind", "other", "why"),
    [
        (2, {}, "it has K 40, N 5, blocks of 32 and numbers of kind 2"),
        (1, {"flipped": 0}, "its weights are transposed for training"),
    ],
)
def test_weights_of_other_kinds_are_refused_with_the_reason(kind, other, why):
    net = QuantizedNet()
    name, dtype = bnb4(net, kind, **other)
    net.result(name, dtype)
    assert integer_matmuls(onnx_ir.from_proto(net.model())).refusals == {name: why}


def test_a_model_of_opset_10_is_raised_for_scales_per_channel(tmp_path):
    net = QuantizedNet(10)
    name, dtype = conv(net, channel=True)
    net.result(name, dtype)
    model = import_onnx(net.save(tmp_path / "net.onnx"))
    after = simplify(model)
    assert after.graph.graph.opset_imports[""] == 13
    inputs = full_range(net.model())
    expected, actual = (reference(m, inputs)[name] for m in (model, after))
    assert steps_apart(expected, actual) <= 1


def test_scales_computed_at_run_time_are_refused_with_the_reason(tmp_path):
    net = QuantizedNet()
    scale = net.input(1, name="scale")
    x, weight = net.input(1, 2, 4, 4, dtype=U8), net.integers(3, 2, 1, 1, dtype=S8)
    zeros = net.constant(np.array(0, U8)), net.constant(np.array(0, S8))
    name = net.op("QLinearConv", x, scale, zeros[0], weight, net.constant(np.float32(1)), zeros[1], scale, zeros[0])
    net.result(name, U8)
    model = import_onnx(net.save(tmp_path / "net.onnx"))
    after, reports = simplify_reported(model)
    assert ops(after) == ["QLinearConv"]
    assert reports["qoperators_to_qdq"].refusals == {name: "its scales are computed at run time"}


def test_an_unknown_operator_of_com_microsoft_is_named(tmp_path):
    net = QuantizedNet()
    net.result(net.ms("QLinearReduceMax", net.input(2, 3, dtype=U8)), U8)
    with pytest.raises(ModelError, match=r"com\.microsoft QLinearReduceMax"):
        nncc.compile(net.save(tmp_path / "net.onnx"), "native", tmp_path / "out")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*QOPERATORS, *INTEGER_MATMULS]), st.integers(0, 9), st.data())
def test_operators_that_no_checker_knows_are_rewritten_or_refused_whatever_they_have(kind, count, data):
    """Missing operands, types and attributes of any kind: a reason in the report, never a crash."""
    domain, name = kind
    arrays = {
        "a": np.zeros((2, 3), U8),
        "b": np.zeros((3, 2), S8),
        "s": np.float32(0.5),
        "ss": np.array([0.5, 1], np.float32),
        "z": np.array(0, U8),
        "i": np.zeros(2, np.int32),
        "f": np.zeros((2, 3), np.float32),
        "": None,
    }
    given_names = data.draw(st.lists(st.sampled_from(["x", *arrays]), min_size=count, max_size=count))
    numbers = ("axis", "K", "N", "bits", "block_size", "channels_last", "opset", "keepdims", "alpha")
    attributes = data.draw(st.dictionaries(st.sampled_from(numbers), st.sampled_from([0, 1, 2, 8, -1, 0.5, "word"])))
    node = helper.make_node(name, given_names, ["y"], domain=domain, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(array), word) for word, array in arrays.items() if word],
    )
    model = onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]))
    reports = [pass_(model) for pass_ in (qoperators_to_qdq, integer_matmuls)]
    rewrites = sum(report.rewrites for report in reports)
    assert rewrites + sum(len(report.refusals) for report in reports) == 1
    assert rewrites or len(list(model.graph)) == 1
