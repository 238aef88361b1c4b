"""The place of the greatest or of the smallest element of each row, the first of several, in vectors.

    m = max_k x[k]        y = min { k : x[k] = m }

Where no element is m, which is so of numbers that are not, the place is that of the last element.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels import rows

NAME = "arg_max"


def compute(x, *, lanes, least):
    """Define the places in x[.., n], int64[..], for vectors of `lanes`; those of the smallest ones if `least`."""
    *batch, length = (int(d) for d in x.shape)
    count, part = prod(batch), scheduling.part(NAME)
    tiles = rows.row_tiles(length, lanes)
    element = rows.row_of(x)
    fold = rows.fold_least if least else rows.fold_greatest
    extreme = fold((count,), tiles, lambda r, step, i: element(r, tiles.start(step) + i), "extreme", part)

    def place(r, step, i):
        at = tiles.start(step) + i
        return tirx.Select(element(r, at) == extreme[r], at, length - 1)

    first = rows.fold_least((count,), tiles, place, "place", part)
    return te.compute(
        tuple(batch),
        lambda *at: first[rows.row_at(batch, at)].astype("int64"),
        name="arg_max",
        attrs=scheduling.anchor(NAME),
    )


def schedule(sch, block, hardware, choose):
    """Some rows at a time, which are spread over the threads."""
    *outer, last = sch.get_loops(block)
    extents = scheduling.extents(sch, block)
    made = rows.producers(sch, sch.get_producers(block))
    lanes = max(4, hardware.vector_bits // 32)
    together = choose("rows", [n for n in (4, 2, 1) if extents[-1] % n == 0])
    last, _ = sch.split(last, [None, together])
    row = sch.fuse(*outer, last) if outer else last
    reduced = []
    for each in made:
        sch.compute_at(each, row, preserve_unit_loops=True)
        if (loop := rows.in_tiles(sch, each, 1, 1)) is not None:
            reduced.append((each, loop))
    scheduling.parallel(sch, [row], 4 * lanes * prod(extents), hardware, choose)
    for each, loop in reduced:
        scheduling.decompose_reduction(sch, each, loop)
    return [block, *made], f"{together} rows"
