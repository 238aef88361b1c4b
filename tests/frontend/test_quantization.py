"""QuantizeLinear and DequantizeLinear in every form of opsets 10 to 25, compiled; and parameters that mean nothing.

The integers and the floats are ONNX Runtime's, bit for bit: saturation, ties and zeros are among the data.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from quantized_nets import QuantizedNet, both, full_range

from nncc.errors import ModelError
from nncc.frontend.onnx import import_onnx

F16, F32, U8, S8 = np.float16, np.float32, np.uint8, np.int8
U4, S4 = ml_dtypes.uint4, ml_dtypes.int4


def limits(dtype):
    info = ml_dtypes.iinfo(dtype)
    return int(info.min), int(info.max)


def parameters(net, shape, dtype, real=F32, *, zero=True, scale=0.01):
    """Scales between `scale` and twice that, and zero points over the whole range of the type."""
    low, high = limits(dtype)
    scales = net.constant(net.random.uniform(scale, 2 * scale, shape).astype(real))
    return [scales, net.constant(net.random.integers(low, high, shape, endpoint=True).astype(dtype))][: 1 + zero]


def quantize(net, dtype=U8, real=F32, shape=(), *, zero=True, scale=0.01, **attributes):
    x = net.input(4, 6, dtype=real)
    return net.op(
        "QuantizeLinear", x, *parameters(net, shape, dtype, real, zero=zero, scale=scale), **attributes
    ), dtype


def ties(net, dtype, real=F32):
    """A scale of 2^-6: the multiples of 2^-7 among the data are halfway between two integers."""
    parameters = net.constant(np.array(2**-6, real)), net.constant(np.array(3, dtype))
    return net.op("QuantizeLinear", net.input(8, 64, dtype=real), *parameters), dtype


def mixed(net, real, scale, **attributes):
    """Data and scale of two types."""
    x, given = net.input(40, 6, dtype=real), parameters(net, (6,), U8, scale)
    return net.op("QuantizeLinear", x, *given, **attributes), U8


def dequantize(net, dtype=U8, real=F32, shape=(), *, zero=True, **attributes):
    x = net.input(4, 6, dtype=dtype)
    return net.op("DequantizeLinear", x, *parameters(net, shape, dtype, real, zero=zero), **attributes), real


def constants(net, dtype=S8, real=F32, shape=(), **attributes):
    """Dequantized weights, added to what comes."""
    low, high = limits(dtype)
    weight = net.constant(net.random.integers(low, high, (4, 6), endpoint=True).astype(dtype))
    real_weight = net.op("DequantizeLinear", weight, *parameters(net, shape, dtype, real), **attributes)
    return net.op("Add", net.input(4, 6, dtype=real), real_weight), real


def narrow(net, dtype, shape=(), **attributes):
    """Quantized to 4 bits and back: what lies between is no input or output of a library."""
    given = parameters(net, shape, dtype, scale=0.1)
    q = net.op("QuantizeLinear", net.input(4, 6), *given, **attributes)
    return net.op("DequantizeLinear", q, *given, **attributes), F32


def bias(net, zero):
    q = net.constant(net.random.integers(-(2**31), 2**31, 6).astype(np.int32))
    points = [net.constant(np.zeros(6, np.int32))] if zero else []
    scale = net.constant(net.random.uniform(1e-5, 2e-5, 6).astype(F32))
    return net.op("Add", net.input(4, 6), net.op("DequantizeLinear", q, scale, *points, axis=0)), F32


def dynamic(net):
    """The library must agree for data and for zeros: the caller gives both."""
    q, scale, zero = net.op("DynamicQuantizeLinear", net.input(4, 6, name="data"), outputs=3)
    for name, dtype in ((scale, F32), (zero, U8)):
        net.result(name, dtype)
    return q, U8


FORMS = {
    10: {
        "Q": lambda n: quantize(n),
        "Q without zero point": lambda n: quantize(n, zero=False),
        "Q to int8": lambda n: quantize(n, S8),
        "DQ": lambda n: dequantize(n),
        "DQ of int8 without zero point": lambda n: dequantize(n, S8, zero=False),
    },
    13: {
        "Q by one scale in a row": lambda n: quantize(n, shape=(1,)),
        "Q per axis": lambda n: quantize(n, shape=(6,)),
        "Q per axis from the back": lambda n: quantize(n, S8, shape=(4,), axis=-2),
        "Q per axis without zero points": lambda n: quantize(n, shape=(4,), axis=0, zero=False),
        "Q with a tiny scale": lambda n: quantize(n, scale=1e-30),
        "Q of ties": lambda n: ties(n, U8),
        "Q of ties to int8": lambda n: ties(n, S8),
        "DQ per axis": lambda n: dequantize(n, shape=(6,)),
        "DQ per axis from the back": lambda n: dequantize(n, S8, shape=(4,), axis=-2),
        "DQ of a constant": lambda n: constants(n),
        "DQ of a constant per axis": lambda n: constants(n, U8, shape=(4,), axis=0),
        "DQ of int32": lambda n: bias(n, True),
        "DQ of int32 without zero points": lambda n: bias(n, False),
        "dynamic": dynamic,
    },
    19: {
        "Q of float16": lambda n: quantize(n, real=F16),
        "Q of float16 per axis": lambda n: mixed(n, F16, F16),
        "Q of ties of float16": lambda n: ties(n, S8, F16),
        "DQ to float16": lambda n: dequantize(n, real=F16),
        "DQ to float16 per axis": lambda n: dequantize(n, S8, F16, shape=(4,), axis=0),
        "DQ of a constant to float16": lambda n: constants(n, real=F16),
    },
    21: {
        "Q to uint16": lambda n: quantize(n, np.uint16, scale=3e-5),
        "Q to int16": lambda n: quantize(n, np.int16, scale=3e-5),
        "Q to int16 by its type alone": lambda n: quantize(n, np.int16, zero=False, output_dtype=TensorProto.INT16),
        "DQ of uint16": lambda n: dequantize(n, np.uint16),
        "DQ of int16 per axis": lambda n: dequantize(n, np.int16, shape=(6,)),
        "Q by blocks": lambda n: quantize(n, shape=(4, 2), block_size=3),
        "Q by blocks that do not fill the axis": lambda n: quantize(n, S8, shape=(4, 2), axis=-1, block_size=4),
        "DQ by blocks": lambda n: dequantize(n, shape=(2, 6), axis=0, block_size=2),
        "DQ by blocks without zero points": lambda n: dequantize(n, S8, shape=(4, 3), block_size=2, zero=False),
        "DQ of a constant by blocks": lambda n: constants(n, shape=(4, 2), block_size=4),
        "to int4 and back": lambda n: narrow(n, S4),
        "to uint4 and back": lambda n: narrow(n, U4),
        "to uint4 and back per axis": lambda n: narrow(n, U4, shape=(6,)),
        "to int4 and back by blocks": lambda n: narrow(n, S4, shape=(4, 2), block_size=3),
        "DQ of an int4 constant": lambda n: constants(n, S4, shape=(4,), axis=0),
        "DQ of a uint4 constant by blocks": lambda n: constants(n, U4, shape=(2, 6), axis=0, block_size=2),
        "DQ of an int4 constant to float16": lambda n: constants(n, S4, F16, shape=(4, 2), block_size=3),
    },
    23: {
        "Q of opset 23": lambda n: quantize(n, shape=(6,), axis=1, output_dtype=TensorProto.UINT8),
        "DQ of opset 23": lambda n: dequantize(n, output_dtype=TensorProto.FLOAT),
        "Q of float32 by float16": lambda n: mixed(n, F32, F16),
        "Q of float16 by float16": lambda n: mixed(n, F16, F16),
        "Q of float16 by one float16": lambda n: quantize(n, S8, F16),
        "Q of float16 by float32": lambda n: mixed(n, F16, F32),
        "Q of float16 in float32": lambda n: mixed(n, F16, F16, precision=TensorProto.FLOAT),
        "DQ to float16 by float32": lambda n: (dequantize(n, output_dtype=TensorProto.FLOAT16)[0], F16),
        "DQ to float32 by float16": lambda n: (dequantize(n, real=F16, output_dtype=TensorProto.FLOAT)[0], F32),
    },
    25: {
        "Q of opset 25": lambda n: quantize(n, S8),
        "DQ of opset 25": lambda n: dequantize(n, S8, shape=(4,), axis=0),
        "DQ of an int2 constant": lambda n: constants(n, ml_dtypes.int2, shape=(4,), axis=0),
        "to uint2 and back": lambda n: narrow(n, ml_dtypes.uint2),
    },
}


def net_of(opset):
    net = QuantizedNet(opset)
    results = {}
    for form, make in FORMS[opset].items():
        name, dtype = make(net)
        results[form] = net.result(name, dtype)
    return net, results


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """By opset and form: what ONNX Runtime gives and what the library gives."""
    found = {}
    for opset in FORMS:
        net, results = net_of(opset)
        inputs = full_range(net.model(), width=1.5)
        pairs = both(net, tmp_path_factory.mktemp(f"opset{opset}"), inputs)
        found |= {(opset, form): pairs[name] for form, name in results.items()}
    return found


@pytest.mark.parametrize(("opset", "form"), [(opset, form) for opset, forms in FORMS.items() for form in forms])
def test_a_form_of_quantization_gives_the_numbers_of_onnx_runtime(compiled, opset, form):
    expected, actual = compiled[opset, form]
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5])
def test_data_of_one_value_are_quantized_dynamically_as_onnx_runtime_does(value, tmp_path):
    net = QuantizedNet(13)
    q, _ = dynamic(net)
    net.result(q, U8)
    for expected, actual in both(net, tmp_path, {"data": np.full((4, 6), value, F32)}).values():
        np.testing.assert_array_equal(actual, expected)


def refusal(
    tmp_path, op="DequantizeLinear", opset=21, shape=(2, 3), scale=0.5, zero=None, dtype=S8, kind=F32, **attributes
):
    """The whole text of the error for one node `bad` with these constants, which are named `s` and `z`."""
    is_quantize = op == "QuantizeLinear"
    kinds = [TensorProto.FLOAT, helper.np_dtype_to_tensor_dtype(np.dtype(dtype))]
    kinds = kinds if is_quantize else kinds[::-1]
    arrays = {"s": np.asarray(scale, kind), **({} if zero is None else {"z": np.asarray(zero)})}
    node = helper.make_node(op, ["x", *arrays], ["y"], name="bad", **attributes)
    values = [helper.make_tensor_value_info(name, kind, shape) for name, kind in zip("xy", kinds, strict=True)]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([node], "g", values[:1], values[1:], tensors)
    path = tmp_path / "bad.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    with pytest.raises(ModelError) as caught:
        import_onnx(path)
    return f"{caught.value}\n{caught.value.hint}" if caught.value.hint else str(caught.value)


AGAIN = "quantize the model again"
POSITIVE = f"{AGAIN}: a scale is a positive, finite number"


@pytest.mark.parametrize("op", ["QuantizeLinear", "DequantizeLinear"])
@pytest.mark.parametrize(("scale", "what"), [(0.0, "zero"), (-0.5, "negative"), (np.nan, "NaN"), (np.inf, "infinite")])
def test_a_scale_that_is_no_positive_number_is_refused(tmp_path, op, scale, what):
    zero = np.array(0, S8)
    assert refusal(tmp_path, op, scale=scale, zero=zero) == f"{op} `bad` has the scale `s`, which is {what}\n{POSITIVE}"
    some = np.array([1, scale, 1], F32)
    expected = f"{op} `bad` has the scale `s`, which is {what} at index 1\n{POSITIVE}"
    assert refusal(tmp_path, op, scale=some, zero=np.zeros(3, S8)) == expected


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_an_integer_scale_of_zero_is_refused(tmp_path, kind):
    """The ONNX checker lets it pass."""
    expected = f"QuantizeLinear `bad` has the scale `s`, which is zero\n{POSITIVE}"
    assert refusal(tmp_path, "QuantizeLinear", scale=0, zero=np.array(0, S8), kind=kind) == expected


REFUSED = {
    "zero point of another shape": (
        {"scale": np.ones(3), "zero": np.zeros(2, S8)},
        f"DequantizeLinear `bad` has a scale of shape 3 and a zero point of shape 2\n{AGAIN}: both have one shape",
    ),
    "zero points of one scale": (
        {"scale": np.ones(1), "zero": np.zeros(3, S8)},
        f"DequantizeLinear `bad` has a scale of shape 1 and a zero point of shape 3\n{AGAIN}: both have one shape",
    ),
    "too few scales": (
        {"scale": np.ones(2), "zero": np.zeros(2, S8)},
        "DequantizeLinear `bad` has scales of shape 2 for axis 1, which has 3 entries\n"
        f"{AGAIN}: there is one scale for all, or one for each entry of the axis",
    ),
    "too few blocks": (
        {"scale": np.ones((2, 1)), "zero": np.zeros((2, 1), S8), "block_size": 2},
        "DequantizeLinear `bad` has scales of shape 2x1 for blocks of 2 along axis 1 of 2x3\n"
        f"{AGAIN}: there is one scale for each block",
    ),
    "axis": (
        {"scale": np.ones(3), "zero": np.zeros(3, S8), "axis": 5},
        "DequantizeLinear `bad` has scales along axis 5 of a tensor of 2 dimensions",
    ),
    "zero point of another type": (
        {"zero": np.array(0, U8)},
        f"DequantizeLinear `bad` has integers of int8 and a zero point of uint8\n{AGAIN}: both have one type",
    ),
    "zero point of int32": (
        {"zero": np.array(7, np.int32), "dtype": np.int32},
        f"DequantizeLinear `bad` has the zero point `z`, which is out of range: that of int32 is 0\n{AGAIN}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_parameters_that_do_not_fit_are_refused(tmp_path, case):
    given, expected = REFUSED[case]
    assert refusal(tmp_path, **given) == expected


def test_the_scales_of_operators_on_integers_are_checked_too(tmp_path):
    net = QuantizedNet()
    x, other = net.input(2, 3, dtype=U8), net.parameters(0.1, 3)
    node = net.ms("QLinearAdd", x, *other, x, net.constant(F32(np.nan)), other[1], *other)
    net.result(node, U8)
    with pytest.raises(ModelError) as caught:
        import_onnx(net.save(tmp_path / "net.onnx"))
    scale = net.nodes[0].input[4]
    assert str(caught.value) == f"QLinearAdd `{node}` has the scale `{scale}`, which is NaN"
    assert caught.value.hint == POSITIVE
