"""Networks with quantized tensors run on GPUs too: their products in float32, their grids as the model says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from compiled import Net
from emulated import emulate, needs_compiler

pytestmark = needs_compiler

STEP = 0.05
"""Of the result: rounding to a grid goes the other way where two orders of summing differ at a border."""


def test_a_quantized_convolution_agrees_to_a_step(tmp_path: Path) -> None:
    net = Net()

    def on_grid(x: str, step: float, zero: int) -> str:
        parameters = net.constant(np.float32(step)), net.constant(np.uint8(zero))
        return net.op("DequantizeLinear", net.op("QuantizeLinear", x, *parameters), *parameters)

    weights = net.constant(net.random.integers(-127, 128, (6, 5, 3, 3)).astype(np.int8))
    steps, zeros = net.constant(np.full(6, 0.004, np.float32)), net.constant(np.zeros(6, np.int8))
    weights = net.op("DequantizeLinear", weights, steps, zeros, axis=0)
    x = on_grid(net.input(1, 5, 9, 9), 0.02, 128)
    net.output(on_grid(net.op("Relu", net.op("Conv", x, weights, pads=[1, 1, 1, 1])), STEP, 0))
    emulated = emulate(net, tmp_path)
    found, expected = emulated.found[net.outputs[0]], emulated.expected[net.outputs[0]]
    assert np.abs(found - expected).max() <= 1.01 * STEP
    assert (found == expected).mean() > 0.99
    assert any(schedule.startswith("cuda_conv2d") for schedule in emulated.kernels.schedules.values())
