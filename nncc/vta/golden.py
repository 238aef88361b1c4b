"""What a layer is, in numpy: the reference that programs are compared with, element by element.

Numbers are those of the accelerator's description: sums of products wrap at 32 bits, requantization is in float32 with
rounding to nearest even (profile nv1) or an arithmetic shift (vta0), sums of two activations have fused multiply-adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nncc.vta.layer import Layer
from nncc.vta.machine import Machine

__all__ = ["fused", "golden"]

Array = npt.NDArray[Any]


def golden(layer: Layer, arguments: Sequence[Array], machine: Machine) -> Array:
    """The output, int8 [OB, OH, OW, block], of a layer of its arguments in the order of `Layer`, without the output.

    Params are what the machine reads: uint8 [OB (+ 1), 8 block] in nv1, int32 [OB, block] in vta0; weights in vta0 have
    one more element behind them where there is a residual, which is not looked at here.
    """
    data = np.asarray(arguments[0])
    rest = [np.asarray(argument) for argument in arguments[1:]]
    if layer.kind == "max_pool":
        return _windows(layer, data).max(axis=(0, 1))
    if layer.kind == "add":
        params, other = (rest[0], rest[1]) if machine.profile == "nv1" else (None, rest[0])
        return _sum(layer, data, other, None if params is None else params[0], machine.block)
    products = _depthwise(layer, data, rest[0]) if layer.kind == "depthwise" else _conv2d(layer, data, rest[0])
    if machine.profile == "vta0":
        return _shifted(layer, products, rest[1], rest[2] if layer.residual else None)
    blocks, block = layer.output[0], machine.block
    bias = np.ascontiguousarray(rest[1][:blocks, : 4 * block]).view(np.int32)[:, None, None, :]
    scale = np.ascontiguousarray(rest[1][:blocks, 4 * block :]).view(np.float32)[:, None, None, :]
    result = _requantized(layer, _wrapped(products + bias), scale)
    return _sum(layer, result, rest[2], rest[1][blocks], block) if layer.residual else result


def _windows(layer: Layer, data: Array) -> Array:
    """[KH, KW, CB, OH, OW, block]: what each output sees through each tap."""
    top, left, bottom, right = layer.padding
    data = np.pad(data, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=layer.pad_value)
    (_, height, width), (rows, columns) = layer.output, layer.stride
    taps = [
        [
            data[:, y : y + (height - 1) * rows + 1 : rows, x : x + (width - 1) * columns + 1 : columns]
            for x in range(0, layer.kernel[1] * layer.dilation[1], layer.dilation[1])
        ]
        for y in range(0, layer.kernel[0] * layer.dilation[0], layer.dilation[0])
    ]
    return np.array(taps)


def _conv2d(layer: Layer, data: Array, weights: Array) -> Array:
    """Sums of products, int64 [OB, OH, OW, block]; float64 holds them exactly."""
    windows = _windows(layer, data).astype(np.float64)
    taps = layer.kernel[0] * layer.kernel[1]
    blocks, block = layer.output[0], data.shape[-1]
    inputs = (
        windows.reshape(taps, layer.input[0], -1, block)
        .transpose(2, 1, 0, 3)
        .reshape(-1, layer.input[0] * taps * block)
    )
    count = blocks * layer.input[0] * taps
    matrix = weights.reshape(-1, block, block)[:count].reshape(blocks, -1, block, block).astype(np.float64)
    matrix = matrix.transpose(1, 3, 0, 2).reshape(-1, blocks * block)
    sums = (inputs @ matrix).astype(np.int64)
    return sums.reshape(*layer.output[1:], blocks, block).transpose(2, 0, 1, 3)


def _depthwise(layer: Layer, data: Array, weights: Array) -> Array:
    """Sums of products of each channel, int64 [CB, OH, OW, block]; weights [CB, ceil(taps / block), taps, lanes]."""
    windows = _windows(layer, data).astype(np.int64)
    taps = layer.kernel[0] * layer.kernel[1]
    rows = weights.reshape(layer.input[0], -1, data.shape[-1])[:, :taps].astype(np.int64)
    return np.einsum("tcyxl,ctl->cyxl", windows.reshape(taps, *windows.shape[2:]), rows)


def _wrapped(values: Array) -> Array:
    return values.astype(np.int64).astype(np.uint32).astype(np.int32)


def _requantized(layer: Layer, values: Array, scale: Array) -> Array:
    zero = layer.zero
    low = np.float32((zero if layer.relu else -128) - zero)
    real = values.astype(np.float32) * scale
    real = np.where(real > low, real, low)  # NaN gives the lower bound
    real = np.where(real < np.float32(127 - zero), real, np.float32(127 - zero))
    return (np.rint(real) + zero).astype(np.int8)


def _sum(layer: Layer, product: Array, other: Array, params: Array | None, block: int) -> Array:
    """The sum of two tensors of int8 on their grids; without params, of integers of the same grid, clipped."""
    if params is None:
        total = product.astype(np.int32) + other
        return np.clip(total, 0 if layer.relu else -128, 127).astype(np.int8)
    scale = np.ascontiguousarray(params[4 * block :]).view(np.float32)
    parts = [(product.astype(np.float64) + 128, scale[0]), (other.astype(np.float64) + 128, scale[1])]
    (outer, ratio), (inner, other_ratio) = parts if layer.residual != "second" else parts[::-1]
    real = fused(outer, ratio, fused(inner, other_ratio, scale[2]))
    real = np.where(real > 0, real, np.float32(0))
    real = np.where(real < 255, real, np.float32(255))
    return (np.rint(real) - 128).astype(np.int8)


def fused(factor: Array, ratio: np.float32, addend: Array | np.float32) -> Array:
    """fl32(factor * ratio + addend), rounded once, of integers in [0, 255] and float32.

    The product is exact in float64. Where the sum is not, it is rounded to odd, so that rounding it again to float32
    gives what rounding once would: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums" (2008).
    """
    product, addend = factor * np.float64(ratio), np.float64(addend)
    total = product + addend
    part = total - product
    error = (product - (total - part)) + (addend - part)
    even = (np.atleast_1d(total).view(np.int64) & 1).reshape(total.shape) == 0
    towards = np.where(error > 0, np.inf, -np.inf)
    odd = np.where((error != 0) & even, np.nextafter(total, towards), total)
    with np.errstate(over="ignore"):
        return odd.astype(np.float32)


def _shifted(layer: Layer, products: Array, bias: Array, other: Array | None) -> Array:
    """Requantization of vta0: (acc + bias) >> shift, plus a tensor of the same grid, clipped."""
    result = _wrapped(products + bias[:, None, None, :]) >> layer.shift
    if other is not None:
        result = result + other
    return np.clip(result, 0 if layer.relu else -128, 127).astype(np.int8)
