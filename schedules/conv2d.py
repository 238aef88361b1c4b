"""Direct convolution on channel-blocked tensors, register-tiled.

    y[n, o, h, w, oi] = sum_{i, kh, kw, ii} x[n, i, h*sh + kh*dh - pt, w*sw + kw*dw - pl, ii] * W[o, i, kh, kw, ii, oi]

x is [N, C/ci, H, W, ci], y is [N, O/co, OH, OW, co]; channel counts that do not divide are padded with zero weights.
One register tile is `vectors` x `columns` accumulators of `co` lanes: each step of the reduction takes `columns`
activations and `vectors` weight vectors, which come in one stream: W is [O/(co*vectors), C/ci, KH, KW, ci, vectors,
co].
"""

from __future__ import annotations

from math import prod

import numpy as np

from nncc import scheduling
from nncc.compat import te

NAME = "conv2d"


def tile(kernel_shape, strides, columns, in_lanes, out_lanes, hardware):
    """Columns and vectors of the register tile, of which the `columns` of a row of y are to be covered."""
    out_blocks, window = -(-kernel_shape[0] // out_lanes), kernel_shape[3]
    # LLVM unrolls a window's columns and keeps what they share: with a stride, every other activation until the end.
    shared = window > 1 and (in_lanes == 1 or (hardware.lane_operand and strides[1] > 1))
    held = (2 if hardware.lane_operand and in_lanes > 1 else 1) if shared else 0
    return scheduling.register_tile(columns, out_blocks, out_lanes, hardware, streamed=True, held=held)


def pack(kernel, in_lanes, out_lanes, vectors):
    """[O, I, KH, KW] -> [O/(co*vectors), ceil(I/ci), KH, KW, ci, vectors, co], zeros where channels are missing."""
    out_channels, in_channels, height, width = kernel.shape
    out_blocks, in_blocks = -(-out_channels // out_lanes), -(-in_channels // in_lanes)
    missing = (0, out_blocks * out_lanes - out_channels), (0, in_blocks * in_lanes - in_channels), (0, 0), (0, 0)
    panels = out_blocks // vectors, vectors, out_lanes, in_blocks, in_lanes, height, width
    return np.ascontiguousarray(np.pad(kernel, missing).reshape(panels).transpose(0, 3, 5, 6, 4, 1, 2))


def compute(data, weight, *, strides, padding, dilation, columns):
    """Define the convolution; `padding` is (top, left, bottom, right), `columns` those of the register tile."""
    batch, in_blocks, _, _, in_lanes = (int(d) for d in data.shape)
    panels, _, kernel_h, kernel_w, _, vectors, out_lanes = (int(d) for d in weight.shape)
    data, (out_h, out_w) = scheduling.padded(data, (kernel_h, kernel_w), strides, padding, dilation)
    i = te.reduce_axis((0, in_blocks), name="i")
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    ii = te.reduce_axis((0, in_lanes), name="ii")
    return te.compute(
        (batch, panels * vectors, out_h, out_w, out_lanes),
        lambda n, o, h, w, oi: te.sum(
            data[n, i, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], ii]
            * weight[o // vectors, i, kh, kw, ii, o % vectors, oi],
            axis=[i, kh, kw, ii],
        ),
        name="conv2d",
        attrs={**scheduling.anchor(NAME), "columns": columns},
    )


def schedule(sch, block, hardware):
    """Tile for registers, vectorize the channel lanes, spread (batch, channel blocks, rows) over the threads."""
    epilogue = scheduling.epilogue(sch, block)
    n, o, h, w, oi = sch.get_loops(epilogue)
    extents = scheduling.extents(sch, epilogue)
    vectors = scheduling.operand_shape(sch, block, 1)[-2]
    columns = int(sch.get(block).annotations["columns"])
    oo, ob = sch.split(o, [None, vectors])
    wo, wi = sch.split(w, [None, columns])
    sch.reorder(n, oo, h, wo, ob, wi, oi)
    placed = [block, epilogue, *scheduling.finish_in_registers(sch, block, epilogue, wo, unrolled=2)]
    sch.compute_at(block, wo, preserve_unit_loops=True)
    outer = [n, oo, h]
    pieces = prod(scheduling.extent(sch, loop) for loop in outer)
    parts = -(-8 * hardware.cores // pieces)
    if hardware.cores > 1 and 1 < parts <= scheduling.extent(sch, wo) // 4:
        # All rows in one and few vectors: the columns feed the threads too. With fewer, the last part would be short.
        part, wo = sch.split(wo, [parts, None])
        outer.append(part)
    if extents[3] % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    scheduling.parallel(sch, outer, scheduling.flops(sch, block), hardware)
    loops = sch.get_loops(block)
    tn, to, th, tw, lanes, i, kh, kw, ii = loops[-9:]
    # Columns outside of vectors: the few weight vectors stay live, not the many broadcast activations.
    sch.reorder(tn, th, i, kh, kw, ii, tw, to, lanes)
    by_rows = hardware.lane_operand and scheduling.extent(sch, ii) == 1
    placed += scheduling.operand_in_registers(sch, block, 0, kh if by_rows else kw, hardware)
    if by_rows:  # a few channels of an image: a row of activations serves the whole row of the window
        sch.unroll(kw)
    if scheduling.extent(sch, ii) <= 16:
        sch.unroll(ii)
    for loop in (to, tw):
        sch.unroll(loop)
    sch.vectorize(lanes)
    scheduling.decompose_reduction(sch, block, i)
    return placed, f"tile {vectors}x{columns}"
