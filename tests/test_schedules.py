"""The templates of schedules/ and the loops for everything else, against ONNX Runtime, at awkward sizes."""

from __future__ import annotations

import platform
from math import prod
from typing import Any

import numpy as np
import pytest
from compiled import Net, agrees, lowered

import nncc
from nncc.compat import structural_walk, tvm
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates

X86 = platform.machine() in ("x86_64", "AMD64")
TARGETS = [
    "native",
    # Vectors of four lanes and sixteen registers: other blocks, other tiles.
    pytest.param("x86-64-v2", marks=pytest.mark.skipif(not X86, reason="only x86 machines run it")),
]

# in, out, (h, w), kernel, strides, pads (top, left, bottom, right), dilation. Channels that no block divides
# (3, 10, 17, 24, 33), odd and prime widths, windows that do not end at the border.
CONVOLUTIONS = [
    (3, 16, (13, 19), 3, (1, 1), (1, 1, 1, 1), 1),
    (3, 10, (37, 37), 7, (2, 2), (3, 3, 3, 3), 1),
    (10, 17, (7, 13), 1, (1, 1), (0, 0, 0, 0), 1),
    (17, 24, (13, 7), 3, (2, 1), (0, 1, 2, 0), 1),
    (24, 33, (19, 19), 3, (1, 2), (1, 0, 0, 2), 1),
    (33, 3, (13, 13), 5, (1, 1), (2, 2, 2, 2), 1),
    (16, 32, (7, 7), 1, (2, 2), (0, 0, 0, 0), 1),
    (32, 16, (37, 13), 3, (1, 1), (2, 2, 2, 2), 2),
    (16, 17, (19, 19), 5, (3, 2), (0, 3, 1, 2), 1),
    (64, 64, (14, 14), 3, (1, 1), (1, 1, 1, 1), 1),
    (32, 1, (13, 13), 3, (1, 1), (1, 1, 1, 1), 1),
    (1, 24, (13, 13), 3, (1, 1), (1, 1, 1, 1), 1),
    (40, 24, (1, 1), 1, (1, 1), (0, 0, 0, 0), 1),
    (24, 40, (1, 37), (1, 3), (1, 1), (0, 1, 0, 1), 1),
    (8, 12, (37, 1), (7, 1), (1, 1), (3, 0, 3, 0), 1),
    (16, 16, (3, 3), 3, (1, 1), (0, 0, 0, 0), 1),
    (16, 48, (23, 23), 3, (2, 2), (1, 1, 1, 1), 3),
]

# channels, (h, w), kernel, strides, pads, dilation
DEPTHWISE = [
    (16, (13, 13), 3, (1, 1), (1, 1, 1, 1), 1),
    (3, (19, 37), 3, (2, 2), (0, 0, 1, 1), 1),
    (17, (7, 7), 5, (1, 1), (2, 2, 2, 2), 1),
    (24, (19, 13), 5, (2, 2), (1, 2, 2, 1), 1),
    (33, (13, 37), 7, (1, 2), (3, 3, 3, 3), 1),
    (10, (13, 13), 3, (1, 1), (2, 2, 2, 2), 2),
    (64, (7, 7), 7, (1, 1), (3, 3, 3, 3), 1),
    (32, (1, 13), (1, 5), (1, 1), (0, 2, 0, 2), 1),
]


def pair(kernel: int | tuple[int, int]) -> tuple[int, int]:
    return (kernel, kernel) if isinstance(kernel, int) else kernel


@pytest.mark.parametrize("target", TARGETS)
def test_convolutions_of_awkward_sizes(tmp_path, target):
    net = Net()
    for number, (channels, out, size, kernel, strides, pads, dilation) in enumerate(CONVOLUTIONS):
        x = net.input(2 if number % 3 == 2 else 1, channels, *size)
        y = net.conv(
            x, channels, out, pair(kernel), bias=number % 4 != 0, strides=strides, pads=pads, dilations=pair(dilation)
        )
        net.output(net.op("Relu", y) if number % 2 else y)
    for number, (channels, size, kernel, strides, pads, dilation) in enumerate(DEPTHWISE):
        x = net.input(2 if number % 3 == 2 else 1, channels, *size)
        options = {"strides": strides, "pads": pads, "dilations": pair(dilation)}
        net.output(net.conv(x, channels, channels, pair(kernel), group=channels, bias=number % 2 == 0, **options))
    compiled = agrees(net, tmp_path, target)
    kinds = [origin.split()[0] for origin in compiled.kernels.schedules.values()]
    # Equal convolutions would share a kernel; none here are equal.
    direct = kinds.count("conv2d") + kinds.count("winograd")
    assert (direct, kinds.count("depthwise_conv2d")) == (len(CONVOLUTIONS), len(DEPTHWISE))
    assert not [origin for origin in compiled.kernels.schedules.values() if "(plain" in origin]


def test_the_padding_of_a_depthwise_convolution_is_no_memory(tmp_path):
    net = Net()
    net.output(net.conv(net.input(1, 16, 20, 40), 16, 16, (3, 3), group=16, pads=[1, 1, 1, 1]))
    kernels = lowered(net, tmp_path, "x86-64-v4")
    name = next(v.name_hint for v in kernels.module.functions if "depthwise" in v.name_hint)

    def largest(padding: str) -> int:
        """Bytes of the largest buffer that the kernel makes."""
        choices = Choices({"padding": padding})
        function, _ = schedule_kernel(kernels.module[name], load_templates(), kernels.target.hardware, choices)
        assert choices.taken["padding"] == padding
        found: list[int] = [0]

        def note(block: Any) -> None:
            found.extend(4 * prod(map(int, buffer.shape)) for buffer in block.alloc_buffers)

        structural_walk(function.body, [(tvm.s_tir.SBlock, note)])
        return max(found)

    assert (largest("inside"), largest("copied")) == (20 * 40 * 64, 22 * 42 * 64)  # sums alone; the padded image too


@pytest.mark.parametrize("target", TARGETS)
def test_convolutions_without_a_template_are_at_least_right(tmp_path, target):
    net = Net()
    image = net.input(1, 12, 13, 11)
    net.output(
        net.conv(image, 12, 8, (3, 3), auto_pad="SAME_UPPER", strides=[2, 2]),
        net.conv(image, 12, 8, (2, 4), auto_pad="SAME_LOWER"),
        net.op("Conv", image, net.input(5, 12, 3, 3)),  # weights that are not constant
        net.op("ConvTranspose", image, net.weight(12, 3, 7, 7), strides=[7, 5]),
        net.op("ConvTranspose", image, net.weight(12, 4, 3, 3), group=3, strides=[1, 2], pads=[1, 1, 1, 1]),
    )
    line = net.input(2, 10, 37)
    net.output(
        net.conv(line, 10, 17, (5,), pads=[2, 2], strides=[2]),
        net.conv(line, 10, 10, (3,), pads=[2, 0], group=10, dilations=[2]),
        net.op("ConvTranspose", line, net.weight(10, 4, 4), strides=[2], pads=[1, 1]),
    )
    volume = net.input(1, 3, 5, 7, 6)
    net.output(
        net.conv(volume, 3, 5, (3, 3, 3), pads=[1, 0, 1, 1, 0, 1], strides=[1, 2, 1]),
        net.conv(volume, 3, 4, (1, 1, 1)),
    )
    agrees(net, tmp_path, target)


@pytest.mark.parametrize("target", TARGETS)
def test_reductions_and_normalizations_over_any_axis_and_length(tmp_path, target):
    net = Net(opset=17)
    for shape in ((3, 7, 13), (2, 16, 32), (1, 5, 1), (197, 3, 64)):
        x = net.input(*shape)
        for axis in (0, 1, -1):
            net.output(net.op("Softmax", x, axis=axis))
        net.output(net.op("LogSoftmax", x, axis=1), net.op("LogSoftmax", x, axis=-1))
        last = shape[-1]
        net.output(
            net.op("LayerNormalization", x, net.weight(last, scale=1.0), net.weight(last, scale=1.0), axis=-1),
            net.op("LayerNormalization", x, net.weight(*shape[1:], scale=1.0), axis=1),
        )
    x = net.input(3, 10, 7, 17)
    for kind in (
        "ReduceMean",
        "ReduceMax",
        "ReduceMin",
        "ReduceProd",
        "ReduceL1",
        "ReduceL2",
        "ReduceSumSquare",
        "ReduceLogSumExp",
    ):
        for axes, keep in (([0], 1), ([-1], 0), ([1, 3], 1), ([0, 1, 2, 3], 0), ([2], 0)):
            net.output(net.op(kind, x, axes=axes, keepdims=keep))
    positive = net.op("Exp", x)
    net.output(
        net.op("ReduceSum", x, net.ints(2, 3), keepdims=0),
        net.op("ReduceSum", x),
        net.op("ReduceLogSum", positive, axes=[1]),
        net.op("ReduceMean", net.input(2, 33, 13, 1), axes=[2], keepdims=1),
        net.op("ArgMax", x, axis=1, keepdims=0),
        net.op("ArgMin", x, axis=-1),
        net.op("InstanceNormalization", x, net.weight(10, scale=1.0), net.weight(10, scale=1.0)),
        net.op("Einsum", x, x, equation="abcd,abed->abce"),
    )
    agrees(net, tmp_path, target)


@pytest.mark.parametrize("target", TARGETS)
def test_data_movement(tmp_path, target):
    net = Net(opset=17)
    x = net.input(2, 3, 7, 5)
    for order in ([0, 2, 3, 1], [3, 2, 1, 0], [1, 0, 2, 3], [0, 1, 3, 2]):
        net.output(net.op("Transpose", x, perm=order))
    for mode in ("constant", "reflect", "edge"):
        net.output(
            net.op(
                "Pad",
                x,
                net.ints(0, 0, 1, 2, 0, 0, 2, 1),
                *([net.constant(1.5, np.float32)] if mode == "constant" else []),
                mode=mode,
            )
        )
    net.output(
        net.op("Pad", x, net.ints(0, 0, -1, 1, 0, 0, 0, -2)),
        net.op("Slice", x, net.ints(1, -1), net.ints(6, -100), net.ints(2, 3), net.ints(2, -2)),
        net.op("Slice", x, net.ints(0), net.ints(2**63 - 1), net.ints(1)),
        net.op("Gather", x, net.ints(2, 0, -1), axis=1),
        net.op("Gather", x, net.constant(1, np.int64), axis=2),
        net.op("GatherElements", x, net.constant(np.full((2, 3, 2, 5), 1), np.int64), axis=2),
        net.op("GatherND", x, net.constant([[0, 1], [1, -1]], np.int64)),
        net.op("ScatterND", x, net.constant([[0, 1], [1, 2]], np.int64), net.input(2, 7, 5)),
        net.op("ScatterElements", x, net.constant(np.full((2, 3, 1, 5), 3), np.int64), net.input(2, 3, 1, 5), axis=2),
        net.op("Reshape", x, net.ints(0, -1, 5)),
        net.op("Expand", net.input(3, 1, 5), net.ints(2, 3, 7, 5)),
        net.op("Tile", x, net.ints(1, 2, 1, 3)),
        net.op("DepthToSpace", net.input(1, 12, 3, 5), blocksize=2, mode="DCR"),
        net.op("DepthToSpace", net.input(1, 12, 3, 5), blocksize=2, mode="CRD"),
        net.op("SpaceToDepth", net.input(1, 3, 4, 6), blocksize=2),
        net.op("Where", net.op("Greater", x, net.constant(0.0, np.float32)), x, net.input(3, 1, 5)),
        net.op("Trilu", net.input(5, 7), upper=0),
        net.op("OneHot", net.ints(1, 0, 3), net.constant(4, np.int64), net.constant([0.5, 2.0], np.float32)),
        *net.op("Split", x, net.ints(1, 4, 2), axis=2, outputs=3),
        net.op("Flatten", x, axis=2),
        net.op("Concat", x, x, net.input(2, 3, 1, 5), axis=2),
    )
    sizes = net.ints(2, 3, 14, 11)
    for mode, coordinates in (
        ("nearest", "asymmetric"),
        ("nearest", "half_pixel"),
        ("linear", "half_pixel"),
        ("linear", "align_corners"),
        ("cubic", "half_pixel"),
    ):
        net.output(net.op("Resize", x, "", "", sizes, mode=mode, coordinate_transformation_mode=coordinates))
    net.output(
        net.op(
            "Resize",
            x,
            "",
            net.constant([1, 1, 2, 3], np.float32),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
    )
    agrees(net, tmp_path, target)


def test_an_index_outside_its_axis_takes_the_nearest_element(tmp_path):
    net = Net()
    i = net.input(5, dtype=np.int64)
    net.output(net.op("Gather", net.constant(np.arange(15, dtype=np.float32).reshape(5, 3)), i, axis=0))
    artifact = nncc.compile(net.save(tmp_path / "gather.onnx"), output=tmp_path / "out")
    found = nncc.load(artifact.library).run({i: np.array([0, -1, 10**12, -(10**12), 5])})
    assert next(iter(found.values()))[:, 0].tolist() == [0, 12, 12, 0, 12]


def test_values_that_are_read_twice_do_not_double_the_code_with_each_step(tmp_path):
    """x + tanh(x), forty times: one expression of it would have 2^40 loads."""
    net = Net()
    x = net.input(3, 40)
    for _ in range(40):
        x = net.op("Add", x, net.op("Tanh", x))
    net.output(x)
    assert agrees(net, tmp_path)
