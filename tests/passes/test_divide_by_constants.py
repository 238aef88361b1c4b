"""Divisions by constants become products, except where whole numbers depend on how they round."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees


def divisions(compiled):
    return compiled.kernels.module.script().count(" / ")


def test_what_is_rounded_anyway_is_multiplied(tmp_path):
    net = Net()
    x = net.input(3, 37)
    scaled = net.op("Div", x, net.constant(np.float32(2**0.5)))
    rows = net.op("Div", x, net.constant(np.linspace(0.5, 3, 37), np.float32))
    net.output(net.op("Erf", scaled), net.op("MatMul", net.op("Relu", rows), net.weight(37, 5)))
    assert divisions(agrees(net, tmp_path)) == 0


@pytest.mark.parametrize("kind", ["Floor", "Ceil", "Cast", "Less", "ArgMax", "Round through Add"])
def test_whole_numbers_stay_exact(tmp_path, kind):
    net = Net()
    divisor = net.constant(np.float32(49))
    ratio = net.op("Div", net.input(1000, name="x"), divisor)
    if kind == "Cast":
        net.output(net.op("Cast", ratio, to=7))
    elif kind == "Less":
        net.output(net.op("Less", ratio, net.constant(np.arange(1000) // 49, np.float32)))
    elif kind == "ArgMax":
        net.output(net.op("ArgMax", ratio))
    elif kind == "Round through Add":
        net.output(net.op("Floor", net.op("Add", net.op("Reshape", ratio, net.ints(10, 100)), net.constant(1.0, "f"))))
    else:
        net.output(net.op(kind, ratio))
    compiled = agrees(net, tmp_path, tolerance=None, inputs={"x": np.arange(1000, dtype=np.float32)})
    assert divisions(compiled) >= 1


@pytest.mark.parametrize("divisor", [1e-39, 3e38, np.inf])
def test_a_reciprocal_that_is_no_normal_number_is_not_taken(tmp_path, divisor):
    net = Net()
    net.output(net.op("Exp", net.op("Div", net.input(20), net.constant(np.float32(divisor)))))
    assert divisions(agrees(net, tmp_path)) == 1
