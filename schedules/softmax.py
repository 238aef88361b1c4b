"""Softmax over the last axis, or its logarithm, row by row, while a row is in the first-level cache.

    m = max_k x[k]        e[k] = exp(x[k] - m)        y[k] = e[k] * (1 / sum_k e[k])
    log y[k] = x[k] - m - log(sum_k e[k])

One division a row: a product by the reciprocal errs by half an ulp more.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels import rows

NAME = "softmax"


def compute(x, *, lanes, logarithm=False):
    """Define the softmax of x[.., n], or its `logarithm`, for vectors of `lanes` floats."""
    *batch, length = (int(d) for d in x.shape)
    count, part = prod(batch), scheduling.part(NAME)
    tiles = rows.row_tiles(length, lanes)
    element = rows.row_of(x)
    highest = rows.fold_max((count,), tiles, lambda r, step, i: element(r, tiles.start(step) + i), part)

    def power(r, step, i):
        # min(.., 0) says what is so: the cheaper exp will do.
        return tirx.exp(tirx.min(element(r, tiles.start(step) + i) - highest[r], tirx.const(0.0, x.dtype)))

    kept = power if logarithm else te.compute((count, tiles.steps, tiles.width), power, name="power", attrs=part)
    total = rows.fold_sum((count,), tiles, lambda r, step, i: kept(r, step, i), "sum", part)

    def of_row(r):
        return tirx.log(total[r]) if logarithm else tirx.const(1.0, x.dtype) / total[r]

    scale = te.compute((count,), of_row, name="scale", attrs=part)

    def result(*at):
        row, step = rows.row_at(batch, at[:-1]), at[-1] // tiles.width
        if logarithm:
            return x(*at) - highest[row] - scale[row]
        return kept[row, step, at[-1] - tiles.start(step)] * scale[row]

    return te.compute((*batch, length), result, name="softmax", attrs=scheduling.anchor(NAME))


def schedule(sch, block, hardware, choose):
    """Rows over the threads; in a row, tiles of vectors."""
    *batch, length = scheduling.extents(sch, block)
    width = rows.row_tiles(length, max(4, hardware.vector_bits // 32)).width
    return rows.row_by_row(sch, block, width, 20 * prod(batch) * length, hardware, choose)
