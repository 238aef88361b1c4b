"""What comes between convolutions stays on blocked channels: nothing is moved back and forth."""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled import Compiled, Net, agrees
from test_schedules import TARGETS

from nncc.target import resolve


def moves(compiled: Compiled) -> list[str]:
    """The kernels that block or unblock channels, reshapes fused into them left out."""
    names = (re.sub(r"fused_(reshape\d*_)*", "", name) for name in compiled.kernels.schedules)
    return sorted(name for name in names if "block_channels" in name)


ENDS = ["unblock_channels"]
"""The result is unblocked; the few channels of the image are read as they are."""


@pytest.mark.parametrize("channels", [10, 16, 33])
def test_resize_of_blocked_channels(tmp_path, channels):
    net = Net(opset=19)
    x = net.conv(net.input(2, 3, 6, 8), 3, channels, (1, 1))
    sizes = [net.ints(2, channels, 12, 16), net.ints(2, channels, 9, 5), net.ints(2, channels, 6, 1)]
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"):
        for size in sizes[: 2 if coordinates == "align_corners" else 3]:
            options = {"coordinate_transformation_mode": coordinates}
            net.output(net.op("Resize", x, "", "", size, mode="linear", **options))
            for rounding in ("floor", "ceil", "round_prefer_floor"):
                net.output(net.op("Resize", x, "", "", size, mode="nearest", nearest_mode=rounding, **options))
    net.output(net.op("Resize", x, "", "", sizes[0], mode="cubic"))
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.5}
    roi = net.constant([0, 0, 0.2, -0.1, 1, 1, 0.7, 0.9], np.float32)
    net.output(net.op("Resize", x, roi, "", sizes[0], mode="linear", **crop))
    agrees(net, tmp_path)


def test_a_resize_between_convolutions_moves_nothing(tmp_path):
    net = Net()
    x = net.conv(net.input(1, 3, 6, 8), 3, 24, (1, 1))
    x = net.op("Resize", net.op("Relu", x), "", net.constant([1, 1, 2, 2], np.float32), mode="linear")
    net.output(net.conv(x, 24, 16, (3, 3), pads=[1] * 4))
    assert moves(agrees(net, tmp_path)) == ENDS


# Channels of what is concatenated: whole blocks, halves, quarters, a last one of any size, and odd ones.
CONCATENATIONS = [(16, 32), (24, 24), (8, 40), (12, 20, 4), (4, 4, 8), (16, 10), (6, 6), (10, 17), (33, 3), (2, 30)]


@pytest.mark.parametrize("target", TARGETS)
def test_concatenations_and_slices_of_channels(tmp_path, target):
    net = Net()
    image = net.input(2, 3, 5, 7)
    for number, counts in enumerate(CONCATENATIONS):
        parts = [net.op("Tanh", net.conv(image, 3, count, (1, 1))) for count in counts]
        whole = net.op("Concat", *parts, axis=1)
        net.output(net.conv(net.op("Sigmoid", whole) if number % 2 else whole, sum(counts), 5, (1, 1)))
        pieces = net.op("Split", whole, net.ints(*counts), axis=1, outputs=len(counts))
        net.output(net.op("Relu", pieces[0]), net.conv(pieces[-1], counts[-1], 7, (1, 1)))
        cut = net.op("Slice", whole, net.ints(2), net.ints(-1), net.ints(1))
        net.output(net.conv(cut, sum(counts) - 3, 5, (1, 1)))
    agrees(net, tmp_path, target)


def test_concatenations_of_parts_of_blocks_move_nothing_else(tmp_path):
    net = Net()
    image = net.input(1, 3, 5, 7)
    cases = ((16, 32), (24, 24), (12, 20, 4), (16, 10))
    for counts in cases:
        parts = [net.conv(image, 3, count, (3, 3)) for count in counts]
        net.output(net.op("GlobalAveragePool", net.conv(net.op("Concat", *parts, axis=1), sum(counts), 16, (1, 1))))
    compiled = agrees(net, tmp_path)
    assert moves(compiled) == []
    lanes = resolve("native").hardware.vector_bits // 32
    grains = sorted(origin for origin in compiled.kernels.schedules.values() if origin.startswith("move_channels"))
    assert len(grains) == sum(any(count % lanes for count in counts) for counts in cases)


def test_rows_and_columns_are_sliced_in_place(tmp_path):
    """Elements of either axis, from either end, in strides; and put after each other again."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(2, 3, 12, 9), 3, 10, (3, 3), pads=[1] * 4))
    last = 2**63 - 1
    pieces = [
        net.op("Slice", x, net.ints(1, -1), net.ints(6, -100), net.ints(2, 3), net.ints(2, -2)),
        net.op("Slice", x, net.ints(-3), net.ints(last), net.ints(-1)),
        net.op("Slice", x, net.ints(0, 2, 0, 0), net.ints(1, 6, last, 5), net.ints(0, 1, 2, 3)),
        net.op("Concat", *net.op("Split", x, net.ints(5, 4, 3), axis=2, outputs=3)[::-1], axis=2),
        net.op("Concat", x, x, axis=3),
        net.op("Concat", x, x, axis=0),
    ]
    for channels, piece in zip((10, 10, 4, 10, 10, 10), pieces, strict=True):
        net.output(net.op("GlobalAveragePool", net.conv(piece, channels, 16, (1, 1))))
    assert moves(agrees(net, tmp_path)) == []


def test_parts_that_nothing_blocked_uses(tmp_path):
    net = Net()
    x = net.conv(net.input(1, 3, 6, 4), 3, 32, (1, 1))
    net.output(*net.op("Split", x, net.ints(16, 16), axis=1, outputs=2))
    net.output(*net.op("Split", x, net.ints(1, 3, 28), axis=1, outputs=3), *net.op("Split", x, axis=3, outputs=2))
    agrees(net, tmp_path)


PADS = {
    "zeros around a pool": ([0, 0, 1, 2, 0, 0, 2, 1], {}),
    "a constant": ([0, 0, 1, 2, 0, 0, 2, 1], {"value": 1.5}),
    "mirrored": ([0, 0, 1, 3, 0, 0, 2, 1], {"mode": "reflect"}),
    "the edge": ([0, 0, 1, 3, 0, 0, 2, 1], {"mode": "edge"}),
    "cut off": ([0, 0, -1, 1, 0, 0, 0, -2], {}),
    "cut off and mirrored": ([0, 0, -1, 1, 0, 0, 2, 0], {"mode": "edge"}),
}


@pytest.mark.parametrize("blocked", [True, False])
def test_padding_of_blocked_and_plain_tensors(tmp_path, blocked):
    """On blocked channels in one pass, and as right where the tensor is plain."""
    net = Net()
    x = net.input(2, 10, 7, 6)
    if blocked:
        x = net.conv(x, 10, 10, (1, 1))
    for amounts, options in PADS.values():
        filler = [net.constant(options["value"], np.float32)] if "value" in options else []
        y = net.op("Pad", x, net.ints(*amounts), *filler, mode=options.get("mode", "constant"))
        net.output(net.op("GlobalAveragePool", net.op("MaxPool", y, kernel_shape=[2, 2])) if blocked else y)
    net.output(net.op("Pad", x, net.ints(0, 2, 0, 0, 1, 3, 0, 0)))
    compiled = agrees(net, tmp_path)
    if blocked:
        # The last two: one crops, one pads channels.
        assert moves(compiled) == ENDS
