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
