"""Transposed convolutions: phases of different sizes, phases without a tap, and what lies beyond the input."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees
from test_schedules import TARGETS, pair

from nncc.kernels.templates import load_templates

TEMPLATE = load_templates()["conv2d_transpose"].module

# in, out, (h, w), kernel, strides, pads (top, left, bottom, right), output padding, dilation
TRANSPOSED = [
    (16, 32, (7, 9), 2, (2, 2), (0, 0, 0, 0), (0, 0), 1),
    (32, 16, (7, 13), 4, (2, 2), (1, 1, 1, 1), (0, 0), 1),
    (16, 16, (9, 7), 3, (2, 2), (1, 1, 1, 1), (1, 1), 1),
    (12, 7, (13, 11), 3, (2, 2), (1, 1, 1, 1), (0, 0), 1),
    (10, 17, (5, 6), 5, (2, 3), (2, 0, 1, 2), (1, 2), 1),
    (24, 33, (5, 19), 3, (1, 1), (1, 1, 1, 1), (0, 0), 1),
    (3, 16, (1, 1), 4, (1, 1), (0, 0, 0, 0), (0, 0), 1),
    (16, 3, (9, 9), 4, (2, 2), (1, 1, 1, 1), (0, 0), 1),
    (16, 16, (6, 5), 3, (2, 2), (0, 1, 2, 0), (0, 1), 2),
    (16, 16, (5, 7), 3, (3, 2), (1, 1, 1, 1), (1, 0), 3),
    (16, 24, (5, 7), 1, (2, 2), (0, 0, 0, 0), (1, 1), 1),
    (16, 16, (3, 4), (1, 4), (1, 4), (0, 0, 0, 0), (0, 0), 1),
    (8, 8, (3, 5), 8, (4, 4), (2, 2, 2, 2), (0, 0), 1),
    (16, 16, (9, 9), 5, (2, 2), (4, 4, 4, 4), (0, 0), 1),
    (1, 1, (4, 4), 3, (2, 2), (0, 0, 0, 0), (0, 0), 1),
]


def transposed(net: Net, cases) -> None:
    for number, (channels, out, size, kernel, strides, pads, extra, dilation) in enumerate(cases):
        x = net.input(2 if number % 3 == 2 else 1, channels, *size)
        weight = net.weight(channels, out, *pair(kernel), scale=0.2)
        options = {"strides": strides, "pads": pads, "output_padding": extra, "dilations": pair(dilation)}
        y = net.op("ConvTranspose", x, weight, *([net.weight(out)] if number % 4 else []), **options)
        net.output(net.op(("Relu", "Tanh")[number % 4 == 3], y) if number % 2 else y)


@pytest.mark.parametrize("target", [*TARGETS, "x86-64-v3"])
def test_phases_of_any_stride(tmp_path, target):
    net = Net()
    transposed(net, TRANSPOSED)
    origins = agrees(net, tmp_path, target).kernels.schedules.values()
    assert sum(origin.startswith("conv2d_transpose") for origin in origins) == len(TRANSPOSED)
    assert not [origin for origin in origins if "(plain" in origin]


def test_automatic_padding(tmp_path):
    net = Net()
    x = net.input(1, 16, 5, 7)
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        net.output(net.op("ConvTranspose", x, net.weight(16, 8, 3, 3), strides=[2, 2], auto_pad=mode))
    agrees(net, tmp_path)


def test_a_decoder_stays_blocked(tmp_path):
    """Ten channels fill no block; the skip connection and the next convolution take what the transposed one gives."""
    net = Net()
    skip = net.op("Relu", net.conv(net.input(1, 3, 12, 10), 3, 10, (3, 3), pads=[1] * 4))
    down = net.op("Relu", net.conv(skip, 10, 24, (3, 3), pads=[1] * 4, strides=[2, 2]))
    up = net.op("Sigmoid", net.op("ConvTranspose", down, net.weight(24, 10, 2, 2), net.weight(10), strides=[2, 2]))
    net.output(net.conv(net.op("Add", up, skip), 10, 16, (3, 3), pads=[1] * 4))
    origins = agrees(net, tmp_path).kernels.schedules
    (move,) = (name for name in origins if "block_channels" in name)
    assert move.endswith("unblock_channels"), "the result's"


def test_no_zero_is_multiplied():
    kernel = np.ones((8, 8, 3, 3), np.float32)
    packed = TEMPLATE.pack(kernel, (2, 2), (1, 1, 1, 1), (1, 1), 8, 8)
    assert [phase.shape[2:4] for phase in packed] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert sum(phase.size for phase in packed) == kernel.size
