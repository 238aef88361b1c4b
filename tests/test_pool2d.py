"""Pooling on blocked channels: borders without padding in memory, large windows, what averages count."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees
from test_schedules import TARGETS

from nncc.kernels.templates import load_templates

TEMPLATE = load_templates()["pool2d"].module

# (h, w), attributes
WINDOWS = [
    ((13, 11), {"kernel_shape": [3, 3], "strides": [2, 2]}),
    ((13, 11), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ((12, 10), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ((12, 10), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ((9, 9), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ((9, 7), {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [0, 1, 2, 0]}),
    ((10, 13), {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2]}),
    ((13, 13), {"kernel_shape": [9, 9], "pads": [4, 4, 4, 4]}),
    ((13, 13), {"kernel_shape": [13, 13], "pads": [6, 6, 6, 6]}),
    ((17, 15), {"kernel_shape": [7, 5], "strides": [3, 2], "pads": [3, 1, 2, 2]}),
    ((7, 7), {"kernel_shape": [7, 7]}),
    ((9, 8), {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((1, 9), {"kernel_shape": [1, 3], "pads": [0, 1, 0, 1]}),
    ((1, 1), {"kernel_shape": [1, 1]}),
    ((11, 11), {"kernel_shape": [3, 3], "dilations": [2, 2], "pads": [1, 2, 2, 1]}),
    ((11, 11), {"kernel_shape": [4, 4], "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
]


def pools(net: Net, cases) -> None:
    for number, (size, options) in enumerate(cases):
        channels = (10, 16, 33)[number % 3]
        x = net.conv(net.input(1 + number % 2, 3, *size), 3, channels, (1, 1))
        pooled = [net.op("MaxPool", x, **options)]
        if "dilations" not in options:
            pooled += [net.op("AveragePool", x, count_include_pad=count, **options) for count in (0, 1)]
        net.output(*(net.op("Relu", y) if number % 2 else y for y in pooled))


@pytest.mark.parametrize("target", [*TARGETS, "x86-64-v3"])
def test_windows_of_any_size(tmp_path, target):
    net = Net(opset=19)
    pools(net, WINDOWS)
    schedules = agrees(net, tmp_path, target).kernels.schedules
    pooling = [origin for name, origin in schedules.items() if "pool2d" in name]
    assert len(pooling) >= len(WINDOWS)
    assert all(origin.startswith("pool2d tile") and "(plain" not in origin for origin in pooling)


def test_maxima_of_negative_numbers(tmp_path):
    """A border of zeros would win."""
    net = Net()
    x = net.op("Sub", net.op("Tanh", net.conv(net.input(1, 3, 9, 9), 3, 16, (1, 1))), net.constant(2.0, np.float32))
    for k in (3, 5):
        net.output(net.op("MaxPool", x, kernel_shape=[k, k], pads=[k // 2] * 4))
    agrees(net, tmp_path)


@pytest.mark.parametrize(("count_padding", "corner"), [(False, 4), (True, 9)])
def test_averages_count_their_padding_or_not(count_padding, corner):
    counts = TEMPLATE.counts((5, 5), (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (5, 5), count_padding)
    assert counts.shape == (5, 5)
    assert counts[0, 0] == corner
    assert counts[2, 2] == 9
