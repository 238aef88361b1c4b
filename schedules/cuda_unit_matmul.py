"""Matrix product on tensor cores by constant weights: integers of 8 bits into int32, halves into float32.

    y[.., m, n] = sum_{c, l} x[.., m, c b + l] W[c, n, l]

x is [.., K] of 8 or 16 bits, W [K up to whole units, N up to a multiple of 8, b] with b numbers in 16 bytes: all rows
of x are those of one product. `nncc::unit_matmul` of the prelude is its inner loop.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nncc import scheduling
from nncc.compat import te
from nncc.gpu import device_loops
from nncc.gpu.device_units import KIND, KINDS, choose_unit_tile, decoded

NAME = "cuda_unit_matmul"


def pack(matrix, lanes):
    """[K, N] -> [K/b, N up to a multiple of 8, b], zeros where there are none."""
    depth, columns = matrix.shape
    padded = np.pad(matrix, ((0, -depth % lanes), (0, -columns % 8)))
    return np.ascontiguousarray(padded.reshape(-1, lanes, padded.shape[1]).transpose(0, 2, 1))


def compute(x, weight, *, kind, columns):
    """Define x[.., M, K] times the weights of `columns` columns, numbers of `kind`, a word of `KINDS`."""
    *batch, depth = (int(d) for d in x.shape)
    lanes = KINDS[kind].each
    k = te.reduce_axis((0, depth), name="k")

    def product(*at):
        factor = decoded(weight[k // lanes, at[-1], k % lanes], kind)
        return te.sum(decoded(x[(*at[:-1], k)], kind) * factor, axis=[k])

    attrs = scheduling.anchor(NAME) | {KIND: kind}
    return te.compute((*batch, columns), product, name="unit_matmul", attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Tiles of rows by columns, and parts of the depth, so that all multiprocessors have work."""
    word = str(sch.get(block).annotations[KIND])
    kind = KINDS[word]
    *outer, columns, depth = scheduling.extents(sch, block)
    rows = prod(outer)
    x, weight = (scheduling.operand(sch, block, i) for i in (0, 1))
    units, stride, _ = (int(d) for d in weight.shape)
    plan = choose_unit_tile(rows, columns, units, kind, hardware, choose)
    tile = plan.tile
    function = f"nncc::unit_matmul<{tile.words(kind)}, {rows}, {depth}, {stride}, {plan.part}>"
    vector = 4 if columns % 4 == 0 else 1

    def place(i, j, z, thread, number):
        m, n, inside = device_loops.in_tile(tile, (i, j), thread, number * vector, rows, columns)
        return [*device_loops.places(m, outer), n], inside

    registers = device_loops.Registers(tile.count, vector, tile.count, place, kind.sum)
    grid = device_loops.Grid(-(-rows // tile.m), -(-columns // tile.n), plan.parts, tile.threads)
    arguments = lambda i, j, z, _: (function, x, weight, i, j, z)  # noqa: E731
    placed = device_loops.on_grid(sch, block, arguments, grid, registers, plan.parts)
    return placed, f"tile {plan}, {word}"
