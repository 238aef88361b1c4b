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
from nncc.verify import compare, reference, sample_inputs


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


def test_argmax_agreement_is_the_share_of_rows():
    expected = np.float32([[1, 2], [2, 1]])
    assert one(expected, expected[::-1]).argmax_agreement == 0.0
    assert one(expected, np.float32([[1, 2], [1, 2]])).argmax_agreement == 0.5
    assert one(np.float32([1, 2]), np.float32([1, 2])).argmax_agreement is None


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
