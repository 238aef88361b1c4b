"""Direct convolution on channel-blocked tensors that skips blocks of weights that are zero.

    y[n, o, h, w, oi] = sum_e sum_t x[n, i_e, h*sh + kh_e*dh, w*sw + kw_e*dw, 4 v_e + t] W[o, e, t, oi]

A block is `co` output channels by four input channels at one place of the window; each output block has a list of the
blocks that are not zero, all lists as long as the longest. A place is one int32: i, kh, kw and v (four input channels
of a block) in bit fields. x is [N, C/ci, H, W, ci], W is [O/co, E, 4, co], of integers [O/co, E, 4/size, co * size] in
words (`nncc.dots`), places are [O/co, E].

No two output blocks share what they read, so that a register tile is one vector of columns.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "sparse_conv2d"
WORD = 4
"""Input channels of a block."""
_BITS = 4
"""Of kw, of kh and of v."""


def blocks(kernel, out_lanes):
    """[O, I, KH, KW] -> whether each block is not zero: [ceil(O/co), ceil(I/4), KH, KW]."""
    out_channels, in_channels, height, width = kernel.shape
    missing = (0, -out_channels % out_lanes), (0, -in_channels % WORD), (0, 0), (0, 0)
    padded = np.pad(kernel, missing)
    split = padded.reshape(-1, out_lanes, padded.shape[1] // WORD, WORD, height, width)
    return (split != 0).any(axis=(1, 3))


def density(kernel, out_lanes):
    """The length of the longest list over the number of blocks; 1 where the window or the channels are too large."""
    if max(kernel.shape[2:]) > 1 << _BITS or kernel.shape[1] > 1 << 18:
        return 1.0
    counts = blocks(kernel, out_lanes).reshape(-(-kernel.shape[0] // out_lanes), -1)
    return float(counts.sum(axis=1).max() / counts.shape[1])


def pack(kernel, in_lanes, out_lanes, dot=None):
    """[O, I, KH, KW] -> (W, places); lists that are shorter end in zeros."""
    out_channels, in_channels, height, width = kernel.shape
    found = blocks(kernel, out_lanes)
    missing = (0, -out_channels % out_lanes), (0, -in_channels % WORD), (0, 0), (0, 0)
    padded = np.pad(kernel, missing).reshape(len(found), out_lanes, -1, WORD, height, width)
    length = max(1, int(found.reshape(len(found), -1).sum(axis=1).max()))
    weights = np.zeros((len(found), length, WORD, out_lanes), kernel.dtype)
    places = np.zeros((len(found), length), np.int32)
    words = in_lanes // WORD
    for o, each in enumerate(found):
        for e, (c, kh, kw) in enumerate(np.argwhere(each)):
            weights[o, e] = padded[o, :, c, :, kh, kw].T
            places[o, e] = ((c // words << _BITS | kh) << _BITS | kw) << _BITS | c % words
    return weights if dot is None else dot.words(weights, 2), places


def compute(data, weight, places, *, kernel, strides, padding, dilation, task="", dot=None, zero=0):
    """Define the convolution of a window of size `kernel`; `padding` is (top, left, bottom, right).

    `dot` says how integers are multiplied, `zero` is what lies around them.
    """
    batch, _, _, _, _ = (int(d) for d in data.shape)
    out_blocks, length, *_, out_lanes = (int(d) for d in weight.shape)
    if dot is not None:
        data, out_lanes = scheduling.widened(data, dot), out_lanes // dot.size
    data, (out_h, out_w) = scheduling.padded(data, kernel, strides, padding, dilation, zero)
    e = te.reduce_axis((0, length), name="e")
    t = te.reduce_axis((0, WORD if dot is None else WORD // dot.size), name="t")

    def field(place, number):
        shifted = tirx.shift_right(place, tirx.const(number * _BITS, "int32")) if number else place
        return tirx.bitwise_and(shifted, tirx.const((1 << _BITS) - 1, "int32")) if number < 3 else shifted

    def element(n, o, h, w, oi):
        place = places[o, e]
        v, kw, kh, i = (field(place, number) for number in range(4))
        row, column = (
            (at * s + k * d if size > 1 else at * s)
            for at, s, k, d, size in zip((h, w), strides, (kh, kw), dilation, kernel, strict=True)
        )
        if dot is None:
            return te.sum(data[n, i, row, column, v * WORD + t] * weight[o, e, t, oi], axis=[e, t])
        first = v * WORD + t * dot.size
        values, weights = (lambda at: data[n, i, row, column, first + at]), (lambda at: weight[o, e, t, at])
        return te.sum(dot.product(values, weights, oi, out_lanes), axis=[e, t])

    return te.compute(
        (batch, out_blocks, out_h, out_w, out_lanes), element, name="sparse_conv2d", attrs=scheduling.anchor(NAME, task)
    )


def schedule(sch, block, hardware, choose):
    """Tile the columns, walk the list, vectorize the channel lanes, spread (batch, blocks, rows) over the threads."""
    epilogue = scheduling.epilogue(sch, block)
    width, lanes = scheduling.extents(sch, epilogue)[3:]
    tiles = scheduling.register_tiles(width, 1, lanes, hardware, dot=scheduling.dot_in(sch, block, hardware))
    columns = choose("columns", dict.fromkeys(rows for rows, _ in tiles))
    n, o, h, w, _ = sch.get_loops(epilogue)
    wo, _ = sch.split(w, [None, columns])
    if width % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    placed = [block, epilogue, *scheduling.finish_in_registers(sch, block, epilogue, wo, unrolled=1)]
    sch.compute_at(block, wo, preserve_unit_loops=True)
    scheduling.parallel(sch, [n, o, h], scheduling.flops(sch, block), hardware, choose)
    tn, to, th, tw, lane, e, t = sch.get_loops(block)[-7:]
    sch.reorder(tn, to, th, e, t, tw, lane)
    steps = choose("unroll", [size for size in (2, 1, 4) if scheduling.extent(sch, e) % size == 0])
    first = e
    if steps > 1:
        first, inner = sch.split(e, [None, steps])
        sch.unroll(inner)
    for loop in (t, tw):
        sch.unroll(loop)
    sch.vectorize(lane)
    scheduling.decompose_reduction(sch, block, first)
    return placed, f"tile 1x{columns}"
