"""Numbers of 8 and fewer bits: cast, quantized and moved as numpy with ml_dtypes does it, one number in a byte."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import saturate_cast

import nncc
from nncc.errors import ModelError
from nncc.frontend.narrow_types import hold_in_bytes
from nncc.frontend.onnx import import_onnx

FLOATS = {
    "FLOAT8E4M3FN": ml_dtypes.float8_e4m3fn,
    "FLOAT8E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "FLOAT8E5M2": ml_dtypes.float8_e5m2,
    "FLOAT8E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "FLOAT4E2M1": ml_dtypes.float4_e2m1fn,
}
INTEGERS = {"INT4": ml_dtypes.int4, "UINT4": ml_dtypes.uint4, "INT2": ml_dtypes.int2, "UINT2": ml_dtypes.uint2}


def run(folder, nodes, inputs, output, opset=25):
    """The one output of a graph of `nodes`, compiled; `inputs` are arrays, `output` is (ONNX type, shape)."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in inputs.items()
    ]
    graph = helper.make_graph(nodes, "g", values, [helper.make_tensor_value_info("y", *output)])
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=11), path)
    artifact = nncc.compile(path, output=folder / "out", verify=False, threads=1)
    with nncc.load(artifact.library) as module:
        assert module.outputs[0].nbytes == np.prod(output[1]) * max(1, module.outputs[0].numpy_dtype.itemsize)
        return module.run(inputs)["y"]


def cast(folder, x, to, **attributes):
    node = helper.make_node("Cast", ["x"], ["y"], to=to, **attributes)
    return run(folder, [node], {"x": x}, (to, x.shape))


def numbers(dtype=np.float32):
    """All signs, sizes and ties that matter: every float of 16 bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(dtype)


@pytest.mark.parametrize("name", FLOATS)
def test_every_half_is_rounded_to_a_narrow_float_as_ml_dtypes_does(tmp_path, name):
    x = np.concatenate([numbers(), np.array([1e9, -1e9, 1e-30, 0.0, -0.0], np.float32)])
    if name == "FLOAT4E2M1":  # which has no NaN
        x = x[~np.isnan(x)]
    found = cast(tmp_path, x, getattr(TensorProto, name))
    expected = saturate_cast(x, FLOATS[name]) if name.startswith("FLOAT8") else x.astype(FLOATS[name])
    same = (found.view(np.uint8) == expected.view(np.uint8)) | (np.isnan(found.astype(np.float32)) & np.isnan(x))
    assert same.all()


@pytest.mark.parametrize("name", [name for name in FLOATS if name.startswith("FLOAT8")])
def test_what_is_too_large_overflows_without_saturate(tmp_path, name):
    x = np.array([1e6, -1e6, np.inf, -np.inf, np.nan, 1.0], np.float32)
    found = cast(tmp_path, x, getattr(TensorProto, name), saturate=0).astype(np.float32)
    assert np.array_equal(found, x.astype(FLOATS[name]).astype(np.float32), equal_nan=True)


def test_a_double_is_rounded_once(tmp_path):
    """1 + 2^-4 is a tie of e4m3: a little more goes up, though it is that tie in float32."""
    x = np.array([1 + 2.0**-4 + 2.0**-40, 1 + 2.0**-4, 1 + 2.0**-4 - 2.0**-40], np.float64)
    found = cast(tmp_path, x, TensorProto.FLOAT8E4M3FN).astype(np.float32)
    assert found.tolist() == [1.125, 1.0, 1.0]


@pytest.mark.parametrize("name", FLOATS)
def test_every_code_becomes_its_number(tmp_path, name):
    codes = np.arange(16 if name == "FLOAT4E2M1" else 256, dtype=np.uint8).view(FLOATS[name])
    assert np.array_equal(cast(tmp_path, codes, TensorProto.FLOAT), codes.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
def test_powers_of_two_are_rounded_as_asked(tmp_path, mode):
    x = np.array([0.0, 0.124, 0.25, 0.3, 0.375, 1.1, 1.5, 1.7, 3e38, 1e-40], np.float32)
    found = cast(tmp_path, x, TensorProto.FLOAT8E8M0, round_mode=mode)
    expected = onnx.numpy_helper.to_float8e8m0(x, True, mode)
    assert np.array_equal(found.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("name", INTEGERS)
def test_a_narrow_integer_is_the_last_bits(tmp_path, name):
    x = np.arange(-20, 20).astype(np.float32)
    found = cast(tmp_path, x, getattr(TensorProto, name))
    assert np.array_equal(found, x.astype(INTEGERS[name]))
    assert np.array_equal(cast(tmp_path, found, TensorProto.INT32), found.astype(np.int32))


def test_of_the_bytes_of_an_input_only_its_bits_count(tmp_path):
    x = np.array([0x0F, 0xFF, 0x18, 0x07], np.uint8).view(ml_dtypes.int4)
    assert cast(tmp_path, x, TensorProto.INT8).tolist() == [-1, -1, -8, 7]


def test_bytes_are_moved_as_the_numbers_in_them(tmp_path):
    x = np.arange(24, dtype=np.uint8).view(ml_dtypes.float8_e5m2).reshape(2, 3, 4)
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[2, 0, 1]), helper.make_node("Identity", ["t"], ["y"])]
    found = run(tmp_path, nodes, {"x": x}, (TensorProto.FLOAT8E5M2, (4, 2, 3)))
    assert np.array_equal(found.view(np.uint8), x.view(np.uint8).transpose(2, 0, 1))


@pytest.mark.parametrize("block_size", [0, 2])
def test_quantized_to_floats_and_back_along_an_axis_and_by_blocks(tmp_path, block_size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4)).astype(np.float32)
    scale = rng.uniform(0.1, 0.5, (3, 2) if block_size else (4,)).astype(np.float32)
    nodes = [
        helper.make_node(
            "QuantizeLinear", ["x", "s"], ["q"], output_dtype=TensorProto.FLOAT8E4M3FN, axis=1, block_size=block_size
        ),
        helper.make_node("DequantizeLinear", ["q", "s"], ["y"], axis=1, block_size=block_size),
    ]
    each = np.repeat(scale, 2, axis=1) if block_size else scale
    expected = (x / each).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * each
    found = run(tmp_path, nodes, {"x": x, "s": scale}, (TensorProto.FLOAT, x.shape))
    assert np.array_equal(found, expected)


def test_quantized_to_int4_is_clipped(tmp_path):
    x = np.array([-100, -4, 0.4, 3, 100], np.float32)
    nodes = [helper.make_node("QuantizeLinear", ["x", "s"], ["y"], output_dtype=TensorProto.INT4)]
    found = run(tmp_path, nodes, {"x": x, "s": np.array(1.0, np.float32)}, (TensorProto.INT4, x.shape))
    assert found.astype(np.int32).tolist() == [-8, -4, 0, 3, 7]


def test_arithmetic_on_bytes_is_refused():
    kind = TensorProto.FLOAT8E5M2
    values = [helper.make_tensor_value_info(name, kind, (2,)) for name in ("c", "x", "y")]
    values[0].type.tensor_type.elem_type = TensorProto.BOOL
    graph = helper.make_graph(
        [helper.make_node("Where", ["c", "x", "x"], ["y"], name="choose")], "g", values[:2], values[2:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11)
    with pytest.raises(ModelError) as caught:
        hold_in_bytes(onnx_ir.from_proto(model))
    assert str(caught.value) == "Where `choose` computes on float8_e5m2, which cannot be compiled"
    assert caught.value.hint == "cast to float or int8 before it"


def test_a_float8_constant_is_read(tmp_path):
    weights = np.array([0.5, -1.5, 448], ml_dtypes.float8_e4m3fn)
    tensor = onnx.helper.make_tensor("w", TensorProto.FLOAT8E4M3FN, (3,), weights.tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["r"], to=TensorProto.FLOAT), helper.make_node("Add", ["x", "r"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3,))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (3,))],
        [tensor],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=11), path)
    assert import_onnx(path).inputs[0].dtype == "float32"
    artifact = nncc.compile(path, output=tmp_path / "out", verify=False, threads=1)
    with nncc.load(artifact.library) as module:
        assert module.run({"x": np.ones(3, np.float32)})["y"].tolist() == [1.5, -0.5, 449.0]
