"""Quantized layers on GPUs multiply integers, whatever the sizes and borders, and round as ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import Emulated, emulate, needs_compiler
from quantized_layers import STEP, QuantizedNet

from nncc.config import Config
from nncc.pipeline import plan, run

pytestmark = needs_compiler


def convolution(shape: tuple[int, ...], out: int, kernel: tuple[int, int], **grid: Any) -> Callable[..., str]:
    attributes = {name: grid.pop(name) for name in ("pads", "strides", "dilations", "group") if name in grid}

    def layer(net: QuantizedNet) -> str:
        x = net.grid(net.input(*shape), **grid)
        return net.grid(net.conv(x, shape[1], out, kernel, **attributes), **grid)

    return layer


def product(shape: tuple[int, ...], out: int, **grid: Any) -> Callable[..., str]:
    def layer(net: QuantizedNet) -> str:
        weight, _ = net.weights(shape[-1], out, axis=1)
        return net.grid(net.op("MatMul", net.grid(net.input(*shape), **grid), weight), **grid)

    return layer


BORDER = {"pads": [1, 1, 1, 1]}
SIGNED = {"zero": 0, "dtype": np.int8}
CASES = {
    "pointwise": convolution((1, 16, 8, 8), 24, (1, 1)),
    "channels that fill no block": convolution((1, 19, 7, 7), 21, (1, 1)),
    "window with a border that is not 0": convolution((1, 32, 9, 9), 16, (3, 3), **BORDER),
    "window with a border of 0": convolution((1, 35, 9, 9), 33, (3, 3), **BORDER, **SIGNED),
    "int8 with a border that is not 0": convolution((1, 7, 9, 5), 9, (3, 3), **BORDER, zero=-20, dtype=np.int8),
    "image of three channels": convolution((1, 3, 23, 19), 8, (7, 7), pads=[3, 3, 3, 3], strides=[2, 2]),
    "uneven borders": convolution((1, 5, 9, 11), 7, (3, 2), pads=[0, 1, 2, 0]),
    "dilation": convolution((1, 8, 13, 13), 6, (3, 3), pads=[2, 2, 2, 2], dilations=[2, 2]),
    "several images": convolution((3, 12, 6, 6), 9, (3, 3), **BORDER),
    "deep, in parts": convolution((1, 300, 4, 4), 12, (3, 3), **BORDER),
    "groups": convolution((2, 48, 9, 7), 96, (3, 3), **BORDER, group=3),
    "depthwise": convolution((1, 17, 12, 12), 17, (3, 3), **BORDER, group=17),
    "depthwise with strides": convolution(
        (2, 32, 15, 13), 32, (5, 5), pads=[2, 2, 2, 2], strides=[2, 2], group=32, **SIGNED
    ),
    "product": product((5, 64), 40),
    "product of odd sizes": product((3, 7, 45), 13, **SIGNED),
    "product of one row": product((1, 300), 10),
}  # fmt: skip


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated]:
    net, names = QuantizedNet(), {}
    for case, layer in CASES.items():
        names[case] = layer(net)
    net.output(*names.values())
    return names, emulate(net, tmp_path_factory.mktemp("layers"))


@pytest.mark.parametrize("case", CASES)
def test_a_layer_on_integers_agrees(case: str, layers: tuple[dict[str, str], Emulated]) -> None:
    """At most one step apart, and nearly everywhere equal: ONNX Runtime rounds products in another order."""
    names, emulated = layers
    found, expected = emulated.found[names[case]], emulated.expected[names[case]]
    assert np.unique(expected).size > 6
    assert np.abs(found - expected).max() <= 1.01 * STEP
    assert (np.abs(found - expected) > 1e-6).mean() <= 0.01


def test_every_layer_is_on_integers(layers: tuple[dict[str, str], Emulated]) -> None:
    _, emulated = layers
    quantization = emulated.kernels.quantization
    assert quantization is not None and not quantization.float_layers
    templates = {schedule.split()[0] for schedule in emulated.kernels.schedules.values()}
    assert templates == {"cuda_unit_conv2d", "cuda_unit_depthwise", "cuda_unit_matmul", "loops"}


def test_the_report_says_what_stays_float_and_why(tmp_path: Path) -> None:
    net = QuantizedNet()
    x = net.grid(net.input(1, 12, 6, 6))
    groups = net.conv(x, 12, 6, (1, 1), group=3)
    transposed = net.layer("ConvTranspose", x, (12, 4, 2, 2), 4, strides=[2, 2])
    net.output(groups, transposed)
    config = Config(target="cuda-sm80", until="specialize", verify=False)
    network = run(plan(net.save(tmp_path / "net.onnx"), config))
    assert {layer.text.split()[0]: layer.reason for layer in network.quantization.float_layers} == {
        "conv2d": "no template for GPUs takes groups of channels on integers that are no multiple of 16",
        "conv2d_transpose": "no template for GPUs takes `conv2d_transpose`",
    }
