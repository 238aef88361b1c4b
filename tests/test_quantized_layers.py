"""Layers of quantized models run on integers, fused, and give what ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Compiled, Net, compile_net
from quantized_layers import STEP, QuantizedNet, within_a_step


def kernels_of(compiled: Compiled) -> str:
    return "\n".join(compiled.kernels.schedules)


def on_integers(compiled: Compiled) -> None:
    """Claim that no convolution and no matrix product is computed in float32."""
    found = compiled.kernels.quantization
    assert found is not None and found.float_layers == ()
    assert found.integer_macs == found.macs > 0


def relu(net: QuantizedNet, x: str, scale: float = STEP) -> str:
    """max(x, 0) on a grid that has nothing below."""
    return net.grid(net.op("Relu", x), scale, 0)


def test_mobile_blocks(tmp_path: Path) -> None:
    """Expand, depthwise with stride, project, and the sum with what came in: four kernels, and no tensor of floats."""
    net = QuantizedNet()
    x = relu(net, net.conv(net.grid(net.input(1, 3, 24, 24)), 3, 16, (3, 3), pads=[1] * 4, strides=[2, 2]))
    y = relu(net, net.conv(x, 16, 48, (1, 1)))
    y = relu(net, net.conv(y, 48, 48, (3, 3), pads=[1] * 4, group=48))
    y = net.grid(net.op("Add", net.grid(net.conv(y, 48, 16, (1, 1))), x), 2.1 * STEP)
    net.output(net.grid(net.conv(y, 16, 24, (1, 1), step=2.1 * STEP)))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    assert "dequantize_reshape" not in kernels_of(compiled)
    assert not any(name.startswith("fused_dequantize") for name in compiled.kernels.schedules)


def test_residual_blocks(tmp_path: Path) -> None:
    """A bottleneck, whose 1x1 convolutions have their rows in one, and a basic block after it: sums are parts of the
    kernels before them, in whatever form these have."""
    net = QuantizedNet()
    x = relu(net, net.conv(net.grid(net.input(1, 3, 16, 16)), 3, 32, (3, 3), pads=[1] * 4))
    y = relu(net, net.conv(x, 32, 16, (1, 1)))
    y = relu(net, net.conv(y, 16, 16, (3, 3), pads=[1] * 4))
    y = relu(net, net.op("Add", net.grid(net.conv(y, 16, 32, (1, 1))), x))
    z = net.grid(net.conv(relu(net, net.conv(y, 32, 16, (1, 1))), 16, 32, (3, 3), pads=[1] * 4))
    z = net.grid(net.op("Add", z, y), 2.1 * STEP)
    net.output(net.grid(net.conv(z, 32, 16, (1, 1), step=2.1 * STEP)))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    names = compiled.kernels.schedules
    assert all(schedule != "loops" for name, schedule in names.items() if "_add" in name), names


def test_fire_module(tmp_path: Path) -> None:
    """Tensors of two scales are concatenated on a third one, where they are made, and pooled as bytes."""
    net = QuantizedNet()
    x = net.grid(net.input(1, 32, 16, 16), STEP, 100)
    squeezed = relu(net, net.conv(x, 32, 16, (1, 1)), STEP / 2)
    wide = [
        relu(net, net.conv(squeezed, 16, 32, (size, size), pads=[size // 2] * 4, step=STEP / 2), scale)
        for size, scale in ((1, 0.03), (3, 0.02))
    ]
    together = net.grid(net.op("Concat", *wide, axis=1), 0.025, 0)
    pooled = net.grid(net.op("MaxPool", together, kernel_shape=[3, 3], strides=[2, 2]), 0.025, 0)
    net.output(net.grid(net.conv(pooled, 64, 16, (3, 3), step=0.025)))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    assert "pool2d" in compiled.kernels.schedules  # nothing is rounded or scaled there
    moves = [name for name in compiled.kernels.schedules if "concat" in name and name != "concatenate"]
    assert moves == []


def test_parts_of_blocks_are_concatenated_and_split(tmp_path: Path) -> None:
    """Channels that do not fill blocks of integers."""
    net = QuantizedNet()
    x = net.grid(net.input(1, 12, 16, 16), STEP, 100)
    a = net.grid(net.conv(x, 12, 20, (1, 1)), 0.03)
    b = net.grid(net.conv(x, 12, 12, (3, 3), pads=[1] * 4), 0.02, 100)
    halves = net.op("Split", net.grid(net.op("Concat", a, b, axis=1), 0.03), net.ints(16, 16), axis=1, outputs=2)
    for half in halves:
        net.output(net.grid(net.conv(net.grid(half, 0.03), 16, 16, (1, 1), step=0.03)))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    assert sum("move_channels" in schedule for schedule in compiled.kernels.schedules.values()) == 3


def test_pools_and_means_take_integers(tmp_path: Path) -> None:
    """Maxima are those of bytes; averages, with and without the border, and means are of exact sums."""
    net = QuantizedNet()
    x = net.conv(net.grid(net.input(1, 3, 32, 32), STEP, 100), 3, 24, (3, 3), pads=[1] * 4, strides=[2, 2])
    x = net.grid(x, STEP, 77)
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    pooled = [
        (net.op("MaxPool", x, **window), STEP, 77),
        (net.op("AveragePool", x, **window), STEP / 2, 90),
        (
            net.op("AveragePool", x, kernel_shape=[5, 5], strides=[2, 2], pads=[2] * 4, count_include_pad=1),
            STEP / 2,
            90,
        ),
        (net.op("GlobalAveragePool", x), STEP / 8, 90),
    ]
    for value, scale, zero in pooled:
        net.output(net.grid(net.conv(net.grid(value, scale, zero), 24, 16, (1, 1), step=scale), scale))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    assert not any("dequantize_pool" in name or name == "dequantize" for name in compiled.kernels.schedules)


def test_integers_with_a_sign(tmp_path: Path) -> None:
    net = QuantizedNet()
    signed = {"dtype": np.int8}
    x = net.conv(net.grid(net.input(1, 8, 12, 12), STEP, -5, **signed), 8, 32, (3, 3), pads=[1] * 4)
    x = net.grid(net.op("Relu", x), STEP, -128, **signed)
    x = net.grid(net.conv(x, 32, 32, (3, 3), pads=[1] * 4, group=32), STEP, 3, **signed)
    x = net.grid(net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4), STEP, 3, **signed)
    x = net.grid(net.conv(x, 32, 32, (3, 3), pads=[1] * 4, group=2), STEP, 3, **signed)
    x = net.grid(net.layer("ConvTranspose", x, (32, 16, 2, 2), 16, strides=[2, 2]), STEP, 0, **signed)
    net.output(x, net.grid(net.op("GlobalAveragePool", x), STEP / 8, 0, **signed))
    on_integers(within_a_step(net, tmp_path))


def test_grouped_dilated_and_strided_convolutions_of_a_batch(tmp_path: Path) -> None:
    net = QuantizedNet()
    x = net.grid(net.input(2, 64, 9, 9), STEP, 100)
    x = net.grid(net.conv(x, 64, 96, (3, 3), pads=[1] * 4, group=2))
    x = net.grid(net.conv(x, 96, 24, (3, 3), pads=[2] * 4, group=8, dilations=[2, 2]), STEP, 140)
    x = net.grid(net.conv(x, 24, 24, (3, 3), pads=[2] * 4, group=24, dilations=[2, 2]))
    net.output(net.grid(net.conv(x, 24, 40, (3, 3), dilations=[2, 2], strides=[2, 1])))
    on_integers(within_a_step(net, tmp_path))


@pytest.mark.parametrize(
    ("kernel", "attributes"),
    [
        ((3, 3), {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}),
        ((2, 3), {"strides": [2, 1], "dilations": [1, 2]}),
        ((2, 2), {"strides": [3, 3]}),
    ],
    ids=["overlapping", "dilated", "with gaps"],
)
def test_transposed_convolutions(tmp_path: Path, kernel: tuple[int, int], attributes: dict[str, list[int]]) -> None:
    """What lies around the image, and between its elements, counts nothing, whatever zero point it has."""
    net = QuantizedNet()
    x = net.grid(net.input(1, 20, 7, 9), STEP, 100)
    net.output(net.grid(net.layer("ConvTranspose", x, (20, 24, *kernel), 24, **attributes)))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    assert any("conv2d_transpose" in schedule for schedule in compiled.kernels.schedules.values())


def test_signals(tmp_path: Path) -> None:
    """Convolutions of one axis, forth and back, take the templates of those of two."""
    net = QuantizedNet()
    x = net.conv(net.grid(net.input(1, 8, 40)), 8, 24, (3,), pads=[1, 1])
    x = net.op("MaxPool", relu(net, x), kernel_shape=[3], strides=[2])
    x = net.grid(net.conv(net.grid(x, STEP, 0), 24, 24, (5,), pads=[2, 2], group=24))
    net.output(net.grid(net.layer("ConvTranspose", x, (24, 10, 4), 10, strides=[2], pads=[1, 1])))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    used = {schedule.split()[0] for schedule in compiled.kernels.schedules.values()}
    assert used >= {"conv2d", "depthwise_conv2d", "conv2d_transpose", "pool2d"}


def test_borders_and_nearest_neighbours_are_bytes(tmp_path: Path) -> None:
    net = QuantizedNet()
    x = relu(net, net.conv(net.grid(net.input(1, 3, 12, 12), STEP, 100), 3, 32, (3, 3), pads=[1] * 4))
    sizes = net.constant([1, 1, 2, 2], np.float32)
    asymmetric = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    y = net.grid(net.op("Resize", x, "", sizes, mode="nearest", **asymmetric), STEP, 0)
    y = net.grid(net.op("Pad", y, net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"), STEP, 0)
    z = net.grid(net.op("Pad", x, net.ints(0, 0, 1, 2, 0, 0, 0, 3)), STEP, 0)
    net.output(net.grid(net.conv(y, 32, 16, (3, 3))), net.grid(net.conv(z, 32, 16, (1, 1))))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    assert not any("dequantize_" in name and "conv2d" not in name for name in compiled.kernels.schedules)


def test_matrix_products(tmp_path: Path) -> None:
    """Transposed factors, numbers that they are multiplied by, a bias of floats, results of floats, three axes, and an
    input that is read as floats too."""
    net = QuantizedNet()
    x = net.grid(net.layer("Gemm", net.grid(net.input(4, 40)), (24, 40), 24, transB=1))
    net.output(net.grid(net.op("Gemm", x, net.weights(24, 10, axis=1)[0], net.weight(10), alpha=0.5, beta=2.0)))
    x = net.grid(net.input(2, 7, 40))
    net.output(net.op("MatMul", x, net.weights(40, 33, axis=1)[0]), net.op("Relu", x))
    x = net.grid(net.input(40, 3))
    net.output(net.grid(net.op("Gemm", x, net.weights(40, 33, axis=1)[0], transA=1)))
    on_integers(within_a_step(net, tmp_path))


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_products_of_activations_with_heads_behind_their_rows(tmp_path: Path, target: str) -> None:
    """The sums that zero points are taken off by move as the tensors do."""
    net = QuantizedNet()
    q, k = net.grid(net.input(1, 9, 3, 15), STEP, 152), net.grid(net.input(1, 13, 3, 15), STEP, 120)
    q, k = net.op("Transpose", q, perm=[0, 2, 1, 3]), net.op("Transpose", k, perm=[0, 2, 3, 1])
    net.output(net.grid(net.op("MatMul", net.grid(q, STEP, 152), net.grid(k, STEP, 120)), STEP))
    on_integers(within_a_step(net, tmp_path, target=target))


def test_a_product_of_floats_from_an_input_that_others_read_as_floats(tmp_path: Path) -> None:
    net = QuantizedNet()
    x = net.grid(net.input(1, 16, 8, 8), STEP, 100)
    net.output(net.conv(x, 16, 20, (1, 1)), net.op("Sigmoid", x))
    on_integers(within_a_step(net, tmp_path))


@pytest.mark.parametrize("kind", ["HardSwish", "HardSigmoid", "LeakyRelu"])
def test_short_functions_are_parts_of_the_kernel_before_them(tmp_path: Path, kind: str) -> None:
    net = QuantizedNet()
    x = net.grid(net.conv(net.grid(net.input(1, 16, 8, 8)), 16, 32, (1, 1)))
    y = net.grid(net.op(kind, x), STEP / 2)
    net.output(net.grid(net.conv(y, 32, 16, (1, 1), step=STEP / 2)))
    compiled = within_a_step(net, tmp_path)
    on_integers(compiled)
    assert all("conv2d" in name or "block" in name or "reshape" in name for name in compiled.kernels.schedules)


def test_moves_of_tensors_without_blocks(tmp_path: Path) -> None:
    """No convolution is near: bytes move in TVM's own kernels, and what is concatenated is rounded once more."""
    net = QuantizedNet()
    x, y = net.grid(net.input(1, 3, 6, 8)), net.grid(net.input(1, 3, 6, 8), 0.03, 100)
    z = net.grid(net.op("Concat", x, y, axis=2), 0.05)
    z = net.grid(net.op("Pad", z, net.ints(0, 0, 1, 1, 0, 0, 1, 1)), 0.05)
    z = net.grid(net.op("MaxPool", z, kernel_shape=[2, 2], strides=[2, 2]), 0.05)
    z = net.op("Slice", z, net.ints(1), net.ints(7), net.ints(2), net.ints(2))
    z = net.grid(net.op("Transpose", z, perm=[0, 2, 3, 1]), 0.05)
    z = net.op("Reshape", z, net.ints(9, 5))
    half, rest = net.op("Split", net.grid(z, 0.05), net.ints(2, 3), axis=1, outputs=2)
    net.output(net.grid(half, 0.05), net.grid(rest, 0.05))
    compiled = within_a_step(net, tmp_path, step=0.05)
    assert not any("pool2d" in name and "quantize" in name for name in compiled.kernels.schedules)


@pytest.mark.parametrize("channels", [3, 10])
@pytest.mark.parametrize("reader", ["conv", "depthwise", "transposed"])
def test_a_float_layer_with_channels_of_no_whole_words(tmp_path: Path, channels: int, reader: str) -> None:
    """Its blocks have as many lanes as channels; those that a product of integers reads have whole words."""
    net = QuantizedNet()
    x = net.grid(Net.conv(net, net.input(1, 8, 9, 9), 8, channels, (3, 3), pads=[1] * 4))
    if reader == "conv":
        y = net.conv(x, channels, 16, (3, 3), pads=[1] * 4)
    elif reader == "depthwise":
        y = net.conv(x, channels, channels, (3, 3), pads=[1] * 4, group=channels)
    else:
        y = net.layer("ConvTranspose", x, (channels, 8, 2, 2), 8, strides=[2, 2])
    net.output(net.grid(y))
    within_a_step(net, tmp_path)


@pytest.mark.parametrize("border", [-np.inf, np.inf, np.nan])
def test_a_border_that_is_no_number_stays_one_of_floats(tmp_path: Path, border: float) -> None:
    net = QuantizedNet()
    widths, filling = net.ints(0, 0, 1, 1, 0, 0, 1, 1), net.constant(border, np.float32)
    x = net.op("Pad", net.grid(net.input(1, 4, 6, 6)), widths, filling)
    net.output(net.op("Max", net.op("Min", x, net.constant(np.float32(9))), net.constant(np.float32(-9))))
    compiled = compile_net(net, tmp_path)
    inputs = compiled.sample()
    for name, expected in compiled.expected(inputs).items():
        np.testing.assert_array_equal(compiled.run(inputs)[name][..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
        if not np.isnan(border):
            np.testing.assert_array_equal(compiled.run(inputs)[name], expected)


def test_a_factor_of_higher_rank_is_no_scale(tmp_path: Path) -> None:
    """It is one number, but gives the product another axis."""
    net = QuantizedNet()
    x = net.op("Mul", net.grid(net.input(6, 16)), net.constant(np.full((1, 1, 1), 0.5), np.float32))
    net.output(net.grid(net.op("MatMul", x, net.weights(16, 32, axis=1)[0])))
    within_a_step(net, tmp_path)


@pytest.mark.filterwarnings("error")
def test_a_factor_of_zero(tmp_path: Path) -> None:
    net = QuantizedNet()
    x = net.layer("Gemm", net.grid(net.input(6, 16)), (16, 32), 32, alpha=0.0)
    net.output(net.grid(x))
    within_a_step(net, tmp_path)


@pytest.mark.parametrize("channels", [8, 16])
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_a_pixel_that_fills_128_bits(tmp_path: Path, channels: int, target: str) -> None:
    """Its words come out of a register where there is one of that size, and else from memory."""
    net = QuantizedNet()
    x = net.grid(net.input(1, channels, 1, 1))
    net.output(net.grid(net.conv(x, channels, 40, (1, 1))))
    within_a_step(net, tmp_path, target=target)


@pytest.mark.parametrize("bias", [2**31 - 1, -(2**31)])
def test_a_clipped_bias_does_not_wrap(tmp_path: Path, bias: int) -> None:
    """At the end of int32, any sum of products of the same sign would carry it to the other end."""
    net = QuantizedNet()
    weight, scale = net.weights(8, 3, 3, 3)
    parameters = net.constant(scale * np.float32(STEP)), net.constant(np.zeros(8), np.int32)
    clipped = net.op("DequantizeLinear", net.constant(np.full(8, bias), np.int32), *parameters, axis=0)
    net.output(net.op("Conv", net.grid(net.input(1, 3, 6, 6)), weight, clipped))
    compiled = compile_net(net, tmp_path)
    inputs = compiled.sample()
    for name, expected in compiled.expected(inputs).items():  # two roundings of the sum in float32
        np.testing.assert_allclose(compiled.run(inputs)[name], expected, rtol=2**-22)
