"""Depthwise convolution on channel-blocked tensors: one filter per channel, lanes are channels.

    y[n, c, h, w, l] = sum_{kh, kw} x[n, c, h*sh + kh*dh - pt, w*sw + kw*dw - pl, l] * W[c, kh, kw, l]

x is [N, C/l, H, W, l], W is [C/l, KH, KW, l]. The work is bound by loads: a tile of columns shares each weight vector.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te

NAME = "depthwise_conv2d"


def pack(kernel, lanes):
    """[C, 1, KH, KW] -> [ceil(C/l), KH, KW, l], zeros where channels are missing."""
    channels, _, height, width = kernel.shape
    blocks = -(-channels // lanes)
    padded = np.pad(kernel, ((0, blocks * lanes - channels), (0, 0), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(blocks, lanes, height, width).transpose(0, 2, 3, 1))


def compute(data, weight, *, strides, padding, dilation):
    """Define the convolution; `padding` is (top, left, bottom, right)."""
    batch, blocks, _, _, lanes = (int(d) for d in data.shape)
    _, kernel_h, kernel_w, _ = (int(d) for d in weight.shape)
    data, (out_h, out_w) = scheduling.padded(data, (kernel_h, kernel_w), strides, padding, dilation)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    return te.compute(
        (batch, blocks, out_h, out_w, lanes),
        lambda n, c, h, w, i: te.sum(
            data[n, c, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], i] * weight[c, kh, kw, i],
            axis=[kh, kw],
        ),
        name="depthwise_conv2d",
        attrs=scheduling.anchor(NAME),
    )


def schedule(sch, block, hardware, choose):
    """Tile the columns, unroll the filter, vectorize the channel lanes, spread (batch, blocks, rows) over threads.

    Padding is copied for a few rows at a time, which then lie in the first-level cache.
    """
    epilogue = scheduling.epilogue(sch, block)
    n, c, h, w, _ = sch.get_loops(epilogue)
    extents = scheduling.extents(sch, epilogue)
    even = scheduling.even_tile(extents[3], 8 if extents[4] * 32 <= hardware.vector_bits else 4)
    columns = choose("columns", dict.fromkeys([even, *(size for size in range(1, 17) if size <= extents[3])]))
    strips = [size for size in range(1, extents[2] + 1) if extents[2] % size == 0]
    strip = max(size for size in strips if size <= 8)
    ho, _ = sch.split(h, [None, choose("strip", dict.fromkeys([strip, *strips]))])
    wo, _ = sch.split(w, [None, columns])
    if extents[3] % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    sch.compute_at(block, wo, preserve_unit_loops=True)
    placed = [block, epilogue]
    for pad in sch.get_producers(block):
        if sch.get_producers(pad) == [] and scheduling.is_padding(sch, pad):
            sch.compute_at(pad, ho, preserve_unit_loops=True)
            sch.vectorize(sch.get_loops(pad)[-1])
            placed.append(pad)
    scheduling.parallel(sch, [n, c, ho], scheduling.flops(sch, block), hardware, choose)
    scheduling.in_vectors(sch, epilogue, 1)
    tn, tc, th, tw, lanes, kh, kw = sch.get_loops(block)[-7:]
    sch.reorder(tn, tc, th, kh, kw, tw, lanes)
    small = scheduling.extent(sch, kh) * scheduling.extent(sch, kw) <= 25
    unrolled = choose("unroll", ["window", "row", "none"] if small else ["none", "row"])
    if unrolled == "window":
        sch.unroll(kh)
    if unrolled != "none":
        sch.unroll(kw)
    sch.unroll(tw)
    sch.vectorize(lanes)
    scheduling.decompose_reduction(sch, block, kh)
    return placed, f"tile 1x{columns}"
