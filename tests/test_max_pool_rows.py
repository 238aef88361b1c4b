"""Max pools of tensors in plain layout, as schedules/max_pool_rows.py has them."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from compiled import Net, agrees, compile_net

# Image, window, strides, pads, and whether sizes are rounded up: windows that begin or end outside, rows of one.
POOLS = [
    ((37, 41), (3, 3), (2, 2), (1, 1, 1, 1), 0),
    ((13, 19), (2, 2), (2, 2), (0, 0, 0, 0), 1),
    ((17, 64), (5, 5), (1, 1), (2, 2, 2, 2), 0),
    ((9, 33), (1, 3), (1, 3), (0, 0, 0, 2), 0),
    ((20, 7), (3, 2), (3, 1), (2, 1, 0, 0), 0),
    ((16, 1), (4, 1), (4, 1), (0, 0, 0, 0), 0),
    ((40,), (3,), (2,), (1, 1), 0),
    ((33,), (13,), (1,), (6, 6), 0),
    ((8, 11, 23), (3, 3, 3), (2, 2, 2), (1, 1, 1, 1, 1, 1), 0),
    ((5, 6, 7), (2, 1, 3), (1, 1, 2), (0, 0, 1, 1, 0, 0), 1),
]


@pytest.mark.parametrize(
    "target",
    [
        "native",
        pytest.param("x86-64-v2", marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 code")),
    ],
)
def test_windows_of_all_forms_are_exact(tmp_path, target):
    net = Net()
    for number, (image, window, strides, pads, ceil) in enumerate(POOLS):
        x = net.input(1 + number % 2, 3, *image)
        y = net.op("MaxPool", x, kernel_shape=window, strides=strides, pads=pads, ceil_mode=ceil)
        net.output(y, net.op("Relu", y) if number % 2 else net.op("Neg", x))
    net.output(net.op("Exp", net.op("MaxPool", net.input(1, 2, 9, 9), kernel_shape=(3, 3))))
    compiled = agrees(net, tmp_path, target)
    kinds = [origin.split()[0] for origin in compiled.kernels.schedules.values()]
    assert kinds.count("max_pool_rows") >= len(POOLS)


def test_a_window_of_minus_infinity_has_that_as_its_maximum(tmp_path):
    net = Net()
    x = net.input(1, 2, 8, 40)
    y = net.op("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    net.output(y)
    data = np.full((1, 2, 8, 40), -np.inf, np.float32)
    assert np.array_equal(compile_net(net, tmp_path).run({x: data})[y], np.full((1, 2, 4, 20), -np.inf))


def test_dilated_and_large_windows_keep_loops_of_their_own(tmp_path):
    net = Net(opset=12)
    x = net.input(1, 3, 40, 40)
    net.output(
        net.op("MaxPool", x, kernel_shape=(3, 3), dilations=(2, 2)),
        net.op("MaxPool", x, kernel_shape=(40, 40)),
    )
    compiled = agrees(net, tmp_path)
    assert not [origin for origin in compiled.kernels.schedules.values() if origin.startswith("max_pool_rows")]
