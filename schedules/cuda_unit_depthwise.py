"""Depthwise convolution on a GPU, of channels in blocks of 16 bytes: a thread makes some places of four channels.

    y[n, c, i, j, l] = sum_{kh, kw} W[c, kh KW + kw, l] x[n, c, i sh + kh dh - pt, j sw + kw dw - pl, l]

x is [N, C, H, W, b] of integers of 8 bits or of halves, outside of it `zero`; W [C, KH KW, b]; y is int32 or float32.
`nncc::unit_depthwise` of the prelude is its inner loop.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops
from nncc.gpu.device_units import KIND, KINDS, decoded

NAME = "cuda_unit_depthwise"
_THREADS = 128


def pack(kernel, lanes):
    """[C, 1, KH, KW] -> [C/b, KH KW, b], zeros where channels are missing."""
    channels = kernel.shape[0]
    padded = np.pad(kernel.reshape(channels, -1), ((0, -channels % lanes), (0, 0)))
    return np.ascontiguousarray(padded.reshape(-1, lanes, padded.shape[1]).transpose(0, 2, 1))


def compute(data, weight, *, kind, window, strides, padding, dilation, zero=0):
    """Define the convolution of numbers of `kind`, a word of `KINDS`; `padding` is (top, left, bottom, right)."""
    batch, blocks, height, width, lanes = (int(d) for d in data.shape)
    top, left, bottom, right = padding
    out_h = (height + top + bottom - (window[0] - 1) * dilation[0] - 1) // strides[0] + 1
    out_w = (width + left + right - (window[1] - 1) * dilation[1] - 1) // strides[1] + 1
    kh = te.reduce_axis((0, window[0]), name="kh")
    kw = te.reduce_axis((0, window[1]), name="kw")

    def product(n, c, h, w, i):
        y, x = h * strides[0] + kh * dilation[0] - top, w * strides[1] + kw * dilation[1] - left
        value = decoded(data[n, c, y, x, i], kind)
        if any(padding):
            inside = tirx.all(y >= 0, y < height, x >= 0, x < width)
            value = tirx.if_then_else(inside, value, tirx.const(zero, KINDS[kind].sum))
        return te.sum(value * decoded(weight[c, kh * window[1] + kw, i], kind), axis=[kh, kw])

    facts = [batch, blocks, blocks, height, width, out_h, out_w, *window, *strides, top, left, *dilation]
    attrs = {"nncc.window": [int(f) for f in facts], KIND: kind, "nncc.zero": int(zero) if any(padding) else 0}
    shape = (batch, blocks, out_h, out_w, lanes)
    return te.compute(shape, product, name="unit_depthwise", attrs=scheduling.anchor(NAME) | attrs)


def schedule(sch, block, hardware, choose):
    """Threads along the channels of a pixel, then along rows, each with as many places as leave work for all."""
    annotations = sch.get(block).annotations
    window, kind = [int(f) for f in annotations["nncc.window"]], KINDS[str(annotations[KIND])]
    batch, blocks, out_h, out_w, lanes, *_ = scheduling.extents(sch, block)
    data, weight = (scheduling.operand(sch, block, i) for i in (0, 1))
    fours = lanes // 4

    def pieces(width):
        return batch * blocks * out_h * -(-out_w // width) * fours

    enough = 512 * (hardware.multiprocessors or 1)
    wanted = [w for w in (4, 2, 1) if pieces(w) >= enough and w <= out_w] or [1]
    width = choose("tile", [wanted[0], *(w for w in (1, 2, 4) if w != wanted[0])])
    columns, count = -(-out_w // width), pieces(width)
    words = f"{kind.word}, nncc::Window<{', '.join(map(str, window))}>"
    function = f"nncc::unit_depthwise<{words}, {width}, {int(annotations['nncc.zero'])}>"

    def piece(x, thread):
        number = x * _THREADS + thread
        place = number // fours
        return place // (out_h * columns), place // columns % out_h, place % columns, number % fours

    def place(x, y, z, thread, number):
        plane, row, column, four = piece(x, thread)
        w = column * width + number
        conditions = [plane < batch * blocks] if count % _THREADS else []
        conditions += [w < out_w] if out_w % width else []
        n, c = (plane // blocks, plane % blocks) if batch > 1 else (0, plane)
        return [n, c, row, w, four * 4], tirx.all(*conditions) if conditions else None

    def call(x, y, z, thread):
        plane, row, column, four = piece(x, thread)
        # Threads beyond the last piece read what the last channels read, and store nothing.
        inside = tirx.min(plane, batch * blocks - 1) if count % _THREADS else plane
        return function, data, weight, inside, row, column, four

    registers = device_loops.Registers(4 * width, 4, 4 * width, place, kind.sum)
    grid = device_loops.Grid(-(-count // _THREADS), 1, 1, _THREADS)
    return device_loops.on_grid(sch, block, call, grid, registers), f"tile {width}, {annotations[KIND]}"
