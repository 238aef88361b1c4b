"""Grouped convolution on channel-blocked tensors: output o of group g = o div Og reads its Ig inputs only.

    y[o, h, w] = sum_{r < Ig, kh, kw} x[g*Ig + r, h*sh + kh*dh - pt, w*sw + kw*dw - pl] * K[o, r, kh, kw]

x is [N, C/ci, H, W, ci], y is [N, O/co, OH, OW, co]. The sum over r takes one of two forms:

* "window": an output block reads the B input blocks from first(o) on that hold its groups' channels,

      y[n, o, h, w, oi] = sum_{i < B, kh, kw, ii} x[n, first(o) + i, .., ii] * W[o, i, kh, kw, ii, oi]

  where W is zero between channels of different groups: B*ci steps for Ig that count. Nothing is wasted where both Ig
  and Og are whole blocks.
* "lanes": groups that share a block stay in their lanes. With s = co/Og * Ig, the input channels of an output block,

      y[n, o, h, w, oi] = sum_{r < Ig, kh, kw} x[n, o*s div ci, .., o*s mod ci + oi div Og*Ig + r] * W[o, kh, kw, r, oi]

  Ig steps, each of which shuffles a vector of activations where "window" broadcasts one; s must divide ci.

Integers take the form "window", by words (`nncc.kernels.dots`): W is [.., KH, KW, ci/size, co*size], the result int32.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te

NAME = "grouped_conv2d"
GROUP_BLOCKS = "nncc.group_blocks"
"""The annotation that says how many output blocks after each other, of one group, read the same inputs."""


def by_lanes(in_group, out_group, in_lanes, out_lanes):
    """Whether the form "lanes" is possible and faster: shuffles make one of its steps as long as one and a half."""
    if out_lanes % out_group or in_lanes % (out_lanes // out_group * in_group):
        return False
    return 3 * in_group < 2 * in_lanes


def _window(in_group, out_group, in_lanes, out_lanes, in_blocks, out_blocks):
    """The first input block of each output block, and B."""
    first, last = [], []
    for o in range(out_blocks):
        groups = o * out_lanes // out_group, ((o + 1) * out_lanes - 1) // out_group
        first.append(groups[0] * in_group // in_lanes)
        last.append(min(((groups[1] + 1) * in_group - 1) // in_lanes, in_blocks - 1))
    count = max(b - a + 1 for a, b in zip(first, last, strict=True))
    return [min(a, in_blocks - count) for a in first], count


def steps(in_group, out_group, groups, in_lanes, out_lanes):
    """B*ci, the steps of "window"."""
    in_blocks, out_blocks = -(-in_group * groups // in_lanes), -(-out_group * groups // out_lanes)
    return _window(in_group, out_group, in_lanes, out_lanes, in_blocks, out_blocks)[1] * in_lanes


def pack(kernel, groups, in_lanes, out_lanes, dot=None):
    """[O, Ig, KH, KW] -> W of "window", six axes, or of "lanes", five axes; zeros where channels are missing.

    In words for a `dot`, always of "window".
    """
    out_channels, in_group, height, width = kernel.shape
    out_group, out_blocks = out_channels // groups, -(-out_channels // out_lanes)
    if dot is None and by_lanes(in_group, out_group, in_lanes, out_lanes):
        padded = np.pad(kernel, ((0, out_blocks * out_lanes - out_channels), (0, 0), (0, 0), (0, 0)))
        split = padded.reshape(out_blocks, out_lanes, in_group, height, width)
        return np.ascontiguousarray(split.transpose(0, 3, 4, 2, 1))
    in_blocks = -(-in_group * groups // in_lanes)
    first, count = _window(in_group, out_group, in_lanes, out_lanes, in_blocks, out_blocks)
    packed = np.zeros((out_blocks, count * in_lanes, height, width, out_lanes), kernel.dtype)
    for o in range(out_channels):
        block, lane = divmod(o, out_lanes)
        at = o // out_group * in_group - first[block] * in_lanes
        packed[block, at : at + in_group, :, :, lane] = kernel[o]
    split = packed.reshape(out_blocks, count, in_lanes, height, width, out_lanes)
    whole = np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2, 5))
    return whole if dot is None else dot.words(whole, 4)


def compute(data, weight, *, in_group, out_group, strides, padding, dilation, dot=None, zero=0):
    """Define the convolution, `in_group` to `out_group` channels a group; `padding` is (top, left, bottom, right).

    `dot` says how integers are multiplied, `zero` is what lies around them.
    """
    batch, in_blocks, _, _, in_lanes = (int(d) for d in data.shape)
    out_blocks, out_lanes = int(weight.shape[0]), int(weight.shape[-1])
    lanes = len(weight.shape) == 5
    kernel_h, kernel_w = (int(d) for d in weight.shape[1 if lanes else 2 :][:2])
    if dot is not None:
        data, out_lanes = scheduling.widened(data, dot), out_lanes // dot.size
    data, (out_h, out_w) = scheduling.padded(data, (kernel_h, kernel_w), strides, padding, dilation, zero)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    shape = batch, out_blocks, out_h, out_w, out_lanes
    attrs = scheduling.anchor(NAME)

    def at(h, w):
        return h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1]

    if lanes:
        r = te.reduce_axis((0, in_group), name="r")
        span = out_lanes // out_group * in_group
        parts = in_lanes // span

        def gathered(n, o, h, w, oi):
            lane = o % parts * span + oi // out_group * in_group + r
            return te.sum(data[(n, o // parts, *at(h, w), lane)] * weight[o, kh, kw, r, oi], axis=[kh, kw, r])

        return te.compute(shape, gathered, name="grouped_conv2d", attrs=attrs)
    i = te.reduce_axis((0, int(weight.shape[1])), name="i")
    ii = te.reduce_axis((0, int(weight.shape[4])), name="ii")

    def windowed(n, o, h, w, oi):
        first = te.min(o * out_lanes // out_group * in_group // in_lanes, in_blocks - int(weight.shape[1]))
        pixel = n, first + i, *at(h, w)
        if dot is None:
            product = data[(*pixel, ii)] * weight[o, i, kh, kw, ii, oi]
        else:
            values, weights = (
                (lambda t: data[(*pixel, ii * dot.size + t)]),
                (lambda place: weight[o, i, kh, kw, ii, place]),
            )
            product = dot.product(values, weights, oi, out_lanes)
        return te.sum(product, axis=[i, kh, kw, ii])

    attrs[GROUP_BLOCKS] = out_group // out_lanes if out_group % out_lanes == 0 else 1
    return te.compute(shape, windowed, name="grouped_conv2d", attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Tile for registers, vectorize the channel lanes, spread (batch, channel blocks, rows) over the threads."""
    lanes = len(scheduling.extents(sch, block)) == 8
    epilogue = scheduling.epilogue(sch, block)
    n, o, h, w, oi = sch.get_loops(epilogue)
    extents = scheduling.extents(sch, epilogue)
    if lanes:
        # The shuffled activations, which a filter's columns share, take as many registers again; so do the plain ones.
        columns, channel_blocks = scheduling.even_tile(extents[3], max(2, hardware.vector_registers // 4)), 1
    else:
        whole = int(sch.get(block).annotations[GROUP_BLOCKS])
        possible = scheduling.register_tiles(extents[3], whole, extents[4], hardware)
        columns, channel_blocks = choose("tile", possible)
    oo, ob = sch.split(o, [None, channel_blocks])
    wo, wi = sch.split(w, [None, columns])
    sch.reorder(n, oo, h, wo, ob, wi, oi)
    if extents[3] % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    placed = [block, epilogue, *scheduling.finish_in_registers(sch, block, epilogue, wo, unrolled=2)]
    sch.compute_at(block, wo, preserve_unit_loops=True)
    scheduling.parallel(sch, [n, oo, h], scheduling.flops(sch, block), hardware, choose)
    if lanes:
        tn, to, th, tw, lane, first, kw, r = sch.get_loops(block)[-8:]
        # A shuffle's pattern is its instruction's: r is unrolled.
        sch.reorder(tn, th, first, r, kw, tw, to, lane)
        unrolled = [r, kw]
    else:
        tn, to, th, tw, lane, first, kh, kw, ii = sch.get_loops(block)[-9:]
        sch.reorder(tn, th, first, kh, kw, ii, tw, to, lane)
        unrolled = [ii] if scheduling.extent(sch, ii) <= 16 else []
    for loop in (*unrolled, to, tw):
        sch.unroll(loop)
    sch.vectorize(lane)
    scheduling.decompose_reduction(sch, block, first)
    return placed, f"{'lanes' if lanes else 'window'} tile {channel_blocks}x{columns}"
