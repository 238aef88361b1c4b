"""Reductions over axes that are not the innermost: sums stay in registers or in the first-level cache."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from compiled import Net, agrees, compile_net

# Rows (a prime, a multiple of eight, few) and columns (a few vectors, many, some of none): each way to go through them.
SHAPES = [
    ((37, 1024), 0),
    ((64, 48), 0),
    ((3, 127, 400), 1),
    ((2, 24, 5, 28), 1),
    ((5, 3, 2, 80), 1),
    ((9, 2, 16, 16), 0),
]


@pytest.mark.parametrize(
    "target",
    [
        "native",
        pytest.param("x86-64-v2", marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 code")),
    ],
)
def test_columns_of_all_shapes_agree_with_onnx_runtime(tmp_path, target):
    net = Net()
    for shape, axis in SHAPES:
        x = net.input(*shape)
        net.output(*(net.op(kind, x, axes=[axis]) for kind in ("ReduceMean", "ReduceMax", "ReduceL2", "ReduceProd")))
    x = net.input(2, 19, 4, 24)
    net.output(net.op("ReduceMean", net.op("Add", x, net.weight(24)), axes=[0, 1], keepdims=0))
    net.output(net.op("ReduceMin", net.op("Transpose", x, perm=[0, 1, 3, 2]), axes=[1], keepdims=0))
    agrees(net, tmp_path, target)


def test_infinite_maxima_are_found(tmp_path):
    """Of nothing but minus infinity the maximum is that, not the smallest number."""
    net = Net()
    x = net.input(8, 64)
    y = net.op("ReduceMax", x, axes=[0], keepdims=0)
    net.output(y)
    data = np.full((8, 64), -np.inf, np.float32)
    assert np.array_equal(compile_net(net, tmp_path).run({x: data})[y], data[0])
