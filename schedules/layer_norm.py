"""Layer normalization over the last axis, row by row, while a row is in the first-level cache.

    m = sum_k x[k] / n        v = sum_k (x[k] - m)^2 / n        y[k] = (x[k] - m) * (1 / sqrt(v + eps)) * g[k] + b[k]

The variance is a pass of its own: as a difference of two sums it would lose the digits that they share.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels import rows

NAME = "layer_norm"


def compute(x, gamma, beta, *, epsilon, lanes):
    """Define the normalization of x[.., n] for vectors of `lanes` floats."""
    *batch, length = (int(d) for d in x.shape)
    count, part = prod(batch), scheduling.part(NAME)
    tiles = rows.row_tiles(length, lanes)
    element = rows.row_of(x)
    share = tirx.const(1.0 / length, x.dtype)
    total = rows.fold_sum((count,), tiles, lambda r, step, i: element(r, tiles.start(step) + i), "sum", part)
    mean = te.compute((count,), lambda r: total[r] * share, name="mean", attrs=part)

    def square(r, step, i):
        difference = element(r, tiles.start(step) + i) - mean[r]
        return difference * difference

    squares = rows.fold_sum((count,), tiles, square, "squares", part)
    one, least = tirx.const(1.0, x.dtype), tirx.const(epsilon, x.dtype)
    scale = te.compute((count,), lambda r: one / tirx.sqrt(squares[r] * share + least), name="scale", attrs=part)

    def result(*at):
        row, k = rows.row_at(batch, at[:-1]), at[-1]
        return (x[at] - mean[row]) * scale[row] * gamma[k] + beta[k]

    return te.compute((*batch, length), result, name="layer_norm", attrs=scheduling.anchor(NAME))


def schedule(sch, block, hardware, choose):
    """Rows over the threads; in a row, tiles of vectors."""
    *batch, length = scheduling.extents(sch, block)
    width = rows.row_tiles(length, max(4, hardware.vector_bits // 32)).width
    return rows.row_by_row(sch, block, width, 9 * prod(batch) * length, hardware, choose)
