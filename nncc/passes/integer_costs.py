"""Whether a product is predicted to take longer on integers than in float32.

Counted are vector operations of one core: those of the reduction, each as long as a multiply-add of a whole vector
takes; what is padded to whole words and blocks; zeros that are skipped; words that are laid out for depthwise
convolutions; activations that are dequantized for a product in float32; the int32 sums that become float32. Winograd's
convolutions cost what their own plan says. What quantizes the result is the same for both, and bytes from memory are
always fewer with integers: neither is counted.

Measured on a Zen 4 core with AVX2, integers over float32, in brackets what is predicted: depthwise convolutions with
the 1x1 convolutions around them, 3x3 of 96 channels 0.89 (0.86), with stride 2 0.90 (0.74), 5x5 of 192 0.91 (0.89);
single layers whose input is dequantized where it is quantized, at no cost, 3x3 of 64 channels 0.87 (0.56),
of 128 0.74 (0.57), of 512 on 7x7 pixels 1.05 (0.67), from 3 to 32 1.23 (0.85), 1x1 of 64 0.81 (0.62), in 32 groups 2.55
(2.63), in 8 1.00 (1.20), in 4 0.86 (0.64). MobileNetV2 with depthwise convolutions in float32 takes 1 to 9 % longer.
"""

from __future__ import annotations

from math import inf, prod
from typing import Any

import numpy as np

from nncc.compat import static_shape
from nncc.dots import Dot, dot_of, wide_dot_of
from nncc.passes.context import Context
from nncc.skipping import WORD, best_lists

__all__ = ["predicted", "slower"]

_OPERATIONS = {"sdot": 1, "vnni512": 1, "vnni256": 1, "avxvnni": 1, "smull": 2, "pmaddwd": 4 / 3, "none": 12}
"""What the sum of a vector of words costs, in multiply-adds of float32 vectors: by measurements (VNNI 468 GOP/s and
pmaddwd 174 where float32 has 117), by llvm-mca (Cortex-A72: 8 multiply-adds a cycle where float32 has 4), and without
an instruction, the four products, additions and conversions that it stands for."""
_EFFICIENCY = 0.9
"""Of the peak, for products in register tiles."""
_DEQUANTIZE = 12
"""Vector operations a vector of activations: load and widen, convert, subtract and scale, store; and four times the
bytes that the product loads, from the second-level cache."""
_FINISH = 2
"""Vector operations a vector of int32 sums: convert and scale."""
_WORDS = 6
"""Vector operations a vector of words for depthwise convolutions: loads and shuffles."""
_LANES = 16
"""Of blocks of channels in quantized models."""
_WORTH = 1.05
"""Integers are given up for a gain of more than that: they need less memory, and the same numbers come everywhere."""


def slower(call: Any, kernel: np.ndarray, dtype: str, context: Context) -> str:
    """The reason why a product of `dtype` by the constant int8 `kernel` is better done in float32; empty where it is
    not."""
    plain, way, integers = predicted(call, kernel, dtype, context)
    if integers <= _WORTH * plain:
        return ""
    return f"predicted {_millions(integers)} million vector operations on integers, {_millions(plain)} in float32{way}"


def _millions(operations: float) -> str:
    return f"{operations / 1e6:.3g}"


def predicted(call: Any, kernel: np.ndarray, dtype: str, context: Context) -> tuple[float, str, float]:
    """Vector operations in float32, a word on how, and on integers."""
    hardware, dot = context.target.hardware, dot_of(context.target.hardware)
    lanes = max(4, hardware.vector_bits // 32)
    inputs, outputs = (prod(static_shape(each)) / lanes for each in (call.args[0], call))
    words = _words(call, kernel, dot, context)
    widen = 2 * inputs if dtype != dot.data and dot.name != "none" else 0.0
    integers = words + widen + _FINISH * outputs
    plain, way = _float(call, kernel, lanes, context)
    return plain + _DEQUANTIZE * inputs, way, integers


def _blocks(channels: int, lanes: int) -> int:
    return -(-channels // lanes)


def _padded(channels: int) -> int:
    """Channels of integers in whole blocks, as `Layout.lanes_of` has them."""
    return next((n for n in (4, 8) if channels <= n), _blocks(channels, _LANES) * _LANES)


def _float(call: Any, kernel: np.ndarray, lanes: int, context: Context) -> tuple[float, str]:
    result = static_shape(call)
    if call.op.name == "relax.matmul":
        skipping = _skipping(call, kernel, lanes, context)
        return prod(result[:-1]) * _blocks(result[-1], lanes) * kernel.shape[0] * min(1 / _EFFICIENCY, skipping), ""
    if call.op.name == "relax.nn.conv2d_transpose":
        pixels = prod(static_shape(call.args[0])) / kernel.shape[0]
        return pixels * kernel.shape[0] * prod(kernel.shape[2:]) * _blocks(kernel.shape[1], lanes) / _EFFICIENCY, ""
    out_channels, group_channels, *window = kernel.shape
    pixels, taps, groups = prod(result) // result[1], prod(window), int(call.attrs.groups)
    if groups == 1:
        strides, dilation = ([int(v) for v in values] for values in (call.attrs.strides, call.attrs.dilation))
        winograd = context.templates["winograd"].module
        hardware = context.target.hardware
        way = winograd.ways(kernel.shape, strides, dilation, result[0], *result[2:], _LANES, hardware)[0]
        skipping = _skipping(call, kernel, lanes, context)
        direct = pixels * taps * group_channels * _blocks(out_channels, lanes)
        if way and way.cost * _LANES / lanes < skipping * direct:
            return way.cost * _LANES / lanes, " by Winograd's convolution"
        return direct * min(1 / _EFFICIENCY, skipping), ""
    if group_channels == 1:
        return pixels * taps * _blocks(out_channels, lanes) / _EFFICIENCY, ""
    grouped = context.templates["grouped_conv2d"].module
    steps = min(1.5 * group_channels, grouped.steps(group_channels, out_channels // groups, groups, lanes, lanes))
    return pixels * taps * steps * _blocks(out_channels, lanes) / _EFFICIENCY, ""


def _integer_winograd(call: Any, kernel: np.ndarray, dot: Dot, context: Context) -> float:
    """Winograd's convolution of integers; infinite where there is none."""
    hardware, winograd, result = context.target.hardware, context.templates["winograd"].module, static_shape(call)
    if wide_dot_of(hardware) is None or min(kernel.shape[:2]) < _LANES:
        return inf
    strides, dilation = ([int(v) for v in values] for values in (call.attrs.strides, call.attrs.dilation))
    shape = kernel.shape, strides, dilation, result[0], *result[2:]
    found = winograd.ways(*shape, _LANES, hardware, winograd.integers(dot))[0]
    if not found or not winograd.exact(kernel, found.tile):
        return inf
    return found.cost * _LANES * 32 / hardware.vector_bits


def _skipping(call: Any, kernel: np.ndarray, lanes: int, context: Context, dot: Dot | None = None) -> float:
    """The time of a kernel that skips zeros over that of a dense one at the peak; infinite where there is none."""
    hardware, result = context.target.hardware, static_shape(call)
    if call.op.name == "relax.matmul":
        lists = (
            best_lists(kernel.T[:, :, None, None], lanes, result[-2], hardware, dot)
            if len(kernel) % WORD == 0
            else None
        )
    else:
        strides = [int(v) for v in call.attrs.strides]
        plain = kernel.shape[2:] == (1, 1) and strides == [1, 1]
        row = prod(result[2:]) if plain else result[3]
        lists = context.templates["sparse_conv2d"].module.lists(kernel, lanes, lanes, row, hardware, dot)
    return inf if lists is None else lists.cost


def _words(call: Any, kernel: np.ndarray, dot: Dot, context: Context) -> float:
    """The reduction on integers."""
    result, each = static_shape(call), _OPERATIONS[dot.name]
    if call.op.name == "relax.matmul":
        depth = _blocks(kernel.shape[0], dot.size)
        skipping = _skipping(call, kernel, max(4, context.target.hardware.vector_bits // 32), context, dot)
        return prod(result[:-1]) * depth * _blocks(result[-1], dot.lanes) * each * min(1 / _EFFICIENCY, skipping)
    if call.op.name == "relax.nn.conv2d_transpose":
        pixels = prod(static_shape(call.args[0])) / kernel.shape[0]
        steps = prod(kernel.shape[2:]) * _padded(kernel.shape[0]) / dot.size
        return pixels * steps * _padded(kernel.shape[1]) / dot.lanes * each / _EFFICIENCY
    out_channels, group_channels, *window = kernel.shape
    pixels, groups = prod(result) // result[1], int(call.attrs.groups)
    vectors = _padded(out_channels) / dot.lanes
    if groups == 1:
        direct = pixels * prod(window) * _padded(group_channels) / dot.size * vectors * each
        skipping = _skipping(call, kernel, _LANES, context, dot)
        return min(direct * min(1 / _EFFICIENCY, skipping), _integer_winograd(call, kernel, dot, context))
    if group_channels == 1 and out_channels == groups:
        # as in schedules/depthwise_conv2d.py: columns that share words, each with its own weights
        stride = int(call.attrs.strides[1])
        width = (window[1] - 1) * int(call.attrs.dilation[1]) + 1
        count, columns = min((_blocks((j - 1) * stride + width, dot.size), -j) for j in range(1, dot.size + 1))
        laid = count / -columns * int(call.attrs.strides[0])
        return pixels * vectors * (window[0] * count * each / _EFFICIENCY + laid * _WORDS)
    steps = max(group_channels, _LANES)
    return pixels * prod(window) * steps / dot.size * vectors * each / _EFFICIENCY
