"""Convolutions for GPUs agree with ONNX Runtime, whatever the sizes and borders."""

from __future__ import annotations

from typing import Any

import pytest
from compiled import ROUNDING, Net
from emulated import Emulated, emulate, needs_compiler

pytestmark = needs_compiler

CASES: dict[str, tuple[tuple[int, ...], int, tuple[int, int], dict[str, Any]]] = {
    "pointwise": ((1, 16, 8, 8), 24, (1, 1), {}),
    "pointwise of 7x7, whose rows are no vectors": ((1, 48, 7, 7), 20, (1, 1), {}),
    "window": ((1, 16, 17, 17), 33, (3, 3), {"pads": [1, 1, 1, 1]}),
    "image of three channels": ((1, 3, 23, 19), 8, (7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "one channel, one output": ((1, 1, 5, 5), 1, (3, 3), {}),
    "one pixel": ((1, 40, 1, 1), 10, (1, 1), {}),
    "uneven borders": ((1, 5, 9, 11), 7, (3, 2), {"pads": [0, 1, 2, 0]}),
    "strides without a window": ((1, 24, 14, 14), 8, (1, 1), {"strides": [2, 2]}),
    "dilation": ((1, 8, 13, 13), 6, (3, 3), {"pads": [2, 2, 2, 2], "dilations": [2, 2]}),
    "several images": ((3, 12, 6, 6), 9, (3, 3), {"pads": [1, 1, 1, 1]}),
    "images whose pixels are no vectors": ((3, 8, 5, 5), 4, (1, 1), {}),
    "groups": ((1, 12, 9, 9), 18, (3, 3), {"pads": [1, 1, 1, 1], "group": 3}),
    "deep, in parts": ((1, 300, 4, 4), 12, (3, 3), {"pads": [1, 1, 1, 1]}),
    "depthwise": ((1, 17, 12, 12), 17, (3, 3), {"pads": [1, 1, 1, 1], "group": 17}),
    "depthwise with strides": ((1, 6, 15, 13), 6, (5, 5), {"pads": [2, 2, 2, 2], "strides": [2, 2], "group": 6}),
    "depthwise with two outputs a channel": ((2, 4, 7, 9), 8, (3, 3), {"group": 4}),
    "depthwise with dilation": ((1, 3, 11, 11), 3, (3, 3), {"dilations": [2, 2], "group": 3}),
}


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated]:
    net, names = Net(), {}
    for case, (shape, out, kernel, attributes) in CASES.items():
        names[case] = net.op("Relu", net.conv(net.input(*shape), shape[1], out, kernel, **attributes))
    net.output(*names.values())
    return names, emulate(net, tmp_path_factory.mktemp("convolutions"))


@pytest.mark.parametrize("case", CASES)
def test_a_convolution_for_a_gpu_agrees(case: str, convolutions: tuple[dict[str, str], Emulated]) -> None:
    names, emulated = convolutions
    assert emulated.error(names[case]) <= ROUNDING


def test_every_convolution_has_a_template(convolutions: tuple[dict[str, str], Emulated]) -> None:
    _, emulated = convolutions
    templates = {schedule.split()[0] for schedule in emulated.kernels.schedules.values()}
    assert templates == {"cuda_conv2d", "cuda_depthwise_conv2d"}


def test_what_follows_a_convolution_is_part_of_its_kernel(tmp_path: Any) -> None:
    """Bias, residual and hard-swish, also behind the sum of several parts: no tensor between them is in memory."""
    net = Net()
    x, y = net.input(1, 256, 6, 6), net.input(1, 10, 6, 6)
    net.output(net.op("HardSwish", net.op("Add", net.conv(x, 256, 10, (3, 3), pads=[1, 1, 1, 1]), y)))
    emulated = emulate(net, tmp_path)
    (schedule,) = emulated.kernels.schedules.values()
    assert "parts" in schedule
    assert len(emulated.program.calls) == 1
    assert emulated.error(net.outputs[0]) <= ROUNDING
