"""Quantized models with open dimensions run on integers, at all sizes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from compiled import ROUNDING
from quantized_nets import QuantizedNet

import nncc


def quantized() -> QuantizedNet:
    """A convolution, a mean and a product, all between QDQ pairs, for any batch."""
    net = QuantizedNet()

    def grid(value: str, scale: float, zero: int) -> str:
        parameters = net.parameters(scale, zero)
        return net.op("DequantizeLinear", net.op("QuantizeLinear", value, *parameters), *parameters)

    def weight(*shape: int) -> str:
        integers = net.integers(*shape, dtype=np.int8, low=-127)
        return net.op("DequantizeLinear", integers, *net.parameters(0.01, 0, np.int8))

    x = grid(net.input("N", 16, 8, 8, name="x"), 0.02, 128)
    y = grid(net.op("Relu", net.op("Conv", x, weight(32, 16, 3, 3), pads=[1, 1, 1, 1])), 0.1, 0)
    y = net.op("Flatten", grid(net.op("GlobalAveragePool", y), 0.05, 0))
    net.result(net.op("MatMul", y, weight(32, 10)), np.float32)
    return net


def test_every_batch_runs_on_integers(tmp_path):
    onnx.save(quantized().model(), tmp_path / "net.onnx")
    made = nncc.compile(tmp_path / "net.onnx", output=tmp_path / "out", range={"N": (1, 9)}, threads=1, verify=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"))
    with nncc.load(made.library) as module:
        assert module.description["weights_bytes"] < 2 * (32 * 16 * 3 * 3 + 32 * 10), "a byte each, and some sums"
        for batch in range(1, 10):
            x = np.random.default_rng(batch).standard_normal((batch, 16, 8, 8), np.float32)
            (found,), (expected,) = module.run({"x": x}).values(), session.run(None, {"x": x})
            assert abs(found - expected).max() < ROUNDING * abs(expected).max(), batch
