"""Resize and Upsample as ONNX says: every mode, every way to map coordinates, any number of axes."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net
from onnx.reference import ReferenceEvaluator

from nncc.errors import ModelError

COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners")
CROP = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.7}


def matches_onnx(net: Net, tmp_path, tolerance: float) -> None:
    """Claim that the library computes what ONNX's reference implementation computes."""
    compiled = compile_net(net, tmp_path)
    inputs = compiled.sample()
    found = compiled.run(inputs)
    for name, expected in zip(net.outputs, ReferenceEvaluator(net.model()).run(None, inputs), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=tolerance, err_msg=name)


def test_sizes_as_onnx_runtime_has_them(tmp_path):
    net = Net(opset=19)
    image, signal, volume = net.input(2, 3, 7, 5), net.input(1, 2, 9), net.input(1, 2, 3, 4, 5)
    for coordinates in COORDINATES:
        for mode, rounding in (
            ("linear", "floor"), ("cubic", "floor"), *(("nearest", word) for word in
            ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")),
        ):  # fmt: skip
            options = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": rounding}
            net.output(net.op("Resize", image, "", "", net.ints(2, 3, 4, 11), **options))
            if mode != "cubic":  # which ONNX Runtime has for two axes only
                net.output(net.op("Resize", volume, "", "", net.ints(1, 2, 5, 2, 7), **options))
            if mode == "nearest":
                net.output(net.op("Resize", signal, "", "", net.ints(1, 2, 14), **options))
    # Weights of 4 or 16 taps, each rounded once more than in the other order of summing.
    agrees(net, tmp_path, tolerance=1e-5)


def test_scales_that_give_no_whole_sizes(tmp_path):
    net = Net(opset=19)
    image = net.input(1, 2, 7, 5)
    scales = net.constant([1, 1, 0.6, 1.7], np.float32)
    for coordinates in COORDINATES:
        for mode in ("nearest", "linear", "cubic"):
            net.output(net.op("Resize", image, "", scales, mode=mode, coordinate_transformation_mode=coordinates))
    # The reference computes coordinates in float64; ours are float32, 7 elements apart at most: 7 eps times the slope.
    matches_onnx(net, tmp_path, tolerance=1e-5)


def test_a_filter_against_aliasing_and_one_without_what_is_outside(tmp_path):
    net = Net(opset=19)
    image = net.input(1, 2, 13, 10)
    for scales in ([1, 1, 0.3, 0.45], [1, 1, 0.6, 1.5]):
        factors = net.constant(scales, np.float32)
        for mode in ("linear", "cubic"):
            net.output(net.op("Resize", image, "", factors, mode=mode, antialias=1))
        net.output(net.op("Resize", image, "", factors, mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1))
    matches_onnx(net, tmp_path, tolerance=1e-5)


def test_some_axes_only_and_a_ratio_that_is_kept(tmp_path):
    net = Net(opset=19)
    image = net.input(2, 6, 4, 3)
    for policy in ("stretch", "not_larger", "not_smaller"):
        for mode in ("nearest", "linear"):
            options = {"axes": [2, 1], "mode": mode, "keep_aspect_ratio_policy": policy}
            net.output(net.op("Resize", image, "", "", net.ints(7, 9), **options))
    agrees(net, tmp_path, tolerance=1e-5)


def test_crops_have_a_value_for_what_is_outside(tmp_path):
    net = Net(opset=19)
    image = net.input(1, 2, 6, 8)
    roi = net.constant([0, 0, 0.2, -0.1, 1, 1, 0.7, 1.2], np.float32)
    for mode in ("nearest", "linear"):
        net.output(net.op("Resize", image, roi, "", net.ints(1, 2, 5, 9), mode=mode, **CROP))
    agrees(net, tmp_path, tolerance=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32])
def test_integers_are_picked_or_interpolated_and_cut_off(tmp_path, dtype):
    net = Net(opset=19)
    image = net.input(1, 2, 6, 4, dtype=dtype)
    net.output(net.op("Resize", image, "", "", net.ints(1, 2, 9, 7), mode="nearest"))
    doubled = net.op("Resize", image, "", "", net.ints(1, 2, 12, 8), mode="linear")  # by quarters: exact in float32
    net.output(doubled)
    agrees(net, tmp_path, inputs={image: np.arange(48).reshape(1, 2, 6, 4).astype(dtype)})


@pytest.mark.parametrize("opset", [7, 9])
def test_upsample_of_old_opsets(tmp_path, opset):
    net = Net(opset=opset)
    image = net.input(1, 2, 3, 5)
    factors = [1.0, 1.0, 2.0, 1.5]
    for mode in ("nearest", "linear"):
        if opset < 9:
            net.output(net.op("Upsample", image, scales=factors, mode=mode))
        else:
            net.output(net.op("Upsample", image, net.constant(factors, np.float32), mode=mode))
    agrees(net, tmp_path, tolerance=1e-5)


def test_resize_of_opset_10_rounds_as_it_did_then(tmp_path):
    net = Net(opset=10)
    image = net.input(1, 1, 7, 6)
    for factors in ([1, 1, 0.6, 0.5], [1, 1, 2, 1.7]):
        net.output(net.op("Resize", image, net.constant(factors, np.float32), mode="nearest"))
    agrees(net, tmp_path)


def test_a_size_known_only_at_run_time_is_refused(tmp_path):
    net = Net(opset=19)
    image, sizes = net.input(1, 1, 2, 2), net.input(4, dtype=np.int64, name="sizes")
    net.output(net.op("Reshape", net.op("Resize", image, "", "", sizes), net.ints(1, 1, 4, 4)))
    with pytest.raises(ModelError) as caught:
        compile_net(net, tmp_path)
    assert str(caught.value) == (
        "the operator `Resize` is used in a form that cannot be compiled: its input `sizes` is known only at run time"
    )
    assert caught.value.hint == "make `sizes` a constant of the model"
