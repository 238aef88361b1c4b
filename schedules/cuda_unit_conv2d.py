"""Convolution on tensor cores, of channels in blocks of 16 bytes: integers of 8 bits into int32, halves into float32.

    y[n, o div b, i, j, o mod b] = sum_{kh, kw, c, l} W[((g KH + kh) KW + kw) C + c, o mod O, l] x[n, g C + c, u, v, l]
    g = o div O        u = i sh + kh dh - pt        v = j sw + kw dw - pl

x is [N, G C, H, W, b], outside of it `zero`; W [G KH KW C, O up to whole blocks, b]; y [N, G O div b, OH, OW, b]. Of
several groups, each has whole blocks. A thread block makes a tile of output pixels by output channels.
`nncc::unit_conv2d` of the prelude is its inner loop.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops
from nncc.gpu.device_units import KIND, KINDS, choose_unit_tile, decoded

NAME = "cuda_unit_conv2d"


def pack(kernel, lanes, groups=1):
    """[G O, C, KH, KW] -> [G KH KW C/b, O up to whole blocks, b], zeros where channels are missing."""
    out, channels, height, width = kernel.shape
    of_groups = kernel.reshape(groups, out // groups, channels, height, width)
    padded = np.pad(of_groups, ((0, 0), (0, -(out // groups) % lanes), (0, -channels % lanes), (0, 0), (0, 0)))
    columns = padded.shape[1]
    blocks = padded.reshape(groups, columns, -1, lanes, height, width).transpose(0, 4, 5, 2, 1, 3)
    return np.ascontiguousarray(blocks.reshape(-1, columns, lanes))


def compute(data, weight, *, kind, window, strides, padding, dilation, zero=0, groups=1):
    """Define the convolution of numbers of `kind`, a word of `KINDS`; `padding` is (top, left, bottom, right)."""
    batch, blocks, height, width, lanes = (int(d) for d in data.shape)
    columns, each = int(weight.shape[1]), blocks // groups
    of_group = columns // lanes
    top, left, bottom, right = padding
    out_h = (height + top + bottom - (window[0] - 1) * dilation[0] - 1) // strides[0] + 1
    out_w = (width + left + right - (window[1] - 1) * dilation[1] - 1) // strides[1] + 1
    kh, kw = (te.reduce_axis((0, window[axis]), name=name) for axis, name in enumerate(("kh", "kw")))
    c, b = te.reduce_axis((0, each), name="c"), te.reduce_axis((0, lanes), name="b")

    def product(n, o, h, w, i):
        y, x = h * strides[0] + kh * dilation[0] - top, w * strides[1] + kw * dilation[1] - left
        value = decoded(data[n, o // of_group * each + c, y, x, b], kind)
        if any(padding):
            inside = tirx.all(y >= 0, y < height, x >= 0, x < width)
            value = tirx.if_then_else(inside, value, tirx.const(zero, KINDS[kind].sum))
        tap = (o // of_group * window[0] + kh) * window[1] + kw
        factor = decoded(weight[tap * each + c, o % of_group * lanes + i, b], kind)
        return te.sum(value * factor, axis=[kh, kw, c, b])

    facts = [batch, blocks, each, height, width, out_h, out_w, *window, *strides, top, left, *dilation]
    attrs = {"nncc.window": [int(f) for f in facts], KIND: kind, "nncc.zero": int(zero) if any(padding) else 0}
    shape = (batch, groups * of_group, out_h, out_w, lanes)
    return te.compute(shape, product, name="unit_conv2d", attrs=scheduling.anchor(NAME) | attrs)


def schedule(sch, block, hardware, choose):
    """Tiles of pixels by channels, and parts of the depth, so that all multiprocessors have work."""
    annotations = sch.get(block).annotations
    window, kind = [int(f) for f in annotations["nncc.window"]], KINDS[str(annotations[KIND])]
    batch, blocks, each, _, _, out_h, out_w, *_ = window
    units, columns, lanes = scheduling.operand_shape(sch, block, 1)
    pixels, groups = batch * out_h * out_w, blocks // each
    plan = choose_unit_tile(pixels, columns, units // groups, kind, hardware, choose, batch=groups)
    tile = plan.tile
    across = -(-columns // tile.n)
    data, weight = (scheduling.operand(sch, block, i) for i in (0, 1))
    words = f"{tile.words(kind)}, nncc::Window<{', '.join(map(str, window))}>"
    function = f"nncc::unit_conv2d<{words}, {columns}, {plan.part}, {int(annotations['nncc.zero'])}>"

    def place(x, y, z, thread, number):
        row, column = tile.place(thread, number * 4)
        p, o = x * tile.m + row, (y % across if groups > 1 else y) * tile.n + column
        conditions = [p < pixels] if pixels % tile.m else []
        conditions += [o < columns] if columns % tile.n else []
        o = y // across * columns + o if groups > 1 else o
        n, p = (p // (out_h * out_w), p % (out_h * out_w)) if batch > 1 else (0, p)
        return [n, o // lanes, p // out_w, p % out_w, o % lanes], tirx.all(*conditions) if conditions else None

    registers = device_loops.Registers(tile.count, 4, tile.count, place, kind.sum)
    grid = device_loops.Grid(-(-pixels // tile.m), across * groups, plan.parts, tile.threads)
    arguments = lambda x, y, z, _: (function, data, weight, x, y, z)  # noqa: E731
    placed = device_loops.on_grid(sch, block, arguments, grid, registers, plan.parts)
    return placed, f"tile {plan}, {annotations[KIND]}"
