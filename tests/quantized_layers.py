"""Small quantized models, layer by layer, whose outputs are held against ONNX Runtime's within one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from compiled import Compiled, Net, compile_net

STEP = 0.04
"""The scale of activations, unless a layer says another."""


class QuantizedNet(Net):
    """A `Net` with words for layers of QDQ models."""

    def grid(self, x: str, scale: float = STEP, zero: int = 128, dtype: Any = np.uint8) -> str:
        """x rounded to a grid, and real again."""
        return self.dequantize(self.quantize(x, scale, zero, dtype), scale, zero, dtype)

    def quantize(self, x: str, scale: float = STEP, zero: int = 128, dtype: Any = np.uint8) -> str:
        return self.op("QuantizeLinear", x, self.constant(np.float32(scale)), self.constant(zero, dtype))

    def dequantize(self, q: str, scale: float = STEP, zero: int = 128, dtype: Any = np.uint8) -> str:
        return self.op("DequantizeLinear", q, self.constant(np.float32(scale)), self.constant(zero, dtype))

    def weights(self, *shape: int, axis: int = 0) -> tuple[str, np.ndarray]:
        """Integer weights that keep the variance of what they multiply, and their scales, along `axis`."""
        q = self.random.integers(-127, 128, shape)
        fan = np.prod(shape) / shape[axis]
        scale = (self.random.uniform(0.5, 1.5, shape[axis]) / 73 / np.sqrt(fan)).astype(np.float32)
        zero = self.constant(np.zeros(shape[axis]), np.int8)
        return self.op("DequantizeLinear", self.constant(q, np.int8), self.constant(scale), zero, axis=axis), scale

    def layer(self, kind: str, x: str, shape: Sequence[int], out: int, *, step: float = STEP, **attributes: Any) -> str:
        """A convolution or `Gemm` of x, on a grid of `step`, by weights of `shape`, with an int32 bias; not rounded."""
        transposed = kind == "ConvTranspose" or (kind == "Gemm" and not attributes.get("transB"))
        weight, scale = self.weights(*shape, axis=1 if transposed else 0)
        count = len(scale)
        assert count == out
        bias_scale = self.constant((scale * np.float32(step)).astype(np.float32))
        bias = self.constant(self.random.integers(-2000, 2000, out), np.int32)
        zeros = self.constant(np.zeros(out), np.int32)
        real = self.op("DequantizeLinear", bias, bias_scale, zeros, axis=0)
        return self.op(kind, x, weight, real, **attributes)

    def conv(self, x: str, channels: int, out: int, kernel: Sequence[int], **attributes: Any) -> str:  # type: ignore[override]
        """The same of a convolution of some channels."""
        group, step = attributes.get("group", 1), attributes.pop("step", STEP)
        return self.layer("Conv", x, (out, channels // group, *kernel), out, step=step, **attributes)


def within_a_step(
    net: Net,
    folder: Path,
    step: float = STEP,
    target: str = "native",
    inputs: Mapping[str, np.ndarray] | None = None,
    **options: Any,
) -> Compiled:
    """Claim that each element of each output is at most one `step` from ONNX Runtime's, and nearly all are equal;
    `inputs` replace the random ones."""
    compiled = compile_net(net, folder, target, **options)
    inputs = compiled.sample(**(inputs or {}))
    expected, found = compiled.expected(inputs), compiled.run(inputs)
    for name, array in expected.items():
        apart = np.abs(array.astype(np.float64) - found[name].astype(np.float64))
        assert found[name].dtype == array.dtype
        assert np.unique(array).size > min(8, array.size // 2), f"{name} hardly changes"
        assert apart.max() <= 1.01 * step, f"{name} is {apart.max() / step:.2f} steps from ONNX Runtime's"
        assert (apart > 1e-6).mean() <= 0.02, f"of {name}, {100 * (apart > 1e-6).mean():.1f} % are another integer"
    return compiled
