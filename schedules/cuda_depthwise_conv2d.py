"""Depthwise convolution on a GPU: a thread makes some places of one channel from registers.

    y[n, o, oh, ow] = sum_{kh, kw} W[o, kh KW + kw] x[n, o div m, oh sh + kh dh - pt, ow sw + kw dw - pl]

x is [N, C, H, W], y [N, m C, OH, OW], W [m C, KH KW]. `nncc::depthwise_conv2d` of the prelude is its inner loop.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops

NAME = "cuda_depthwise_conv2d"
_THREADS = 128


def pack(kernel):
    """[O, 1, KH, KW] -> [O, KH KW]."""
    return np.ascontiguousarray(kernel.reshape(kernel.shape[0], -1))


def compute(data, weight, *, window, strides, padding, dilation):
    """Define the convolution; `window` is (KH, KW), `padding` (top, left, bottom, right)."""
    batch, in_channels, height, width = (int(d) for d in data.shape)
    channels = int(weight.shape[0])
    top, left, bottom, right = padding
    out_h = (height + top + bottom - (window[0] - 1) * dilation[0] - 1) // strides[0] + 1
    out_w = (width + left + right - (window[1] - 1) * dilation[1] - 1) // strides[1] + 1
    kh = te.reduce_axis((0, window[0]), name="kh")
    kw = te.reduce_axis((0, window[1]), name="kw")

    def product(n, o, h, w):
        y, x = h * strides[0] + kh * dilation[0] - top, w * strides[1] + kw * dilation[1] - left
        value = data[n, o // (channels // in_channels), y, x]
        if any(padding):
            inside = tirx.all(y >= 0, y < height, x >= 0, x < width)
            value = tirx.if_then_else(inside, value, tirx.const(0.0, data.dtype))
        return te.sum(value * weight[o, kh * window[1] + kw], axis=[kh, kw])

    facts = [batch, in_channels, in_channels, height, width, out_h, out_w, *window, *strides, top, left, *dilation]
    attrs = scheduling.anchor(NAME) | {"nncc.window": [int(f) for f in facts]}
    return te.compute((batch, channels, out_h, out_w), product, name="depthwise_conv2d", attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Threads along the rows of all channels, each with as many places as leave work for all multiprocessors."""
    window = [int(f) for f in sch.get(block).annotations["nncc.window"]]
    batch, channels, out_h, out_w, *_ = scheduling.extents(sch, block)
    data, weight = (scheduling.operand(sch, block, i) for i in (0, 1))
    enough = 512 * (hardware.multiprocessors or 1)
    places = batch * channels * out_h * out_w

    def pieces(size):
        return batch * channels * -(-out_h // size[0]) * -(-out_w // size[1])

    sizes = [[1, 1], [1, 2], [1, 4], [2, 2], [2, 4]]
    wanted = [size for size in sizes if pieces(size) >= min(enough, places) and size[1] <= max(1, out_w)]
    default = max(wanted, key=lambda size: (places / pieces(size), size[1]))
    height, width = choose("tile", [default, *(size for size in sizes if size != default)])
    rows, columns = -(-out_h // height), -(-out_w // width)
    count = pieces([height, width])
    words = ", ".join(map(str, window))
    function = f"nncc::depthwise_conv2d<nncc::Window<{words}>, {channels}, {height}, {width}>"
    vector = width if width in (2, 4) and out_w % width == 0 else 1

    def piece(x, thread):
        number = x * _THREADS + thread
        return number // (rows * columns), number // columns % rows, number % columns

    def place(x, y, z, thread, number):
        plane, row, column = piece(x, thread)
        element = number * vector
        h, w = row * height + element // width, column * width + element % width
        conditions = [plane < batch * channels] if count % _THREADS else []
        conditions += [h < out_h] if out_h % height else []
        conditions += [w < out_w] if out_w % width else []
        n, o = (plane // channels, plane % channels) if batch > 1 else (0, plane)
        return [n, o, h, w], tirx.all(*conditions) if conditions else None

    registers = device_loops.Registers(height * width, vector, height * width, place)
    grid = device_loops.Grid(-(-count // _THREADS), 1, 1, _THREADS)

    def call(x, y, z, thread):
        plane, row, column = piece(x, thread)
        # Threads beyond the last piece read what the last channel reads, and store nothing.
        inside = tirx.min(plane, batch * channels - 1) if count % _THREADS else plane
        return function, data, weight, inside, row, column

    return device_loops.on_grid(sch, block, call, grid, registers), f"tile {height}x{width}"
