"""Chains of functions of one tensor of bytes are tables, and give what ONNX Runtime gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Compiled
from quantized_layers import QuantizedNet, within_a_step


def tables(compiled: Compiled) -> int:
    return sum(schedule.startswith("table") for schedule in compiled.kernels.schedules.values())


def gelu(net: QuantizedNet, x: str) -> str:
    """x/2 (1 + erf(x / sqrt 2)), each operator rounded, as quantizers of single operators leave it."""
    y = net.grid(net.op("Mul", x, net.constant(np.float32(0.5**0.5))), 0.03)
    y = net.grid(net.op("Erf", y), 1 / 127)
    y = net.grid(net.op("Add", y, net.dequantize(net.constant(np.uint8(255)), 1 / 255, 0)), 2 / 255, 0)
    y = net.grid(net.op("Mul", x, y), 0.04)
    return net.grid(net.op("Mul", y, net.constant(np.float32(0.5))), 0.02, 30)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_all_bytes(tmp_path: Path, dtype: type) -> None:
    """Of plain tensors, in an order and a shape of their own."""
    net = QuantizedNet()
    integers = net.input(4, 64, dtype=dtype, name="x")
    grid = net.constant(np.float32(0.04)), net.constant(120 if dtype is np.uint8 else -8, dtype)
    x = net.op("DequantizeLinear", integers, *grid)
    for kind in ("Erf", "Sigmoid", "Tanh"):
        net.output(net.quantize(net.op(kind, x), 1 / 127, 0, np.int8))
    net.output(net.grid(net.op("Reshape", net.grid(net.op("Tanh", x), 0.01), net.ints(2, 128)), 0.02))
    every = (np.arange(256) + np.iinfo(dtype).min).astype(dtype).reshape(4, 64)
    compiled = within_a_step(net, tmp_path, step=1.0, target="x86-64-v3", inputs={"x": every})
    assert tables(compiled) == 2  # three outputs have one kernel, each with a table of its own
    assert not any(kind in name for name in compiled.kernels.schedules for kind in ("erf", "sigmoid", "tanh"))


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
def test_a_chain_behind_a_convolution_is_one_table(tmp_path: Path, target: str) -> None:
    """In the convolution's layout, the tensor being a factor of its own function."""
    net = QuantizedNet()
    x = net.grid(net.conv(net.grid(net.input(1, 16, 9, 9)), 16, 24, (1, 1)))
    net.output(net.grid(net.conv(gelu(net, x), 24, 16, (1, 1), step=0.02)))
    compiled = within_a_step(net, tmp_path, target=target)
    assert tables(compiled) == 1
    assert all("erf" not in name for name in compiled.kernels.schedules)


def test_a_few_operators_stay_part_of_the_kernel_before_them(tmp_path: Path) -> None:
    net = QuantizedNet()
    x = net.grid(net.conv(net.grid(net.input(1, 16, 8, 8)), 16, 32, (1, 1)))
    net.output(net.grid(net.op("HardSigmoid", x), 1 / 255, 0))
    assert tables(within_a_step(net, tmp_path, step=1 / 255, target="x86-64-v4-vnni")) == 0


def test_functions_of_two_tensors_are_no_tables(tmp_path: Path) -> None:
    net = QuantizedNet()
    x, y = net.grid(net.input(4, 60)), net.grid(net.input(4, 60), 0.03)
    net.output(net.grid(net.op("Mul", net.op("Sigmoid", x), y), 0.03))
    net.output(net.grid(net.op("Mul", net.op("Tanh", x), net.constant(net.random.random(60), np.float32)), 0.03))
    assert tables(within_a_step(net, tmp_path)) == 0


def test_numbers_that_are_none(tmp_path: Path) -> None:
    """The logarithm of what is negative, and of zero, is the smallest integer, as ONNX Runtime has it."""
    net = QuantizedNet()
    net.output(net.grid(net.op("Log", net.grid(net.input(16, 16), 0.02)), 0.05))
    assert tables(within_a_step(net, tmp_path, step=0.05)) == 1
