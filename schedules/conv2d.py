"""Direct convolution on channel-blocked tensors, register-tiled; of float32, or integers (`nncc.kernels.dots`).

    y[n, o, h, w, oi] = sum_{i, kh, kw, ii} x[n, i, h*sh + kh*dh - pt, w*sw + kw*dw - pl, ii] * W[o, i, kh, kw, ii, oi]

x is [N, C/ci, H, W, ci], y is [N, O/co, OH, OW, co]; channel counts that do not divide are padded with zero weights.
W is [O/co, C/ci, KH, KW, ci, co]. One register tile is `vectors` x `columns` accumulators of `co` lanes: each step of
the reduction takes `columns` activations and `vectors` weight vectors, which the schedule lays out in one stream.

Of integers, a step takes a word of activations: W is [O/co, C/ci, KH, KW, ci/size, co*size], the result int32. An x of
one channel, [N, 1, H, W, 1], is taken in words along rows: W is [O/co, 1, KH, ceil(KW/size), 1, co*size]. So is one of
a few channels that lie side by side, which are one of W*C columns: see `along_rows`.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nncc import scheduling
from nncc.compat import te

NAME = "conv2d"


def pack(kernel, in_lanes, out_lanes, dot=None):
    """[O, I, KH, KW] -> [O/co, ceil(I/ci), KH, KW, ci, co], zeros where channels are missing; in words for a `dot`."""
    out_channels, in_channels, height, width = kernel.shape
    out_blocks, in_blocks = -(-out_channels // out_lanes), -(-in_channels // in_lanes)
    missing = (0, out_blocks * out_lanes - out_channels), (0, in_blocks * in_lanes - in_channels), (0, 0), (0, 0)
    blocks = out_blocks, out_lanes, in_blocks, in_lanes, height, width
    packed = np.ascontiguousarray(np.pad(kernel, missing).reshape(blocks).transpose(0, 2, 4, 5, 3, 1))
    return packed if dot is None else dot.words(packed, 4)


def along_rows(kernel, dot):
    """[O, C, KH, KW] -> [O, size, KH, words], for words along rows of which each column has C channels side by side:

        W'[o, t, kh, j] = W[o, f mod C, kh, f div C],   f = j * size + t,   0 behind the window's end

    The input is then to have as many more numbers, whatever they are, on the right.
    """
    out_channels, channels, height, width = kernel.shape
    words = -(-width * channels // dot.size)
    flat = kernel.transpose(0, 2, 3, 1).reshape(out_channels, height, width * channels)
    whole = np.pad(flat, ((0, 0), (0, 0), (0, words * dot.size - width * channels)))
    return np.ascontiguousarray(whole.reshape(out_channels, height, words, dot.size).transpose(0, 3, 1, 2))


def compute(data, weight, *, strides, padding, dilation, task="", dot=None, zero=0):
    """Define the convolution; `padding` is (top, left, bottom, right), `task` for `scheduling.anchor`.

    `dot` says how integers are multiplied, `zero` is what lies around them.
    """
    batch, in_blocks, _, _, in_lanes = (int(d) for d in data.shape)
    out_blocks, _, kernel_h, kernel_w, _, out_lanes = (int(d) for d in weight.shape)
    pixels = 1
    if dot is not None:
        data, out_lanes = scheduling.widened(data, dot), out_lanes // dot.size
        if in_lanes == 1:
            pixels = dot.size
        in_lanes = max(1, in_lanes // dot.size)
    data, (out_h, out_w) = scheduling.padded(data, (kernel_h, kernel_w * pixels), strides, padding, dilation, zero)
    i = te.reduce_axis((0, in_blocks), name="i")
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    ii = te.reduce_axis((0, in_lanes), name="ii")

    def product(n, o, h, w, oi):
        row, column = (n, i, h * strides[0] + kh * dilation[0]), w * strides[1] + kw * pixels * dilation[1]
        if dot is None:
            return data[(*row, column, ii)] * weight[o, i, kh, kw, ii, oi]

        def value(t):
            return data[(*row, column + t, 0) if pixels > 1 else (*row, column, ii * dot.size + t)]

        return dot.product(value, lambda at: weight[o, i, kh, kw, ii, at], oi, out_lanes)

    return te.compute(
        (batch, out_blocks, out_h, out_w, out_lanes),
        lambda *at: te.sum(product(*at), axis=[i, kh, kw, ii]),
        name="conv2d",
        attrs={**scheduling.anchor(NAME, task), "stride": strides[1]},
    )


def _tiles(sch, block, columns, hardware):
    """Columns and vectors of register tiles, of which the `columns` of a row of y are to be covered."""
    out_blocks, _, _, window, in_lanes, _ = scheduling.operand_shape(sch, block, 1)
    out_lanes = scheduling.extents(sch, block)[4]
    # LLVM unrolls a window's columns and keeps what they share: with a stride, every other activation until the end.
    strided = int(sch.get(block).annotations["stride"]) > 1
    shared = window > 1 and (in_lanes == 1 or (hardware.lane_operand and strided))
    held = (2 if hardware.lane_operand and in_lanes > 1 else 1) if shared else 0
    dot = scheduling.dot_in(sch, block, hardware)
    laid = scheduling.laid_out(sch)
    return scheduling.register_tiles(
        columns, out_blocks, out_lanes, hardware, streamed=True, held=held, dot=dot, laid=laid
    )


def schedule(sch, block, hardware, choose):
    """Tile for registers, vectorize the channel lanes, spread (batch, channel blocks, rows) over the threads."""
    epilogue = scheduling.epilogue(sch, block)
    n, o, h, w, oi = sch.get_loops(epilogue)
    width = scheduling.extents(sch, epilogue)[3]
    columns, vectors = choose("tile", _tiles(sch, block, width, hardware))
    scheduling.panels(sch, block, 1, 0, vectors)
    oo, ob = sch.split(o, [None, vectors])
    wo, wi = sch.split(w, [None, columns])
    sch.reorder(n, oo, h, wo, ob, wi, oi)
    placed = [block, epilogue, *scheduling.finish_in_registers(sch, block, epilogue, wo, unrolled=2)]
    sch.compute_at(block, wo, preserve_unit_loops=True)
    outer, wo = _outer_loops(sch, (n, oo, h, wo), hardware, choose)
    panel = next(at for at, loop in enumerate(outer) if loop.same_as(oo))
    uses = prod(scheduling.extent(sch, loop) for loop in (*outer[panel + 1 :], wo))
    if width % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    scheduling.parallel(sch, outer, scheduling.flops(sch, block), hardware, choose)
    loops = sch.get_loops(block)
    tn, to, th, tw, lanes, i, kh, kw, ii = loops[-9:]
    # Columns outside of vectors: the few weight vectors stay live, not the many broadcast activations.
    sch.reorder(tn, th, i, kh, kw, ii, tw, to, lanes)
    dot = scheduling.dot_in(sch, block, hardware)
    # Words along rows begin at any byte, and lanes of registers are whole words: each is loaded into all lanes.
    spread = dot is not None and scheduling.operand_shape(sch, block, 0)[4] < dot.size
    by_rows = hardware.lane_operand and scheduling.extent(sch, ii) == 1 and not spread
    if not spread:
        placed += scheduling.operand_in_registers(sch, block, 0, kh if by_rows else kw, hardware)
    if by_rows:  # a few channels of an image: a row of activations serves the whole row of the window
        sch.unroll(kw)
    scheduling.split_steps(sch, ii, choose("unroll", scheduling.unrollings(scheduling.extent(sch, ii))))
    for loop in (to, tw):
        sch.unroll(loop)
    sch.vectorize(lanes)
    scheduling.decompose_reduction(sch, block, i)
    scheduling.fetch_ahead(sch, block, 1, 0, [i, kh, kw, ii], uses, hardware, choose)
    return placed, f"tile {vectors}x{columns}"


def _outer_loops(sch, loops, hardware, choose):
    """Order the loops around the tiles, (n, oo, h, wo), some of them cut: those for threads, and the tiles of a row.

    With weights outside, a panel of them serves all activations before the next one comes; with rows outside, some
    activations, which stay in the cache, serve all panels.
    """
    n, oo, h, wo = loops
    height, tiles = scheduling.extent(sch, h), scheduling.extent(sch, wo)
    # All rows in one and few vectors: the columns feed the threads too. With fewer, the last part would be short.
    needed = -(-8 * hardware.cores // prod(scheduling.extent(sch, loop) for loop in (n, oo, h)))
    default = needed if hardware.cores > 1 and 1 < needed <= tiles // 4 else 1
    several = [size for size in (1, 2, 4, 8, 16, 32) if size == 1 or (height == 1 and size <= tiles // 2)]
    parts = choose("parts", dict.fromkeys([default, *several]))
    part, wo = sch.split(wo, [parts, None]) if parts > 1 else (None, wo)
    strips = [size for size in range(1, height // 2 + 1) if height % size == 0]
    orders = [
        "weights outside",
        *(["rows outside"] if (strips or parts > 1) and scheduling.extent(sch, oo) > 1 else []),
    ]
    if choose("order", orders) == "weights outside":
        return [n, oo, h, *([part] if parts > 1 else [])], wo
    if strips:
        ho, h = sch.split(h, [None, choose("strip", strips)])
        outer = [n, ho, *([part] if parts > 1 else []), oo, h]
    else:
        outer = [n, h, part, oo]
    sch.reorder(*outer)
    return outer, wo
