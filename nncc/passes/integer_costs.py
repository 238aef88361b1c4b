"""Whether a product is predicted to take longer on integers than in float32, by `nncc.layer_time`."""

from __future__ import annotations

from math import inf, prod
from typing import Any

import numpy as np

from nncc.compat import static_shape
from nncc.kernels.dots import Dot, dot_of
from nncc.layer_time import QUANTIZED_BLOCK, LayerTimes, Product
from nncc.passes.context import Context
from nncc.passes.pack_matmul import lists_of_panels, panel_lanes

__all__ = ["predicted", "slower"]

_WORTH = 1.05
"""Integers are given up for a gain of more than that: they need less memory, and the same numbers come everywhere."""


def slower(call: Any, kernel: np.ndarray, dtype: str, context: Context) -> str:
    """The reason why a product of `dtype` by the constant int8 `kernel` is better done in float32; empty where it is
    not; tensor cores and accelerators multiply integers faster than any floats."""
    if context.target.hardware.multiprocessors or context.target.hardware.accelerator is not None:
        return ""
    plain, way, integers = predicted(call, kernel, dtype, context)
    if integers <= _WORTH * plain:
        return ""
    return f"predicted {_millions(integers)} million vector operations on integers, {_millions(plain)} in float32{way}"


def _millions(operations: float) -> str:
    return f"{operations / 1e6:.3g}"


def predicted(call: Any, kernel: np.ndarray, dtype: str, context: Context) -> tuple[float, str, float]:
    """Vector operations in float32, a word on how, and on integers."""
    hardware = context.target.hardware
    times, product = LayerTimes(hardware, context.templates), _product(call, kernel)
    lanes = max(4, hardware.vector_bits // 32)
    plain, way = times.in_float(product, QUANTIZED_BLOCK, _skipping(call, kernel, lanes, context))

    def exact(tile: Any) -> bool:
        return context.templates["winograd"].module.exact(kernel, tile)

    lanes = lanes if product.kind == "matmul" else QUANTIZED_BLOCK
    skipping = _skipping(call, kernel, lanes, context, dot_of(hardware))
    return plain + times.dequantizing(product), way, times.on_integers(product, dtype, exact, skipping)


def _skipping(call: Any, kernel: np.ndarray, lanes: int, context: Context, dot: Dot | None = None) -> float:
    """The time of a kernel that skips zeros over that of a dense one at the peak; infinite where there is none."""
    hardware, result = context.target.hardware, static_shape(call)
    if call.op.name == "relax.matmul":
        columns = kernel.shape[1]
        width = panel_lanes(columns, lanes)
        lists = lists_of_panels(kernel, result[-2], width, hardware, dot)
        return inf if lists is None else lists.cost * (columns // width / -(-columns // lanes))
    if call.op.name != "relax.nn.conv2d" or int(call.attrs.groups) != 1:
        return inf
    strides = [int(v) for v in call.attrs.strides]
    plain = kernel.shape[2:] == (1, 1) and strides == [1, 1]
    row = prod(result[2:]) if plain else result[3]
    lists = context.templates["sparse_conv2d"].module.lists(kernel, lanes, lanes, row, hardware, dot)
    return inf if lists is None else lists.cost


def _product(call: Any, kernel: np.ndarray) -> Product:
    data, result = static_shape(call.args[0]), static_shape(call)
    inputs, outputs, window = prod(data), prod(result), tuple(kernel.shape[2:])
    if call.op.name == "relax.matmul":
        return Product("matmul", prod(result[:-1]), (), kernel.shape[0], result[-1], inputs, outputs)
    if call.op.name == "relax.nn.conv2d_transpose":
        image = tuple(data[2:])
        return Product("conv_transpose", data[0], image, kernel.shape[0], kernel.shape[1], inputs, outputs, window)
    strides, dilations = (tuple(int(v) for v in values) for values in (call.attrs.strides, call.attrs.dilation))
    sizes = result[0], tuple(result[2:]), kernel.shape[1], kernel.shape[0], inputs, outputs
    return Product("conv", *sizes, window, int(call.attrs.groups), strides, dilations)
