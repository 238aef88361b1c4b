"""Code for other processors, under emulators: vectors of four lanes with 32 registers, 32-bit pointers, no vectors."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import ROUNDING, Net, agrees
from test_conv2d_transpose import TRANSPOSED, transposed
from test_generated_c import small_network
from test_grouped_conv2d import GROUPED, grouped
from test_pool2d import WINDOWS, pools
from test_schedules import CONVOLUTIONS, DEPTHWISE, pair

from nncc.emulation import emulator
from nncc.errors import TargetError, ToolError
from nncc.target import resolve


def emulated(target: str) -> str:
    """The target, where its emulator is installed; else the test is skipped."""
    from nncc.codegen.toolchains import find_toolchain

    try:
        emulator(resolve(target))
        find_toolchain(resolve(target))
    except (TargetError, ToolError) as error:
        pytest.skip(f"{error} ({error.hint})")
    return target


def convolutions(net: Net, every: int) -> None:
    for number, (channels, out, size, kernel, strides, pads, dilation) in enumerate(CONVOLUTIONS[::every]):
        x = net.input(1 + number % 2, channels, *size)
        options = {"strides": strides, "pads": pads, "dilations": pair(dilation)}
        net.output(net.op("Relu", net.conv(x, channels, out, pair(kernel), **options)))
    for channels, size, kernel, strides, pads, dilation in DEPTHWISE[::every]:
        options = {"strides": strides, "pads": pads, "dilations": pair(dilation), "group": channels}
        net.output(net.conv(net.input(1, channels, *size), channels, channels, pair(kernel), **options))
    grouped(net, GROUPED[::every])
    transposed(net, TRANSPOSED[::every])
    pools(net, WINDOWS[::every])


def products(net: Net) -> None:
    for m, k, n in ((1, 33, 10), (7, 31, 1), (13, 64, 197), (5, 1, 17), (16, 16, 16)):
        x = net.input(m, k)
        net.output(net.op("MatMul", x, net.weight(k, n)), net.op("MatMul", x, net.input(k, n)))
    net.output(net.op("MatMul", net.input(2, 3, 13, 17), net.input(2, 3, 17, 10)))


def others(net: Net) -> None:
    x = net.input(3, 7, 13)
    net.output(*(net.op("Softmax", x, axis=axis) for axis in (0, 1, 2)))
    net.output(net.op("LayerNormalization", x, net.weight(13, scale=1.0)), net.op("ReduceMean", x, axes=[1]))
    net.output(*net.op("TopK", x, net.ints(3), outputs=2), net.op("ArgMax", x), net.op("Transpose", x))
    index = net.input(4, dtype=np.int64)
    net.output(
        net.op("Gather", net.input(5, 17), index), net.op("Mul", index, index), net.op("Erf", x), net.op("Tanh", x)
    )
    half, double = net.input(3, 7, dtype=np.float16), net.input(3, 7, dtype=np.float64)
    net.output(net.op("Add", half, half), net.op("Mul", double, double), net.op("Cast", half, to=1))
    net.output(net.op("Resize", net.input(1, 3, 5, 7), "", "", net.ints(1, 3, 10, 9), mode="linear"))
    image = net.conv(net.input(1, 3, 9, 7), 3, 10, (3, 3))
    net.output(net.op("AveragePool", image, kernel_shape=[3, 3], pads=[1] * 4), net.op("GlobalAveragePool", image))


def test_templates_and_loops_on_arm64(tmp_path):
    net = Net()
    convolutions(net, 2)
    products(net)
    others(net)
    agrees(net, tmp_path, emulated("arm64"))


@pytest.mark.parametrize("target", ["armv7", "riscv64"])
def test_a_few_of_each_on_other_boards(tmp_path, target):
    net = Net()
    convolutions(net, 6)
    products(net)
    others(net)
    agrees(net, tmp_path, emulated(target))


@pytest.mark.parametrize("target", ["arm64", "armv7", "riscv64"])
def test_a_small_network_on_boards(tmp_path, target):
    """Ten operators deep: each adds its rounding."""
    agrees(small_network(), tmp_path, emulated(target), 5 * ROUNDING)


@pytest.mark.parametrize("target", ["armv7", "riscv64"])
def test_every_float16_is_converted_without_instructions_for_it(tmp_path, target):
    net = Net()
    half, single = net.input(256, 256, dtype=np.float16), net.input(256, 1024)
    net.output(net.op("Cast", half, to=1), net.op("Cast", single, to=10))
    halves = np.arange(65536, dtype=np.uint16).view(np.float16).reshape(256, 256)
    finite = np.nan_to_num(halves.astype(np.float32)[:, ::2], nan=1.0, posinf=65504, neginf=-65504)
    step = np.exp2(np.maximum(np.frexp(finite)[1] - 11, -24)).astype(np.float32)  # to the next half
    ties = np.concatenate([finite + step * part for part in (0.5, 0.4999, 0.5001, 0.25, -0.5, 1e3, 0, 1e-9)], axis=1)
    agrees(net, tmp_path, emulated(target), 0.0, {half: halves, single: ties})
