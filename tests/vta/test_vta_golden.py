"""The reference of the accelerator's layers is what ONNX Runtime computes."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nncc.vta.golden import fused, golden
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine

NV1, VTA0 = Machine("nv1"), Machine("vta0")


def in_onnxruntime(node: onnx.NodeProto, inputs: dict[str, np.ndarray], constants: dict[str, np.ndarray]) -> np.ndarray:
    """What a node of int8 makes of its inputs."""
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.INT8, value.shape) for name, value in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.INT8, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, inputs)[0])


def blocked(images: np.ndarray) -> np.ndarray:
    """[1, channels, height, width] as [blocks, height, width, 16]."""
    _, channels, height, width = images.shape
    return images.reshape(channels // 16, 16, height, width).transpose(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("groups", "stride", "dilation", "relu"), [(1, 2, 1, False), (1, 1, 2, True), (32, 1, 1, False)]
)
def test_a_convolution_is_requantized_as_by_onnxruntime(groups: int, stride: int, dilation: int, relu: bool) -> None:
    random = np.random.default_rng(groups + stride)
    channels, zero_in, zero_out = 32, -7, 11
    x = random.integers(-128, 128, (1, channels, 9, 8), np.int8)
    w = random.integers(-127, 128, (channels, channels // groups, 3, 3), np.int8)
    bias = random.integers(-20000, 20000, channels).astype(np.int32)
    scale_in, scale_out = np.float32(0.02), np.float32(0.11)
    scales = random.uniform(0.0005, 0.004, channels).astype(np.float32) * np.float32(6 if groups > 1 else 1)
    node = helper.make_node(
        "QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"], ["y"],
        group=groups, pads=[1, 2, 1, 2], strides=[stride] * 2, dilations=[dilation] * 2,
    )  # fmt: skip
    constants = {
        "sx": scale_in, "zx": np.int8(zero_in), "w": w, "sw": scales, "zw": np.zeros(channels, np.int8),
        "sy": scale_out, "zy": np.int8(zero_out), "b": bias,
    }  # fmt: skip
    expected = in_onnxruntime(node, {"x": x}, {name: np.asarray(value) for name, value in constants.items()})
    expected = np.maximum(expected, zero_out) if relu else expected

    output = (2, *expected.shape[2:])
    kind = "conv2d" if groups == 1 else "depthwise"
    layer = Layer(
        kind, (2, 9, 8), output, (3, 3), (stride,) * 2, (1, 2, 1, 2), (dilation,) * 2, zero_in, zero_out, relu
    )
    # The zero point of the input is taken off by the bias: sum w (x - z) = sum w x - z sum w.
    folded = (bias - zero_in * w.astype(np.int32).sum(axis=(1, 2, 3))).astype(np.int32)
    factors = (scale_in * scales / scale_out).astype(np.float32)
    params = np.concatenate([folded.reshape(2, 16).view(np.uint8), factors.reshape(2, 16).view(np.uint8)], axis=1)
    if groups == 1:
        weights = w.reshape(2, 16, 2, 16, 3, 3).transpose(0, 2, 4, 5, 1, 3)
    else:
        weights = np.zeros((2, 1, 16, 16), np.int8)
        weights[:, 0, :9] = w.reshape(2, 16, 9).transpose(0, 2, 1)
    np.testing.assert_array_equal(golden(layer, [blocked(x), weights, params], NV1), blocked(expected))


@pytest.mark.parametrize("word", ["first", "second"])
def test_a_sum_is_rounded_as_by_onnxruntime(word: str) -> None:
    random = np.random.default_rng(3)
    a, b = (random.integers(-128, 128, (1, 16, 40, 40), np.int8) for _ in range(2))
    scales, zeros = [np.float32(each) for each in (0.031, 0.017, 0.043)], [5, -9, 3]
    names = ("sa", "za", "sb", "zb", "sy", "zy")
    values = [np.asarray(each) for pair in zip(scales, map(np.int8, zeros), strict=True) for each in pair]
    node = helper.make_node("QLinearAdd", ["a", "sa", "za", "b", "sb", "zb", "sy", "zy"], ["y"], domain="com.microsoft")
    expected = in_onnxruntime(node, {"a": a, "b": b}, dict(zip(names, values, strict=True)))

    ratios = [np.float32(scale / scales[2]) for scale in scales[:2]]
    offsets = np.float32(np.float64(ratios[0]) * (zeros[0] + 128) + np.float64(ratios[1] * np.float32(zeros[1] + 128)))
    params = np.zeros((1, 32), np.float32)
    # `first` of the sum is a; the layer's data is the product's place in it.
    data, other = (a, b) if word == "first" else (b, a)
    params[0, 16:19] = [*(ratios if word == "first" else ratios[::-1]), np.float32(zeros[2] + 128) - offsets]
    layer = Layer("add", (1, 40, 40), (1, 40, 40), residual=word)  # type: ignore[arg-type]
    result = golden(layer, [blocked(data), params.view(np.uint8), blocked(other)], NV1)
    np.testing.assert_array_equal(result, blocked(expected))


def test_a_fused_product_and_sum_are_rounded_once() -> None:
    random = np.random.default_rng(0)
    factors = random.integers(0, 256, 400).astype(np.float64)
    ratios = (random.uniform(-2, 2, 400) * 2.0 ** random.integers(-30, 30, 400)).astype(np.float32)
    addends = (random.uniform(-200, 200, 400) * 2.0 ** random.integers(-30, 30, 400)).astype(np.float32)
    for factor, ratio, addend in zip(factors, ratios, addends, strict=True):
        exact = Fraction(float(factor)) * Fraction(float(ratio)) + Fraction(float(addend))
        result = np.float32(fused(np.array([factor]), ratio, addend)[0])
        error = abs(Fraction(float(result)) - exact)
        for neighbour in (np.nextafter(result, np.float32(-np.inf)), np.nextafter(result, np.float32(np.inf))):
            assert error <= abs(Fraction(float(neighbour)) - exact)


def test_a_maximum_does_not_see_its_padding_and_a_shift_rounds_half_up_by_its_bias() -> None:
    data = np.full((1, 2, 2, 16), -100, np.int8)
    pool = Layer("max_pool", (1, 2, 2), (1, 2, 2), (3, 3), (1, 1), (1, 1, 1, 1), pad_value=-128)
    assert (golden(pool, [data], NV1) == -100).all()
    # 1.5 and -1.5 in units of 16, and half of a unit as bias.
    layer = Layer("conv2d", (1, 1, 2), (1, 1, 2), shift=4)
    weights = np.eye(16, dtype=np.int8)[None]
    pair = np.array([24, -24], np.int8)[None, None, :, None].repeat(16, 3)
    result = golden(layer, [pair, weights, np.full((1, 16), 8, np.int32)], VTA0)
    assert result[0, 0, :, 0].tolist() == [2, -1]
