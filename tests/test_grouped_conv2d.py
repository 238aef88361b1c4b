"""Grouped convolutions: groups of whole blocks, several in one block, and those that no block divides."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees
from test_schedules import TARGETS, pair

from nncc.kernels.templates import load_templates

TEMPLATE = load_templates()["grouped_conv2d"].module

# in, out, groups, (h, w), kernel, strides, pads (top, left, bottom, right), dilation.
GROUPED = [
    (64, 64, 2, (13, 19), 3, (1, 1), (1, 1, 1, 1), 1),
    (32, 96, 2, (7, 13), 1, (1, 1), (0, 0, 0, 0), 1),
    (64, 64, 16, (14, 14), 3, (1, 1), (1, 1, 1, 1), 1),
    (64, 64, 16, (13, 11), 3, (2, 2), (0, 1, 1, 2), 1),
    (32, 32, 16, (9, 9), 3, (1, 2), (2, 2, 2, 2), 2),
    (64, 64, 8, (7, 9), 5, (1, 1), (2, 2, 2, 2), 1),
    (32, 64, 8, (9, 7), 3, (1, 1), (1, 1, 1, 1), 1),
    (64, 32, 8, (9, 7), 3, (1, 1), (1, 0, 0, 1), 1),
    (48, 48, 2, (11, 7), 3, (1, 1), (1, 1, 1, 1), 1),
    (30, 60, 3, (7, 7), 1, (1, 1), (0, 0, 0, 0), 1),
    (12, 20, 4, (13, 11), 3, (1, 1), (0, 1, 1, 0), 1),
    (12, 6, 3, (13, 11), 1, (1, 1), (0, 0, 0, 0), 1),
    (40, 10, 10, (9, 9), 3, (1, 1), (1, 1, 1, 1), 1),
    (16, 32, 16, (13, 13), 3, (1, 1), (1, 1, 1, 1), 1),
    (16, 64, 16, (9, 13), 3, (2, 2), (1, 1, 1, 1), 1),
    (10, 30, 10, (9, 9), 5, (1, 1), (2, 2, 2, 2), 1),
    (32, 64, 4, (1, 1), 1, (1, 1), (0, 0, 0, 0), 1),
    (64, 64, 32, (1, 13), (1, 3), (1, 1), (0, 1, 0, 1), 1),
]


def grouped(net: Net, cases) -> None:
    for number, (channels, out, groups, size, kernel, strides, pads, dilation) in enumerate(cases):
        x = net.input(2 if number % 3 == 2 else 1, channels, *size)
        options = {"strides": strides, "pads": pads, "dilations": pair(dilation), "group": groups}
        y = net.conv(x, channels, out, pair(kernel), bias=number % 4 != 0, **options)
        net.output(net.op(("Relu", "Tanh")[number % 4 == 3], y) if number % 2 else y)


@pytest.mark.parametrize("target", [*TARGETS, "x86-64-v3"])
def test_groups_of_any_width(tmp_path, target):
    net = Net()
    grouped(net, GROUPED)
    origins = agrees(net, tmp_path, target).kernels.schedules.values()
    assert sum(origin.startswith("grouped_conv2d") for origin in origins) == len(GROUPED)
    assert not [origin for origin in origins if "(plain" in origin]


def test_between_convolutions_nothing_is_moved(tmp_path):
    """A ResNeXt block: the padded lanes of ten channels a group meet zeros."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 13, 13), 3, 40, (1, 1)))
    y = net.op("Relu", net.conv(x, 40, 20, (3, 3), group=2, pads=[1] * 4))
    net.output(net.op("Add", net.conv(y, 20, 40, (1, 1)), x))
    origins = agrees(net, tmp_path).kernels.schedules
    (move,) = (name for name in origins if "block_channels" in name)
    assert move.endswith("unblock_channels"), "the result's"


@pytest.mark.parametrize(
    ("in_group", "out_group", "lanes", "form"),
    [(4, 4, 16, True), (8, 8, 16, True), (16, 16, 16, False), (8, 8, 8, False), (1, 2, 8, True), (4, 2, 16, False)],
)
def test_narrow_groups_stay_in_their_lanes(in_group, out_group, lanes, form):
    assert TEMPLATE.by_lanes(in_group, out_group, lanes, lanes) is form


def test_weights_between_groups_are_zero():
    kernel = np.ones((24, 12, 1, 1), np.float32)
    packed = TEMPLATE.pack(kernel, 2, 8, 8)
    assert packed.shape == (3, 3, 1, 1, 8, 8)
    assert packed.sum() == kernel.sum()
    # The second block of outputs has four channels of each group, and so of all inputs their half.
    assert (packed[1].sum(axis=(0, 1, 2, 3)) == 12).all()
