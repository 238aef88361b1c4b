"""Convolution on a GPU: implicit matrix product of plain float32 tensors.

    y[n, g Og + o, i, j] = sum_{kh, kw, c} W[g, k, o] x[n, g C + c, i sh + kh dh - pt, j sw + kw dw - pl]
    k = (kh KW + kw) C + c

x is [N, G C, H, W], y [N, G Og, OH, OW], W [G, KH KW C, Og up to a multiple of 4]. A thread block makes a tile of
output channels by output pixels from slabs of the depth KH KW C in shared memory; pixels are the fast axis of
everything that is read or written. `nncc::conv2d` of the prelude is its inner loop.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops, device_tiles

NAME = "cuda_conv2d"


def pack(kernel, groups):
    """[G Og, C, KH, KW] -> [G, KH KW C, Og up to a multiple of 4], zeros where channels are missing."""
    out_channels, channels, height, width = kernel.shape
    each = out_channels // groups
    packed = kernel.reshape(groups, each, channels, height, width).transpose(0, 3, 4, 2, 1)
    packed = packed.reshape(groups, height * width * channels, each)
    return np.ascontiguousarray(np.pad(packed, ((0, 0), (0, 0), (0, -each % 4))))


def compute(data, weight, *, channels, window, strides, padding, dilation, tf32=False):
    """Define the convolution to `channels` outputs; `window` is (KH, KW), `padding` (top, left, bottom, right).

    With `tf32`, tensor cores multiply, and round both factors to 10 bits of fraction.
    """
    batch, in_channels, height, width = (int(d) for d in data.shape)
    groups = int(weight.shape[0])
    each, out_each = in_channels // groups, channels // groups
    top, left, bottom, right = padding
    out_h = (height + top + bottom - (window[0] - 1) * dilation[0] - 1) // strides[0] + 1
    out_w = (width + left + right - (window[1] - 1) * dilation[1] - 1) // strides[1] + 1
    kh = te.reduce_axis((0, window[0]), name="kh")
    kw = te.reduce_axis((0, window[1]), name="kw")
    c = te.reduce_axis((0, each), name="c")

    def product(n, o, h, w):
        y, x = h * strides[0] + kh * dilation[0] - top, w * strides[1] + kw * dilation[1] - left
        value = data[n, o // out_each * each + c, y, x]
        if any(padding):
            inside = tirx.all(y >= 0, y < height, x >= 0, x < width)
            value = tirx.if_then_else(inside, value, tirx.const(0.0, data.dtype))
        tap = (kh * window[1] + kw) * each + c
        return te.sum(value * weight[o // out_each, tap, o % out_each], axis=[kh, kw, c])

    shape = (batch, channels, out_h, out_w)
    facts = [batch, in_channels, each, height, width, out_h, out_w, *window, *strides, top, left, *dilation]
    attrs = scheduling.anchor(NAME) | {"nncc.window": [int(f) for f in facts], "nncc.tf32": int(tf32)}
    return te.compute(shape, product, name="conv2d", attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Tiles of channels by pixels, and parts of the depth, so that all multiprocessors have work."""
    window = [int(f) for f in sch.get(block).annotations["nncc.window"]]
    batch, _, each, _, _, out_h, out_w, *_ = window
    groups, depth, stride = scheduling.operand_shape(sch, block, 1)
    channels = scheduling.extents(sch, block)[1] // groups
    pixels = batch * out_h * out_w
    tf32 = bool(sch.get(block).annotations["nncc.tf32"])
    plan = device_tiles.choose_tile(channels, pixels, depth, groups, hardware, choose, steps_of=each, tf32=tf32)
    tile = plan.tile
    across = -(-channels // tile.m)
    data, weight = (scheduling.operand(sch, block, i) for i in (0, 1))
    function = (
        f"nncc::conv2d<{tile.words()}, nncc::Window<{', '.join(map(str, window))}>, {channels}, {stride}, {plan.part}>"
    )
    vector = tile.run if (out_h * out_w) % tile.run == 0 else 1

    def place(x, y, z, thread, number):
        row, column = tile.place(thread, number * vector)
        o, p = y % across * tile.m + row, x * tile.n + column
        conditions = [o < channels] if channels % tile.m else []
        conditions += [p < pixels] if pixels % tile.n else []
        if groups > 1:
            o = y // across * channels + o
        n, p = (p // (out_h * out_w), p % (out_h * out_w)) if batch > 1 else (0, p)
        return [n, o, p // out_w, p % out_w], tirx.all(*conditions) if conditions else None

    registers = device_loops.Registers(tile.count, vector, tile.sums, place)
    grid = device_loops.Grid(-(-pixels // tile.n), across * groups, plan.parts, tile.threads)
    arguments = lambda x, y, z, _: (function, data, weight, x, y, z)  # noqa: E731
    placed = device_loops.on_grid(sch, block, arguments, grid, registers, plan.parts)
    return placed, f"tile {plan}"
