"""Softmax over the last axis, row by row, while a row is in the first-level cache.

    m = max_k x[k]        e[k] = exp(x[k] - m)        y[k] = e[k] * (1 / sum_k e[k])

One division a row: a product by the reciprocal errs by half an ulp more.
"""

from __future__ import annotations

from math import prod

from nncc import rows, scheduling
from nncc.compat import te, tirx

NAME = "softmax"


def compute(x, *, lanes):
    """Define the softmax of x[.., n] for vectors of `lanes` floats."""
    *batch, length = (int(d) for d in x.shape)
    count, part = prod(batch), scheduling.part(NAME)
    tiles = rows.row_tiles(length, lanes)
    element = rows.row_of(x)
    highest = rows.fold_max((count,), tiles, lambda r, step, i: element(r, tiles.start(step) + i), part)
    # min(.., 0) says what is so: the cheaper exp will do.
    power = te.compute(
        (count, tiles.steps, tiles.width),
        lambda r, step, i: tirx.exp(tirx.min(element(r, tiles.start(step) + i) - highest[r], tirx.const(0.0, x.dtype))),
        name="power",
        attrs=part,
    )
    total = rows.fold_sum((count,), tiles, lambda r, step, i: power[r, step, i], "sum", part)
    scale = te.compute((count,), lambda r: tirx.const(1.0, x.dtype) / total[r], name="scale", attrs=part)

    def result(*at):
        row, step = rows.row_at(batch, at[:-1]), at[-1] // tiles.width
        return power[row, step, at[-1] - tiles.start(step)] * scale[row]

    return te.compute((*batch, length), result, name="softmax", attrs=scheduling.anchor(NAME))


def schedule(sch, block, hardware, choose):
    """Rows over the threads; in a row, tiles of vectors."""
    *batch, length = scheduling.extents(sch, block)
    width = rows.row_tiles(length, max(4, hardware.vector_bits // 32)).width
    return rows.row_by_row(sch, block, width, 20 * prod(batch) * length, hardware, choose)
