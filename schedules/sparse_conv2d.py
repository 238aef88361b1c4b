"""Direct convolution on channel-blocked tensors that skips blocks of weights that are zero.

    y[n, o, h, w, oi] = sum_e sum_t x[n, i_e, h*sh + kh_e*dh, w*sw + kw_e*dw, 4 v_e + t] W[o div g, e, t, o mod g, oi]

A block is `co * g` output channels by four input channels at one place of the window: g vectors of output channels
share a list of the blocks that are not zero, all lists as long as the longest. A place is one int32: i, kh, kw and v
(four input channels of a block) in bit fields. x is [N, C/ci, H, W, ci], W is [O/(co g), E, 4, g, co], of integers
[O/(co g), E, 4/size, g, co * size] in words (`nncc.kernels.dots`), places are [O/(co g), E].

Two lists share nothing that they read: beside its weights, each multiply-add of a list with one vector takes an
activation of its own from memory.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels import skipping
from nncc.kernels.skipping import WORD

NAME = "sparse_conv2d"
_BITS = 4
"""Of kw, of kh and of v."""


def lists(kernel, in_lanes, out_lanes, width, hardware, dot=None):
    """How zeros are best skipped (`skipping.Lists`), for rows of `width` outputs; None where that is no way."""
    if in_lanes % WORD or max(kernel.shape[2:]) > 1 << _BITS or kernel.shape[1] > 1 << 18:
        return None
    return skipping.best_lists(kernel, out_lanes, width, hardware, dot)


def pack(kernel, in_lanes, out_lanes, vectors=1, dot=None):
    """[O, I, KH, KW] -> (W, places); lists that are shorter end in zeros."""
    weights, places = skipping.pack(kernel, out_lanes, vectors, dot)
    words = in_lanes // WORD
    c, kh, kw = np.moveaxis(places, -1, 0)
    return weights, ((c // words << _BITS | kh) << _BITS | kw) << _BITS | c % words


def compute(data, weight, places, *, kernel, strides, padding, dilation, task="", dot=None, zero=0):
    """Define the convolution of a window of size `kernel`; `padding` is (top, left, bottom, right).

    `dot` says how integers are multiplied, `zero` is what lies around them.
    """
    batch, _, _, _, _ = (int(d) for d in data.shape)
    count, length, _, vectors, out_lanes = (int(d) for d in weight.shape)
    if dot is not None:
        data, out_lanes = scheduling.widened(data, dot), out_lanes // dot.size
    data, (out_h, out_w) = scheduling.padded(data, kernel, strides, padding, dilation, zero)
    e = te.reduce_axis((0, length), name="e")
    t = te.reduce_axis((0, WORD if dot is None else WORD // dot.size), name="t")

    def field(place, number):
        shifted = tirx.shift_right(place, tirx.const(number * _BITS, "int32")) if number else place
        return tirx.bitwise_and(shifted, tirx.const((1 << _BITS) - 1, "int32")) if number < 3 else shifted

    def element(n, o, h, w, oi):
        place = places[o // vectors, e]
        v, kw, kh, i = (field(place, number) for number in range(4))
        row, column = (
            (at * s + k * d if size > 1 else at * s)
            for at, s, k, d, size in zip((h, w), strides, (kh, kw), dilation, kernel, strict=True)
        )
        at = o // vectors, e, t, o % vectors
        if dot is None:
            return te.sum(data[n, i, row, column, v * WORD + t] * weight[(*at, oi)], axis=[e, t])
        first = v * WORD + t * dot.size
        values, weights = (lambda k: data[n, i, row, column, first + k]), (lambda place: weight[(*at, place)])
        return te.sum(dot.product(values, weights, oi, out_lanes), axis=[e, t])

    return te.compute(
        (batch, count * vectors, out_h, out_w, out_lanes),
        element,
        name="sparse_conv2d",
        attrs={**scheduling.anchor(NAME, task), "vectors": vectors},
    )


def schedule(sch, block, hardware, choose):
    """Tile the columns, walk some lists at once, vectorize the channel lanes, spread the tiles over the threads."""
    vectors = int(sch.get(block).annotations["vectors"])
    epilogue = scheduling.epilogue(sch, block)
    _, out_blocks, _, width, lanes = scheduling.extents(sch, epilogue)
    dot = scheduling.dot_in(sch, block, hardware)
    tiles = skipping.list_tiles(width, out_blocks // vectors, vectors, lanes, hardware, dot=dot)
    columns, lists = choose("tile", tiles)
    n, o, h, w, oi = sch.get_loops(epilogue)
    oo, ol, ov = sch.split(o, [None, lists, vectors])
    wo, wi = sch.split(w, [None, columns])
    sch.reorder(n, oo, h, wo, ol, ov, wi, oi)
    whole = width % columns == 0
    if not whole:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    outer, last = [n, oo, h], wo
    if choose("order", _orders(sch, block, whole or scheduling.extent(sch, h) > 1, hardware)) == "rows outside":
        sch.reorder(n, h, wo, oo)
        outer, last = [n, h, *([wo] if whole else [])], oo
    placed = [block, epilogue, *scheduling.finish_in_registers(sch, block, epilogue, last, unrolled=3)]
    sch.compute_at(block, last, preserve_unit_loops=True)
    scheduling.parallel(sch, outer, scheduling.flops(sch, block), hardware, choose)
    tn, to, th, tw, lane, e, t = sch.get_loops(block)[-7:]
    tl, tv = sch.split(to, [None, vectors])
    sch.reorder(tn, th, e, tl, t, tw, tv, lane)
    for loop in (tl, t, tw, tv):
        sch.unroll(loop)
    sch.vectorize(lane)
    scheduling.decompose_reduction(sch, block, e)
    return placed, f"tile {lists}x{vectors}x{columns}"


def _orders(sch, block, possible, hardware):
    """With rows outside, the activations of a tile serve all lists while they are in the cache. That is better where
    they are more than the second-level cache has and the weights are not."""
    read = [scheduling.operand(sch, block, index) for index in range(2)]
    data, weights = (prod(int(d) for d in each.shape) * each.dtype.bits // 8 for each in read)
    half = 512 * hardware.l2_kib
    orders = ["weights outside", *(["rows outside"] if possible else [])]
    return orders[::-1] if data > half and weights <= half else orders
