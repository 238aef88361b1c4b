"""Operators that read an image at points known only at run time: grids, regions, deformed windows."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net
from random_nets import agrees_on


def grid_sample(net: Net, random: np.random.Generator) -> str:
    rank = int(random.choice([2, 2, 3]))
    modes = ["nearest", "linear", "cubic"][: 3 if rank == 2 else 2]  # ONNX Runtime has no cubic volumes
    options = {
        "mode": str(random.choice(modes)),
        "padding_mode": str(random.choice(["zeros", "border", "reflection"])),
        "align_corners": int(random.integers(2)),
    }
    grid = net.input(2, *random.integers(1, 6, rank).tolist(), rank)
    return net.op("GridSample", net.input(2, 2, *random.integers(1, 6, rank).tolist()), grid, **options)


def regions(random: np.random.Generator, count: int) -> np.ndarray:
    """Corners [count, 4] of regions, some of them past the ends of an image of 7 by 6."""
    first = random.random((count, 2)) * 6 - 1
    return np.concatenate([first, first + random.random((count, 2)) * 7 - 1], 1)


def roi_align(net: Net, random: np.random.Generator) -> str:
    options = {
        "output_height": int(random.integers(1, 4)),
        "output_width": int(random.integers(1, 4)),
        "sampling_ratio": int(random.integers(3)),
        "spatial_scale": float(random.choice([1, 0.5])),
        "mode": str(random.choice(["avg", "max"])),
        "coordinate_transformation_mode": str(random.choice(["half_pixel", "output_half_pixel"])),
    }
    boxes, images = net.constant(regions(random, 3), np.float32), net.constant(random.integers(0, 2, 3), np.int64)
    return net.op("RoiAlign", net.input(2, 3, 7, 6), boxes, images, **options)


def max_roi_pool(net: Net, random: np.random.Generator) -> str:
    boxes = np.concatenate([random.integers(0, 2, (3, 1)), regions(random, 3)], 1)
    options = {"pooled_shape": random.integers(1, 4, 2).tolist(), "spatial_scale": float(random.choice([1, 0.5]))}
    return net.op("MaxRoiPool", net.input(2, 3, 7, 6), net.constant(boxes, np.float32), **options)


def deform_conv(net: Net, random: np.random.Generator) -> str:
    groups, offset_groups = int(random.integers(1, 3)), int(random.integers(1, 3))
    channels, out = 2 * groups, groups * int(random.integers(1, 3))
    kernel, strides, dilations = random.integers(1, 4, 2), random.integers(1, 3, 2), random.integers(1, 3, 2)
    pads, size = random.integers(0, 2, 4), random.integers(6, 9, 2)
    results = ((size + pads[:2] + pads[2:] - dilations * (kernel - 1) - 1) // strides + 1).tolist()
    taps = offset_groups * int(kernel.prod())
    inputs = [net.input(1, channels, *size.tolist()), net.weight(out, channels // groups, *kernel.tolist())]
    inputs += [net.input(1, 2 * taps, *results), net.weight(out)]
    inputs += [net.input(1, taps, *results)] if random.random() < 0.5 else []
    words = {"strides": strides, "dilations": dilations, "pads": pads, "kernel_shape": kernel}
    options = {name: value.tolist() for name, value in words.items()}
    return net.op("DeformConv", *inputs, group=groups, offset_group=offset_groups, **options)


@pytest.mark.parametrize(
    ("draw", "opset", "count"), [(grid_sample, 20, 7), (roi_align, 16, 8), (max_roi_pool, 17, 4), (deform_conv, 19, 4)]
)
def test_random_forms(tmp_path, draw, opset, count):
    # Coordinates are rounded once or twice more, which the slope of an image turns into an error of its values.
    agrees_on(draw, count, opset, tmp_path, tolerance=5e-5)


def test_points_that_are_no_numbers_read_nothing_that_is_not_the_images(tmp_path):
    net = Net(opset=20)
    grid = net.input(1, 1, 4, 2)
    for padding in ("zeros", "border", "reflection"):
        net.output(net.op("GridSample", net.input(1, 1, 3, 3), grid, padding_mode=padding, mode="linear"))
    offsets = net.input(1, 2, 3, 3)
    net.output(net.op("DeformConv", net.input(1, 1, 3, 3), net.weight(1, 1, 1, 1), offsets, kernel_shape=[1, 1]))
    compiled = compile_net(net, tmp_path)
    wild = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1e9, 3e38, 0], np.float32)
    inputs = compiled.sample()
    inputs |= {grid: wild.reshape(1, 1, 4, 2), offsets: np.resize(wild, (1, 2, 3, 3))}
    assert {value.shape for value in compiled.run(inputs).values()} == {(1, 1, 1, 4), (1, 1, 3, 3)}


def test_blocks_become_an_image(tmp_path):
    net = Net(opset=18)
    image, block = net.ints(6, 5), net.ints(2, 3)
    pads = {"pads": [1, 0, 1, 2], "strides": [2, 1], "dilations": [1, 2]}
    net.output(net.op("Col2Im", net.input(2, 12, 12), image, block, **pads))
    agrees(net, tmp_path)
