"""The referee: what counts as equal, and who is blamed where it is not."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest

from nncc.errors import InternalError, RunError
from nncc.instruments import Verify
from nncc.ir import Model, TensorSpec
from nncc.pipeline import Stage
from nncc.verify import compare, judge, reference, rounding_level, sample_inputs


def model(body: str) -> Model:
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y) {{ {body} }}'
    spec = TensorSpec("x", "float32", (2, 3)), TensorSpec("y", "float32", (2, 3))
    return Model(onnx_ir.from_proto(onnx.parser.parse_model(text)), "net", spec[:1], spec[1:])


def one(expected, actual, **options):
    (comparison,) = compare({"y": np.asarray(expected)}, {"y": np.asarray(actual)}, **options)
    return comparison


def test_relative_error_is_the_largest_difference_over_the_largest_expected():
    found = one(np.float32([1, -4]), np.float32([1.5, -4]))
    assert found.max_error == 0.5 and found.relative_error == 0.125 and not found.ok
    assert one(np.float32([1, -4]), np.float32([1.5, -4]), tolerance=0.2).ok


def test_zeros_equal_zeros_and_nothing_else():
    zero = np.zeros(3, np.float32)
    assert one(zero, zero).relative_error == 0 and one(zero, zero).ok
    assert not one(zero, zero + 1e-30).ok
    assert one(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).ok


def test_nan_and_infinity_must_be_in_the_same_places():
    odd = np.float32([np.nan, np.inf, -np.inf, 1])
    assert one(odd, odd).ok
    for other in ([0, np.inf, -np.inf, 1], [np.nan, -np.inf, -np.inf, 1], [np.nan, np.inf, -np.inf, np.nan]):
        assert not one(odd, np.float32(other)).ok


def test_integers_and_booleans_are_exact():
    assert one([1, 2], [1, 2]).ok and not one([1, 2], [1, 3], tolerance=9.0).ok
    big = np.int64([2**63 - 1, -(2**63)])
    assert one(big, big).ok and not one(big, big - np.int64([1, 0])).ok
    assert not one([True, False], [True, True]).ok


def test_shape_dtype_and_presence_are_part_of_the_result():
    assert "shape 3 instead of 2" in str(one(np.zeros(2, np.float32), np.zeros(3, np.float32)))
    assert "dtype float64 instead of float32" in str(one(np.zeros(2, np.float32), np.zeros(2)))
    (missing,) = compare({"y": np.zeros(2)}, {})
    assert not missing.ok and "missing" in missing.reason


def test_sample_inputs_are_the_same_for_the_same_seed():
    net = model("y = Relu (x)")
    assert np.array_equal(sample_inputs(net, 4)["x"], sample_inputs(net, 4)["x"])


def test_reference_takes_a_model_or_a_path_and_single_outputs(tmp_path):
    net = model("a = Relu (x) y = Neg (a)")
    onnx_ir.save(net.graph, tmp_path / "net.onnx")
    x = sample_inputs(net)
    assert np.array_equal(reference(net, x)["y"], reference(tmp_path / "net.onnx", x)["y"])
    assert np.array_equal(reference(net, x)["y"], -np.maximum(x["x"], 0))
    with pytest.raises(RunError, match="ONNX Runtime cannot run the model"):
        reference(net, {"x": np.zeros((5, 5), np.float32)})


def after(verify: Verify, stage: str, given: Model, value: object) -> None:
    verify.after(Stage(stage, run=None), None, given, value, 0.0)


def test_a_stage_that_changes_the_result_is_blamed_by_name():
    verify = Verify()
    after(verify, "simplify", model("y = Relu (x)"), model("a = Relu (x) y = Relu (a)"))
    assert verify.results["simplify"][0].ok
    with pytest.raises(InternalError, match="compress: the model computes something else after it:\n  `y`"):
        after(verify, "compress", model("y = Relu (x)"), model("y = Neg (x)"))
    after(verify, "specialize", model("y = Relu (x)"), object())  # not a portable stage: none of its business
    assert set(verify.results) == {"simplify", "compress"}


def test_what_comes_after_quantizing_has_to_agree_with_the_quantized_model():
    verify = Verify()
    after(verify, "simplify", model("y = Relu (x)"), model("y = Relu (x)"))
    after(verify, "quantize", model("y = Relu (x)"), model("y = Neg (x)"))
    after(verify, "compress", model("y = Neg (x)"), model("a = Neg (x) y = Identity (a)"))
    assert verify.results["compress"][0].ok and "quantize" not in verify.results
    with pytest.raises(InternalError, match="compress: the model computes something else"):
        after(verify, "compress", model("y = Neg (x)"), model("y = Relu (x)"))


def quantized(body: str, dtype: str) -> Model:
    constants = "<float s = {0.5}, uint8 z = {128}>"
    text = f'<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => ({dtype}[2,3] y) {constants} {{ {body} }}'
    kind = {"float": "float32"}.get(dtype, dtype)
    spec = TensorSpec("x", "float32", (2, 3)), TensorSpec("y", kind, (2, 3))
    return Model(onnx_ir.from_proto(onnx.parser.parse_model(text)), "net", spec[:1], spec[1:])


def test_a_quantized_output_may_be_one_step_away_and_no_more():
    given = quantized("q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)", "float")
    x = {"x": np.full((2, 3), 7, np.float32)}
    expected = reference(given, x)
    (found,) = judge(given, x, expected, {"y": expected["y"] + 0.5})
    assert found.ok and found.tolerance == pytest.approx(0.5 / 7, rel=2e-3)
    (found,) = judge(given, x, expected, {"y": expected["y"] + 1.0})
    assert not found.ok


def test_integers_that_were_just_quantized_may_be_one_away():
    given = quantized("y = QuantizeLinear (x, s, z)", "uint8")
    x = {"x": np.full((2, 3), 7, np.float32)}
    expected = reference(given, x)
    assert judge(given, x, expected, {"y": expected["y"] + np.uint8(1)})[0].ok
    assert not judge(given, x, expected, {"y": expected["y"] + np.uint8(2)})[0].ok


def test_the_rounding_level_of_a_quantized_model_comes_through_the_scales_of_its_weights():
    """A rounding between two steps falls to the other side by an error of the size of float32's own."""
    random = np.random.default_rng(0)
    body = (
        "w = DequantizeLinear <axis=1> (k, t, n) a = QuantizeLinear (x, s, z) b = DequantizeLinear (a, s, z)"
        " c = MatMul (b, w) d = QuantizeLinear (c, u, z) e = DequantizeLinear (d, u, z) y = Neg (e)"
    )
    given = quantized(body, "float")
    proto = onnx_ir.to_proto(given.graph)
    constants = {
        "k": random.integers(-9, 9, (3, 3)).astype(np.int8), "t": np.full(3, 0.25, np.float32),
        "n": np.zeros(3, np.int8), "u": np.float32(0.25),
    }  # fmt: skip
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    given = Model(onnx_ir.from_proto(proto), "net", given.inputs, given.outputs)
    x = {"x": random.integers(-20, 20, (2, 3)).astype(np.float32) / 4}
    level = rounding_level(given, x, ["y"])
    assert 0 < level["y"] < 1, "ties, of which some fall to the other side"


def test_the_rounding_level_leaves_what_decides_shapes():
    """Scales of 1 + 1e-7 of a batch are none that ONNX Runtime takes, and 2 - 1e-7 gives one element less."""
    text = """g (float[1, 1, 2, 3] x) => (float[1, 1, 4, 6] y) <float[4] scales = {1, 1, 2, 2}, float[1] t = {0.3}> {
      a = Mul (x, t)
      y = Resize <mode = "linear"> (a, , scales)
    }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    specs = TensorSpec("x", "float32", (1, 1, 2, 3)), TensorSpec("y", "float32", (1, 1, 4, 6))
    given = Model(onnx_ir.from_proto(proto), "net", specs[:1], specs[1:])
    level = rounding_level(given, {"x": np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)}, ["y"])
    assert 0 < level["y"] < 1e-6


def test_the_rounding_level_leaves_exponents():
    """A negative number to the power of 2 + 1e-7 is none."""
    text = """g (float[4] x) => (float[4] y) <float two = {2}, float third = {0.3}> {
      a = Pow (x, two)
      y = Mul (a, third)
    }"""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    specs = TensorSpec("x", "float32", (4,)), TensorSpec("y", "float32", (4,))
    given = Model(onnx_ir.from_proto(proto), "net", specs[:1], specs[1:])
    level = rounding_level(given, {"x": np.float32([-2, -1, 1, 2])}, ["y"])
    assert 0 < level["y"] < 1e-6


def test_products_of_rounded_factors_are_held_against_that_rounding():
    random = np.random.default_rng(0)
    w = random.standard_normal((256, 16)).astype(np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    float_ = onnx.TensorProto.FLOAT
    infos = [onnx.helper.make_tensor_value_info(n, float_, s) for n, s in (("x", (8, 256)), ("y", (8, 16)))]
    graph = onnx.helper.make_graph([node], "g", infos[:1], infos[1:], [onnx.numpy_helper.from_array(w, "w")])
    given = Model(
        onnx_ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])),
        "net",
        (TensorSpec("x", "float32", (8, 256)),),
        (TensorSpec("y", "float32", (8, 16)),),
    )
    x = {"x": random.standard_normal((8, 256)).astype(np.float32)}
    expected = reference(given, x)
    halves = {"y": x["x"].astype(np.float16).astype(np.float32) @ w.astype(np.float16).astype(np.float32)}
    assert not judge(given, x, expected, halves)[0].ok
    assert judge(given, x, expected, halves, "float16")[0].ok
    assert not judge(given, x, expected, {"y": expected["y"] * np.float32(1.01)}, "float16")[0].ok
