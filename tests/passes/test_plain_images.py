"""Borders and integer scales of images in plain layout: loops that are cut where conditions begin."""

from __future__ import annotations

import numpy as np
from compiled import Net, agrees

SIZES = ((2, 3, 9, 37), (1, 2, 5, 4))


def test_borders_of_elements_on_any_side_agree(tmp_path):
    net = Net()
    for shape in SIZES:
        x = net.input(*shape)
        for mode in ("reflect", "edge"):
            for widths in (
                (0, 0, 3, 2, 0, 0, 1, 3),
                (0, 0, 0, 3, 0, 0, 2, 0),
                (0, 0, 2, 0, 0, 0, 0, 1),
                (0, 1, 0, 0) * 2,
            ):
                net.output(net.op("Pad", x, net.ints(*widths), mode=mode))
        net.output(net.op("Relu", net.op("Pad", net.op("Neg", x), net.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")))
    agrees(net, tmp_path)


def test_integer_scales_of_every_mode_agree(tmp_path):
    net = Net(opset=18)
    for shape in SIZES:
        x = net.input(*shape)
        for scale in (2, 3, 4):
            scales = net.constant(np.array([1, 1, scale, scale], np.float32))
            for mode, where, nearest in (
                ("nearest", "asymmetric", "floor"),
                ("nearest", "half_pixel", "round_prefer_floor"),
                ("linear", "half_pixel", "floor"),
                ("linear", "asymmetric", "floor"),
                ("linear", "align_corners", "floor"),
                ("cubic", "half_pixel", "floor"),
            ):
                resized = net.op(
                    "Resize", x, "", scales, mode=mode, coordinate_transformation_mode=where, nearest_mode=nearest
                )
                net.output(resized)
        net.output(net.op("Add", net.op("Resize", x, "", scales, mode="linear"), net.weight(1)))
    agrees(net, tmp_path)
