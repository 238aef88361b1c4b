"""What the layers of an accelerator compute, as tensor expressions: exact, so that a processor can run them instead.

Activations are int8[1, C/b, H, W, b]. Sums of products are int32; they become int8 as the processor's own kernels
round them (`nncc.passes.quantization`), with the bias and the scale of each channel in `parameters`, int32[O/b, 2 b]:
biases, then the bits of float32 scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.passes.quantization import bounds, dequantized, quantized
from nncc.vta.layer import Layer

__all__ = ["LAYER", "anchored", "bordered", "requantized", "summed"]

LAYER = "nncc.layer"
"""The annotation of an anchor with its `Layer`, as JSON."""
_LEAST, _ = bounds("int8")


def anchored(name: str, layer: Layer) -> dict[str, str]:
    """Attributes of the block that stands for a layer."""
    return scheduling.anchor(name) | {LAYER: layer.to_json()}


def bordered(data: te.Tensor, layer: Layer) -> Callable[..., Any]:
    """Elements of the input at a place of the window (block, row, column, kernel row, kernel column, lane); outside of
    it the layer's `pad_value`."""
    _, height, width = layer.input
    top, left, bottom, right = layer.padding

    def element(c: Any, h: Any, w: Any, kh: Any, kw: Any, i: Any) -> Any:
        row = h * layer.stride[0] + kh * layer.dilation[0] - top
        column = w * layer.stride[1] + kw * layer.dilation[1] - left
        value = data[0, c, row, column, i]
        if not (top or left or bottom or right):
            return value
        inside = tirx.all(row >= 0, row < height, column >= 0, column < width)
        return tirx.if_then_else(inside, value, tirx.const(layer.pad_value, data.dtype))

    return element


def requantized(acc: te.Tensor, parameters: te.Tensor, layer: Layer) -> te.Tensor:
    """clip(round(max(float32(acc + bias) scale, 0 where the layer has a ReLU)) + zero) of sums int32[O/b, H, W, b]."""
    blocks, height, width, block = (int(d) for d in acc.shape)

    def element(_: Any, c: Any, h: Any, w: Any, i: Any) -> Any:
        scale = tirx.reinterpret("float32", parameters[c, block + i])
        real = dequantized(acc[c, h, w, i] + parameters[c, i], scale, 0)
        real = te.max(real, tirx.const(0.0, "float32")) if layer.relu else real
        return quantized(real, 1.0, layer.zero, "int8")

    return te.compute((1, blocks, height, width, block), element, name="requantize")


def summed(
    first: te.Tensor, second: te.Tensor, parameters: te.Tensor, row: int, ratios: tuple[int, int], **anchor: Any
) -> te.Tensor:
    """clip(round(r (a - least) + (s (b - least) + fixed))) of a, `first`, and b, `second`; r and s are the scales
    `ratios` of this row of `parameters`, fixed is its third one."""
    block = int(first.shape[-1])

    def number(position: int) -> Any:
        return tirx.reinterpret("float32", parameters[row, block + position])

    def element(*at: Any) -> Any:
        one, other = (dequantized(x[at], number(r), _LEAST) for x, r in zip((first, second), ratios, strict=True))
        return quantized(one + (other + number(2)), 1.0, _LEAST, "int8")

    return te.compute(first.shape, element, **({"name": "sum"} | anchor))
