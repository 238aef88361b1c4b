"""Matrix product with the right-hand side in panels of some vectors' width.

    y[.., m, n] = sum_k x[.., m, k] * P[.., n div (v l), k, n div l mod v, n mod l]
    P[.., p, k, j, i] = w[.., k, (p v + j) l + i]

A constant right-hand side is packed at compile time; another is packed by the kernel itself, which costs one pass
over it. One register tile is `rows` x `vectors` (v) accumulators of `lanes` (l): a panel is what one step of the
reduction takes of the weights, so that they come in one stream.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "matmul"


def tile(rows, columns, lanes, hardware):
    """Rows and vectors of the register tile."""
    return scheduling.register_tile(rows, -(-columns // lanes), lanes, hardware, streamed=True)


def compute(x, weight, *, columns, lanes, tile, packed):
    """Define x[.., M, K] times `weight` to [.., M, columns], by a `tile` of (rows, vectors).

    `weight` is [N/(lanes*vectors), K, vectors, lanes] where it is `packed`; else [.., K, columns], with the leading
    axes of x or none.
    """
    *batch, rows, depth = (int(d) for d in x.shape)
    row_tile, vectors = tile
    blocks = -(-columns // lanes)
    shared = len(weight.shape) == (4 if packed else 2)
    if not packed:

        def element(*at):
            *outer, p, k, j, i = at
            n = (p * vectors + j) * lanes + i
            if columns % lanes == 0:
                return weight[(*outer, k, n)]
            return tirx.if_then_else(n < columns, weight[(*outer, k, n)], tirx.const(0, weight.dtype))

        panels = (*([] if shared else batch), blocks // vectors, depth, vectors, lanes)
        weight = te.compute(panels, element, name="pack")
    axis = te.reduce_axis((0, depth), name="k")

    def product(*at):
        *outer, m, no, i = at
        panel = (*([] if shared else outer), no // vectors, axis, no % vectors, i)
        return te.sum(x[(*outer, m, axis)] * weight[panel], axis=[axis])

    attrs = {**scheduling.anchor(NAME), "rows": row_tile, "vectors": vectors}
    tiles = te.compute((*batch, rows, blocks, lanes), product, name="matmul", attrs=attrs)
    return te.compute(
        (*batch, rows, columns), lambda *at: tiles[(*at[:-1], at[-1] // lanes, at[-1] % lanes)], name="rows_of_panels"
    )


def schedule(sch, block, hardware):
    """Tile rows and panels for registers, vectorize a panel's lanes, spread (batch, panels, rows) over the threads."""
    *batch, rows, panels, lanes, depth = scheduling.extents(sch, block)
    flops = scheduling.flops(sch, block)
    row_tile, panel_tile = (int(sch.get(block).annotations[word]) for word in ("rows", "vectors"))
    epilogue = scheduling.epilogue(sch, block)
    columns = scheduling.extents(sch, epilogue)[-1]
    in_rows = scheduling.extents(sch, epilogue) == [*batch, rows, columns] and -(-columns // lanes) == panels
    # A last panel that is not full is peeled off the loop of one thread; loops for several are fused, not peeled.
    whole = in_rows and (columns % lanes == 0 or hardware.cores == 1)
    if whole:
        *outer, m, n = sch.get_loops(epilogue)
        no, panel, lane = sch.split(n, [None, panel_tile, lanes])
        if columns % lanes:
            sch.annotate(no, "pragma_loop_partition_hint", 1)
    else:
        # Tiles go to memory whole; the epilogue, a loop of its own, reads the valid part.
        if len(scheduling.extents(sch, epilogue)) == len(batch) + 3:
            epilogue = None
        *outer, m, no, lane, _ = sch.get_loops(block)
        no, panel = sch.split(no, [None, panel_tile])
    mo, row = sch.split(m, [None, row_tile])
    sch.reorder(*outer, no, mo, row, panel, lane)
    if rows % row_tile:
        sch.annotate(mo, "pragma_loop_partition_hint", 1)
    if whole:
        placed = [block, epilogue, *scheduling.finish_in_registers(sch, block, epilogue, mo, unrolled=2)]
        sch.compute_at(block, mo, preserve_unit_loops=True)
    else:
        copy = sch.cache_write(block, 0, "global")
        sch.reverse_compute_at(copy, mo, preserve_unit_loops=True)
        scheduling.in_vectors(sch, copy, 2)
        placed = [block, copy]
    # Few panels and many rows: both feed the threads.
    rows_too = rows % row_tile == 0 and prod(batch) * (panels // panel_tile) < 4 * hardware.cores
    scheduling.parallel(sch, [*outer, no, mo] if rows_too else [*outer, no], flops, hardware)
    row, panel, lane, k = sch.get_loops(block)[-4:]
    ko, ki = sch.split(k, [None, next(f for f in (4, 2, 1) if depth % f == 0)])
    sch.reorder(ko, ki, row, panel, lane)
    placed += scheduling.operand_in_registers(sch, block, 0, ko, hardware)
    for loop in (ki, row, panel):
        sch.unroll(loop)
    sch.vectorize(lane)
    scheduling.decompose_reduction(sch, block, ko)
    return placed, f"tile {row_tile}x{panel_tile}"
