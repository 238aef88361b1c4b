"""Direct convolution on channel-blocked tensors, register-tiled.

    y[n, o, h, w, oi] = sum_{i, kh, kw, ii} x[n, i, h*sh + kh*dh - pt, w*sw + kw*dw - pl, ii] * W[o, i, kh, kw, ii, oi]

x is [N, C/ci, H, W, ci], W is [O/co, C/ci, KH, KW, ci, co], y is [N, O/co, OH, OW, co]; channel counts that do not
divide are padded with zero weights. One register tile is `channel_blocks` x `columns` accumulators of `co` lanes: each
step of the reduction loads `channel_blocks` weight vectors and `columns` broadcast activations.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, topi

NAME = "conv2d"


def pack(kernel, in_lanes, out_lanes):
    """[O, I, KH, KW] -> [ceil(O/co), ceil(I/ci), KH, KW, ci, co], zeros where channels are missing."""
    out_channels, in_channels, height, width = kernel.shape
    out_blocks, in_blocks = -(-out_channels // out_lanes), -(-in_channels // in_lanes)
    missing = (0, out_blocks * out_lanes - out_channels), (0, in_blocks * in_lanes - in_channels), (0, 0), (0, 0)
    split = np.pad(kernel, missing).reshape(out_blocks, out_lanes, in_blocks, in_lanes, height, width)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 3, 1))


def compute(data, weight, *, strides, padding, dilation):
    """Define the convolution; `padding` is (top, left, bottom, right)."""
    batch, in_blocks, height, width, in_lanes = (int(d) for d in data.shape)
    out_blocks, _, kernel_h, kernel_w, _, out_lanes = (int(d) for d in weight.shape)
    top, left, bottom, right = padding
    if any(padding):
        data = topi.nn.pad(data, [0, 0, top, left, 0], [0, 0, bottom, right, 0], name="pad")
    out_h = (height + top + bottom - (kernel_h - 1) * dilation[0] - 1) // strides[0] + 1
    out_w = (width + left + right - (kernel_w - 1) * dilation[1] - 1) // strides[1] + 1
    i = te.reduce_axis((0, in_blocks), name="i")
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    ii = te.reduce_axis((0, in_lanes), name="ii")
    return te.compute(
        (batch, out_blocks, out_h, out_w, out_lanes),
        lambda n, o, h, w, oi: te.sum(
            data[n, i, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], ii]
            * weight[o, i, kh, kw, ii, oi],
            axis=[i, kh, kw, ii],
        ),
        name="conv2d",
        attrs=scheduling.anchor(NAME),
    )


def schedule(sch, block, hardware):
    """Tile for registers, vectorize the channel lanes, spread (batch, channel blocks, rows) over the threads."""
    epilogue = scheduling.epilogue(sch, block)
    n, o, h, w, oi = sch.get_loops(epilogue)
    extents = scheduling.extents(sch, epilogue)
    columns, channel_blocks = scheduling.register_tile(extents[3], extents[1], extents[4], hardware)
    oo, ob = sch.split(o, [None, channel_blocks])
    wo, wi = sch.split(w, [None, columns])
    sch.reorder(n, oo, h, wo, ob, wi, oi)
    if extents[3] % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    placed = [block, epilogue, *scheduling.finish_in_registers(sch, block, epilogue, wo, unrolled=2)]
    sch.compute_at(block, wo, preserve_unit_loops=True)
    scheduling.parallel(sch, [n, oo, h], scheduling.flops(sch, block), hardware)
    loops = sch.get_loops(block)
    tn, to, th, tw, lanes, i, kh, kw, ii = loops[-9:]
    # Columns outside of channel blocks: the few weight vectors stay live, not the many broadcast activations.
    sch.reorder(tn, th, i, kh, kw, ii, tw, to, lanes)
    if scheduling.extent(sch, ii) <= 16:
        sch.unroll(ii)
    for loop in (to, tw):
        sch.unroll(loop)
    sch.vectorize(lanes)
    scheduling.decompose_reduction(sch, block, i)
    return placed, f"tile {channel_blocks}x{columns}"
