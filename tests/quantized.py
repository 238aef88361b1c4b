"""Small quantized models (QDQ) made operator by operator: integers with made-up scales and zero points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from compiled import Net


class QuantizedNet(Net):
    """Values are names of float32 tensors that were just dequantized; activations are of the type `data`."""

    def __init__(self, data: str = "uint8", seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.data = np.dtype(data)

    def quantized(self, x: str, scale: float, zero: int | None = None) -> str:
        """To integers and back; by default zero is the type's middle, a little beside."""
        zero = (131 if self.data.kind == "u" else 3) if zero is None else zero
        grid = self.constant(scale, np.float32), self.constant(zero, self.data)
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *grid), *grid)

    def levels(self, values: np.ndarray, scales: np.ndarray) -> str:
        """Weights of int8 with a scale for each row."""
        grid = self.constant(scales, np.float32), self.constant(np.zeros(scales.shape, np.int8))
        return self.op("DequantizeLinear", self.constant(values, np.int8), *grid, axis=0)

    def quantized_conv(
        self, x: str, channels: int, out: int, kernel: Sequence[int], *, scale: float = 0.05, **attributes: Any
    ) -> str:
        """A convolution of a tensor on the grid of `scale`, its result on the same."""
        shape = out, channels // attributes.get("group", 1), *kernel
        values = self.random.integers(-127, 128, shape, np.int8)
        scales = self.random.uniform(0.5, 1.5, out).astype(np.float32) * np.float32(0.02 / np.prod(shape[1:]) ** 0.5)
        bias_scales = np.float32(scale) * scales
        y = self.op("Conv", x, self.levels(values, scales), self._bias(bias_scales), **attributes)
        return self.quantized(y, scale)

    def _bias(self, scales: np.ndarray) -> str:
        values = self.random.integers(-2000, 2000, scales.shape, np.int32)
        grid = self.constant(scales, np.float32), self.constant(np.zeros(scales.shape, np.int32))
        return self.op("DequantizeLinear", self.constant(values), *grid, axis=0)

    def quantized_matmul(self, x: str, depth: int, out: int, *, scale: float = 0.05, weights: np.ndarray | None = None):
        """A matrix product, its weights on one grid, quantized again."""
        values = self.random.integers(-127, 128, (depth, out), np.int8) if weights is None else weights
        grid = self.constant(np.float32(0.02 / depth**0.5)), self.constant(np.int8(0))
        y = self.op("MatMul", x, self.op("DequantizeLinear", self.constant(values), *grid))
        return self.quantized(y, scale)


def attention(data: str) -> QuantizedNet:
    """Products of two activations: with the second one transposed and not, and with all axes odd; of one by itself,
    transposed; and bytes at their ends, -128 by -128 too."""
    net = QuantizedNet(data)
    for heads, queries, depth, keys, width in ((2, 13, 16, 19, 32), (1, 5, 7, 9, 11)):
        q, k, v = (
            net.quantized(net.input(heads, n, d), 0.03) for n, d in ((queries, depth), (keys, depth), (keys, width))
        )
        k = net.quantized(net.op("Transpose", k, perm=[0, 2, 1]), 0.03)
        scores = net.quantized(net.op("MatMul", q, k), 0.0517)
        net.output(scores, net.quantized(net.op("MatMul", scores, v), 0.0731, 101 if net.data.kind == "u" else -27))
    same = net.quantized(net.input(48, 64), 0.03)
    net.output(net.quantized(net.op("MatMul", same, net.op("Transpose", same, perm=[1, 0])), 0.5))
    low = np.iinfo(data).min
    ends, others = (net.quantized(net.input(16, 16, name=name), 1.0, low) for name in ("ends", "others"))
    net.output(net.quantized(net.op("MatMul", ends, others), 16 * 255**2 / 255, low))
    ends, others = (net.quantized(net.input(16, 16, name=name), 1.0, low + 255) for name in ("lows", "more"))
    net.output(net.quantized(net.op("MatMul", ends, others), 16 * 255**2 / 255, low))
    return net


def many_kinds(data: str) -> QuantizedNet:
    """Convolutions of all kinds one behind the other, with channels that fill neither words nor vectors, a sum of two
    tensors and a product with a K that fills no word."""
    net = QuantizedNet(data)
    x = net.quantized(net.input(1, 3, 19, 17), 0.03)
    x = net.quantized_conv(x, 3, 24, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    x = net.quantized_conv(x, 24, 21, (3, 3), pads=(1, 0, 2, 1))
    x = net.quantized_conv(x, 21, 37, (1, 1))
    x = net.quantized_conv(x, 37, 37, (3, 3), group=37, pads=(1, 1, 1, 1))
    x = net.quantized_conv(x, 37, 37, (5, 5), group=37, pads=(2, 2, 2, 2))
    y = net.quantized_conv(x, 37, 37, (1, 1))
    x = net.quantized(net.op("Add", x, y), 0.07)
    x = net.quantized_conv(x, 37, 37, (3, 3), group=37, strides=(2, 2), pads=(1, 1, 1, 1), scale=0.07)
    x = net.quantized_conv(x, 37, 6, (5, 5), dilations=(2, 2), pads=(4, 4, 4, 4), scale=0.07)
    x = net.quantized(net.op("Reshape", x, net.ints(8, 18)), 0.05)
    net.output(net.quantized_matmul(x, 18, 11))
    return net


def few_channels(data: str) -> QuantizedNet:
    """First layers of one, two and three channels: windows that are shorter and longer than a word, with and without a
    stride, and borders of different width."""
    net = QuantizedNet(data)
    for channels in (1, 2, 3):
        x = net.quantized(net.input(1, channels, 19, 17), 0.03)
        for kernel, strides, pads in (((3, 3), (1, 1), (1, 1, 1, 1)), ((5, 4), (2, 2), (2, 1, 2, 0))):
            net.output(net.quantized_conv(x, channels, 20, kernel, scale=0.03, strides=strides, pads=pads))
        net.output(net.quantized_conv(x, channels, 12, (1, 7), scale=0.03))
    return net


def extremes(data: str) -> QuantizedNet:
    """Activations and weights at their ends, and sums close to those of int32: 66,000 * 255 * 127 = 0.995 * 2^31."""
    net = QuantizedNet(data)
    ends = net.quantized(net.input(1, 16, 5, 9, name="ends"), 1.0, np.iinfo(data).min)
    for kernel, group in (((3, 3), 1), ((1, 1), 1), ((3, 3), 16)):
        rows = np.where(np.arange(16 * 16 * 9).reshape(16, 16, 9) % 3, 127, -127).astype(np.int8)
        rows[0], rows[1] = 127, -127
        values = rows.reshape(16, 16, 3, 3)[:, : 16 // group, : kernel[0], : kernel[1]]
        apart = 2 if group == 1 and kernel[0] > 1 else 1  # without dilation it may run as Winograd's, of floats
        window = {"pads": [kernel[0] // 2 * apart] * 4, "dilations": [apart] * 2}
        y = net.op("Conv", ends, net.levels(values, np.ones(16)), group=group, **window)
        net.output(net.quantized(y, 127 * 255 * values[0].size / 100))
    long = net.quantized(net.input(2, 66_000, name="long"), 1.0, np.iinfo(data).min)
    weights = np.full((66_000, 4), 127, np.int8) * np.array([1, -1, 1, -1], np.int8)
    weights[::2, 2:] *= -1
    net.output(net.quantized_matmul(long, 66_000, 4, scale=0.02 / 66_000**0.5 * 2.0**24, weights=weights))
    return net


def inputs_of(make: Any) -> dict[str, np.ndarray]:
    """What a model of this module is to be given; the rest may be random."""
    return {extremes: _extreme_inputs, attention: _attention_inputs}.get(make, dict)()


def _extreme_inputs() -> dict[str, np.ndarray]:
    """For `extremes`: the smallest and the largest activation, mixed; in a row of `long` all are the largest."""
    random = np.random.default_rng(0)
    long = np.stack([random.random(66_000) < 0.5, np.ones(66_000, bool)])
    marks = {"ends": random.random((1, 16, 5, 9)) < 0.5, "long": long}
    return {name: np.where(high, np.float32(1e4), np.float32(-1e4)) for name, high in marks.items()}


def _attention_inputs() -> dict[str, np.ndarray]:
    """For `attention`: the smallest and the largest activation, mixed, and whole rows of either."""
    random = np.random.default_rng(0)
    found = {}
    for name in ("ends", "others", "lows", "more"):
        high = random.random((16, 16)) < 0.5
        high[:4], high[:, :4] = name == "ends", name == "others"
        found[name] = np.where(high, np.float32(1e4), np.float32(-1e4))
    return found
