"""Which products run on integers, and the reasons of those that do not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Net
from quantized_layers import STEP, QuantizedNet

from nncc.config import Config
from nncc.ir import Fallback, Quantization
from nncc.pipeline import plan, run


def quantization(net: Net, folder: Path, target: str = "x86-64-v4-vnni") -> Quantization | None:
    net.save(folder / "net.onnx")
    config = Config(target=target, threads=1, until="specialize", verify=False)
    return run(plan(folder / "net.onnx", config)).quantization


def reason(net: Net, folder: Path, target: str = "x86-64-v4-vnni") -> str:
    """Of the one product of a net, which stays float32."""
    found = quantization(net, folder, target)
    assert found is not None and found.integer_macs == 0 and found.macs > 0
    (layer,) = found.float_layers
    return layer.reason


def conv_of(x: str, net: QuantizedNet, q: np.ndarray, scale: Any, zero: Any, **attributes: Any) -> QuantizedNet:
    """A convolution by weights of these integers."""
    grid = net.constant(scale, np.float32), net.constant(zero, q.dtype)
    net.output(net.op("Conv", x, net.op("DequantizeLinear", net.constant(q), *grid, **attributes)))
    return net


@pytest.fixture
def net() -> QuantizedNet:
    return QuantizedNet()


def test_nothing_is_said_of_a_model_of_floats(net: QuantizedNet, tmp_path: Path) -> None:
    net.output(Net.conv(net, net.input(1, 16, 8, 8), 16, 16, (1, 1)))
    assert quantization(net, tmp_path) is None


def test_multiply_adds_are_counted(net: QuantizedNet, tmp_path: Path) -> None:
    """Of 2 x 6 x 6 results with 8 x 9 products on integers each, and of 36 with 2 in float32, of which no word is said:
    nothing of them is quantized."""
    x = net.conv(net.grid(net.input(1, 16, 8, 8)), 16, 2, (3, 3))
    net.output(Net.conv(net, net.op("Relu", x), 2, 1, (1, 1)))
    assert quantization(net, tmp_path) == Quantization(2 * 36 * 16 * 9, 2 * 36 * 16 * 9 + 36 * 2)


def test_equal_layers_are_one_line(net: QuantizedNet, tmp_path: Path) -> None:
    for _ in range(2):
        net.output(Net.conv(net, net.grid(net.input(1, 16, 8, 8)), 16, 16, (1, 1)))
    found = quantization(net, tmp_path)
    assert found is not None
    assert found.float_layers == (Fallback("conv2d 1x16x8x8*16x16x1x1", "its weights are not quantized", 2),)


def test_input_that_is_not_quantized(net: QuantizedNet, tmp_path: Path) -> None:
    net.output(net.conv(net.input(1, 16, 8, 8), 16, 16, (1, 1)))
    assert reason(net, tmp_path) == "its input is not quantized"


def test_input_of_several_scales(net: QuantizedNet, tmp_path: Path) -> None:
    grid = net.constant(np.full(16, STEP), np.float32), net.constant(np.full(16, 128), np.uint8)
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.input(1, 16, 8, 8), *grid, axis=1), *grid, axis=1)
    net.output(net.conv(x, 16, 16, (1, 1)))
    assert reason(net, tmp_path) == "its input has several scales or zero points"


def test_scale_that_is_computed(net: QuantizedNet, tmp_path: Path) -> None:
    grid = net.op("Abs", net.input(dtype=np.float32)), net.constant(3, np.uint8)
    x = net.op("DequantizeLinear", net.op("QuantizeLinear", net.input(1, 16, 8, 8), *grid), *grid)
    net.output(net.conv(x, 16, 16, (1, 1)))
    expected = "the scale or the zero point of its input is no float32 constant for the tensor or its channels"
    assert reason(net, tmp_path) == expected


def test_input_of_wide_integers(net: QuantizedNet, tmp_path: Path) -> None:
    net.opset = 21
    x = net.grid(net.input(1, 16, 8, 8), 1e-3, 0, np.int16)
    net.output(net.conv(x, 16, 16, (1, 1), step=1e-3))
    assert reason(net, tmp_path) == "its input is int16"


def test_two_activations(net: QuantizedNet, tmp_path: Path) -> None:
    net.output(net.op("MatMul", net.grid(net.input(2, 8, 16)), net.grid(net.input(2, 16, 8))))
    assert quantization(net, tmp_path) == Quantization(2 * 8 * 8 * 16, 2 * 8 * 8 * 16)


def test_two_activations_where_their_product_is_what_takes_the_time(net: QuantizedNet, tmp_path: Path) -> None:
    """Few channels and many sums, of which each becomes float32 again: integers still win by the product; and without
    instructions for integers, where a product costs a dozen operations, they do not."""
    net.output(net.op("MatMul", net.grid(net.input(32, 16)), net.grid(net.input(16, 512))))
    assert quantization(net, tmp_path) == Quantization(32 * 16 * 512, 32 * 16 * 512)
    assert re.fullmatch(
        r"predicted 0\.\d+ million vector operations on integers, 0\.\d+ in float32", reason(net, tmp_path, "riscv64")
    )


@pytest.mark.parametrize(("columns", "skipped"), [(64, True), (10, False)])
def test_zeros_count_where_a_kernel_skips_them(tmp_path: Path, columns: int, skipped: bool) -> None:
    """Where columns are no whole panels, zeros are multiplied as other weights are."""
    reasons = []
    for rows in (4, 64):
        net = QuantizedNet()
        q = np.zeros((64, columns), np.int8)
        q[:rows] = 1
        grid = net.constant(0.01, np.float32), net.constant(0, np.int8)
        net.output(net.op("MatMul", net.grid(net.input(32, 64)), net.op("DequantizeLinear", net.constant(q), *grid)))
        reasons.append(reason(net, tmp_path, "riscv64"))
    assert (reasons[0] != reasons[1]) == skipped


def test_two_activations_with_axes_that_are_broadcast(net: QuantizedNet, tmp_path: Path) -> None:
    net.output(net.op("MatMul", net.grid(net.input(3, 2, 8, 16)), net.grid(net.input(1, 2, 16, 8))))
    assert reason(net, tmp_path) == "its leading axes are broadcast"


def test_two_activations_with_long_sums(net: QuantizedNet, tmp_path: Path) -> None:
    net.output(net.op("MatMul", net.grid(net.input(2, 33_026)), net.grid(net.input(33_026, 2))))
    assert reason(net, tmp_path) == "sums of more than 33025 products of bytes may leave int32"


def test_scores_of_attention_in_float32(net: QuantizedNet, tmp_path: Path) -> None:
    """Its kernel makes them on the way; where the product behind the softmax is one of integers, so are they."""
    q, k = net.grid(net.input(2, 24, 16)), net.grid(net.input(2, 16, 24))
    scores = net.op("Mul", net.op("MatMul", q, k), net.constant(np.float32(0.25)))
    net.output(net.op("MatMul", net.op("Softmax", scores, axis=-1), net.input(2, 24, 16)))
    expected = "attention in float32 from its scores on is one kernel, which makes the scores too"
    assert reason(net, tmp_path) == expected


def test_weights_that_do_not_fit(net: QuantizedNet, tmp_path: Path) -> None:
    q = np.arange(256, dtype=np.uint8).reshape(16, 16, 1, 1)
    conv_of(net.grid(net.input(1, 16, 8, 8)), net, q, 0.01, 100)
    assert reason(net, tmp_path) == "its weights do not fit int8 without their zero points"


def test_weights_of_minus_128(net: QuantizedNet, tmp_path: Path) -> None:
    """They fit where products are added in 32 bits, and not where two of them are added in 16."""
    q = np.arange(-128, 128, dtype=np.int8).reshape(16, 16, 1, 1)
    conv_of(net.grid(net.input(1, 16, 8, 8)), net, q, 0.01, 0)
    found = quantization(net, tmp_path)
    assert found is not None and found.integer_macs == found.macs
    expected = "a weight is -128, which this processor's sums of two products do not hold"
    assert reason(net, tmp_path, "arm64") == expected


def test_unsigned_weights_whose_zero_point_is_the_middle(net: QuantizedNet, tmp_path: Path) -> None:
    q = np.arange(256, dtype=np.uint8).reshape(16, 16, 1, 1)
    conv_of(net.grid(net.input(1, 16, 8, 8)), net, q, 0.01, 128)
    found = quantization(net, tmp_path)
    assert found is not None and found.integer_macs == found.macs


def test_scales_of_weights_along_another_axis(net: QuantizedNet, tmp_path: Path) -> None:
    q = np.ones((16, 16, 1, 1), np.int8)
    scale = np.linspace(0.01, 0.02, 16)
    conv_of(net.grid(net.input(1, 16, 8, 8)), net, q, scale, np.zeros(16), axis=1)
    assert reason(net, tmp_path) == "its weights have several scales for one output"


def test_several_matrices_of_weights(net: QuantizedNet, tmp_path: Path) -> None:
    weights = net.weights(2, 16, 8, axis=2)[0]
    net.output(net.op("MatMul", net.grid(net.input(2, 8, 16)), weights))
    assert reason(net, tmp_path) == "there are several matrices of weights"


def test_transposed_convolutions_with_groups(net: QuantizedNet, tmp_path: Path) -> None:
    weights = net.weights(16, 8, 2, 2, axis=1)[0]
    net.output(net.op("ConvTranspose", net.grid(net.input(1, 16, 8, 8)), weights, group=2))
    assert reason(net, tmp_path) == "it is transposed and has groups"


def test_transposed_convolutions_with_large_strides(net: QuantizedNet, tmp_path: Path) -> None:
    weights = net.weights(16, 8, 5, 5, axis=1)[0]
    net.output(net.op("ConvTranspose", net.grid(net.input(1, 16, 4, 4)), weights, strides=[5, 5]))
    assert reason(net, tmp_path) == "it is transposed and has large strides"


def test_three_dimensions(net: QuantizedNet, tmp_path: Path) -> None:
    net.output(net.conv(net.grid(net.input(1, 16, 4, 4, 4)), 16, 16, (1, 1, 1)))
    assert reason(net, tmp_path) == "no template takes `conv3d`"
