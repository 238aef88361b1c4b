"""Convolution on tensor cores, of channels in blocks of 16 bytes: integers of 8 bits into int32, halves into float32.

    y[n, o div b, i, j, o mod b] = sum_{kh, kw, c, l} W[(kh KW + kw) C + c, o, l] x[n, c, u, v, l]
    u = i sh + kh dh - pt        v = j sw + kw dw - pl

x is [N, C, H, W, b], outside of it `zero`; W [KH KW C, O up to whole blocks, b]; y [N, O div b, OH, OW, b]. A thread
block makes a tile of output pixels by output channels. `nncc::unit_conv2d` of the prelude is its inner loop.
"""

from __future__ import annotations

import numpy as np

from nncc import device_loops, scheduling
from nncc.compat import te, tirx
from nncc.device_units import KIND, KINDS, choose_unit_tile, decoded

NAME = "cuda_unit_conv2d"


def pack(kernel, lanes):
    """[O, C, KH, KW] -> [KH KW C/b, O up to whole blocks, b], zeros where channels are missing."""
    out, channels, height, width = kernel.shape
    padded = np.pad(kernel, ((0, -out % lanes), (0, -channels % lanes), (0, 0), (0, 0)))
    blocks = padded.reshape(padded.shape[0], -1, lanes, height, width).transpose(3, 4, 1, 0, 2)
    return np.ascontiguousarray(blocks.reshape(-1, padded.shape[0], lanes))


def compute(data, weight, *, kind, window, strides, padding, dilation, zero=0):
    """Define the convolution of numbers of `kind`, a word of `KINDS`; `padding` is (top, left, bottom, right)."""
    batch, blocks, height, width, lanes = (int(d) for d in data.shape)
    columns = int(weight.shape[1])
    top, left, bottom, right = padding
    out_h = (height + top + bottom - (window[0] - 1) * dilation[0] - 1) // strides[0] + 1
    out_w = (width + left + right - (window[1] - 1) * dilation[1] - 1) // strides[1] + 1
    kh, kw = (te.reduce_axis((0, window[axis]), name=name) for axis, name in enumerate(("kh", "kw")))
    c, b = te.reduce_axis((0, blocks), name="c"), te.reduce_axis((0, lanes), name="b")

    def product(n, o, h, w, i):
        y, x = h * strides[0] + kh * dilation[0] - top, w * strides[1] + kw * dilation[1] - left
        value = decoded(data[n, c, y, x, b], kind)
        if any(padding):
            inside = tirx.all(y >= 0, y < height, x >= 0, x < width)
            value = tirx.if_then_else(inside, value, tirx.const(zero, KINDS[kind].sum))
        factor = decoded(weight[(kh * window[1] + kw) * blocks + c, o * lanes + i, b], kind)
        return te.sum(value * factor, axis=[kh, kw, c, b])

    facts = [batch, blocks, blocks, height, width, out_h, out_w, *window, *strides, top, left, *dilation]
    attrs = {"nncc.window": [int(f) for f in facts], KIND: kind, "nncc.zero": int(zero) if any(padding) else 0}
    shape = (batch, columns // lanes, out_h, out_w, lanes)
    return te.compute(shape, product, name="unit_conv2d", attrs=scheduling.anchor(NAME) | attrs)


def schedule(sch, block, hardware, choose):
    """Tiles of pixels by channels, and parts of the depth, so that all multiprocessors have work."""
    annotations = sch.get(block).annotations
    window, kind = [int(f) for f in annotations["nncc.window"]], KINDS[str(annotations[KIND])]
    batch, _, _, _, _, out_h, out_w, *_ = window
    units, columns, lanes = scheduling.operand_shape(sch, block, 1)
    pixels = batch * out_h * out_w
    plan = choose_unit_tile(pixels, columns, units, kind, hardware, choose)
    tile = plan.tile
    data, weight = (scheduling.operand(sch, block, i) for i in (0, 1))
    words = f"{tile.words(kind)}, nncc::Window<{', '.join(map(str, window))}>"
    function = f"nncc::unit_conv2d<{words}, {columns}, {plan.part}, {int(annotations['nncc.zero'])}>"

    def place(x, y, z, thread, number):
        row, column = tile.place(thread, number * 4)
        p, o = x * tile.m + row, y * tile.n + column
        conditions = [p < pixels] if pixels % tile.m else []
        conditions += [o < columns] if columns % tile.n else []
        n, p = (p // (out_h * out_w), p % (out_h * out_w)) if batch > 1 else (0, p)
        return [n, o // lanes, p // out_w, p % out_w, o % lanes], tirx.all(*conditions) if conditions else None

    registers = device_loops.Registers(tile.count, 4, tile.count, place, kind.sum)
    grid = device_loops.Grid(-(-pixels // tile.m), -(-columns // tile.n), plan.parts, tile.threads)
    arguments = lambda x, y, z, _: (function, data, weight, x, y, z)  # noqa: E731
    placed = device_loops.on_grid(sch, block, arguments, grid, registers, plan.parts)
    return placed, f"tile {plan}, {annotations[KIND]}"
