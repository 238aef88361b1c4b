"""Channels taken from blocked tensors and put after each other in another: concatenations and slices, in one pass.

    y[k] = x_s[start_s + k - offset_s]   for offset_s <= k < offset_s + count_s,   offset_s = count_0 + .. + count_(s-1)

where a channel k lies in lane k mod l of block k div l, of a tensor's own l. All starts, offsets and widths of blocks
are multiples of some `grain`: that many lanes move together, without a shuffle. Lanes behind the last channel get
whatever the last tensor has there.
"""

from __future__ import annotations

from itertools import accumulate
from math import gcd, prod

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "move_channels"
GRAIN = "nncc.grain"
"""The annotation that says how many lanes move together."""


def grain(widths, starts, counts, lanes):
    """How many lanes can move together; 1 where there is no way but one by one."""
    return gcd(lanes, *widths, *starts, *counts[:-1])


def compute(*data, starts, counts, lanes):
    """Take `counts` channels from `starts` on of each of `data`, into blocks of `lanes`."""
    batch, _, rows, columns, _ = (int(d) for d in data[0].shape)
    together = grain([int(x.shape[-1]) for x in data], starts, counts, lanes)
    offsets = [0, *accumulate(counts)]

    def element(n, c, h, w, i):
        k = c * lanes + i
        value = None
        for x, start, offset, end in reversed(list(zip(data, starts, offsets, offsets[1:], strict=False))):
            at, width = k + (start - offset), int(x.shape[-1])
            last = value is None
            here = x[n, te.min(at // width, x.shape[1] - 1) if last else at // width, h, w, at % width]
            value = here if last else tirx.if_then_else(k // together < end // together, here, value)
        return value

    shape = batch, -(-offsets[-1] // lanes), rows, columns, lanes
    return te.compute(shape, element, name="move_channels", attrs={**scheduling.anchor(NAME), GRAIN: together})


def schedule(sch, block, hardware, choose):
    """Row by row, one source after the other; what follows is computed on the way."""
    together = int(sch.get(block).annotations[GRAIN])
    epilogue = scheduling.epilogue(sch, block)
    sch.compute_inline(block)
    n, c, h, w, i = sch.get_loops(epilogue)
    piece, lane = sch.split(i, [None, together])
    sch.reorder(n, c, h, piece, w, lane)
    sch.vectorize(lane)
    scheduling.parallel(sch, [n, c, h], 4 * prod(scheduling.extents(sch, epilogue)), hardware, choose)
    return [epilogue], f"{together} lanes at once"
