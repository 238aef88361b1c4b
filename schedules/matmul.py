"""Matrix product with the right-hand side in panels of one vector's width.

    y[.., m, no*l + ni] = sum_k x[.., m, k] * P[.., no, k, ni]        P[.., no, k, ni] = w[.., k, no*l + ni]

A constant right-hand side is packed at compile time; another is packed by the kernel itself, which costs one pass
over it. One register tile is `rows` x `panels` accumulators of `l` lanes.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "matmul"


def compute(x, weight, *, columns, lanes, packed):
    """Define x[.., M, K] times `weight` to [.., M, columns].

    `weight` is [N/lanes, K, lanes] where it is `packed`; else [.., K, columns], with the leading axes of x or none.
    """
    *batch, rows, depth = (int(d) for d in x.shape)
    panels = -(-columns // lanes)
    shared = len(weight.shape) == (3 if packed else 2)
    if not packed:

        def element(*at):
            *outer, no, k, ni = at
            n = no * lanes + ni
            if columns % lanes == 0:
                return weight[(*outer, k, n)]
            return tirx.if_then_else(n < columns, weight[(*outer, k, n)], tirx.const(0, weight.dtype))

        weight = te.compute((*([] if shared else batch), panels, depth, lanes), element, name="pack")
    axis = te.reduce_axis((0, depth), name="k")

    def product(*at):
        *outer, m, no, ni = at
        return te.sum(x[(*outer, m, axis)] * weight[(*([] if shared else outer), no, axis, ni)], axis=[axis])

    tiles = te.compute((*batch, rows, panels, lanes), product, name="matmul", attrs=scheduling.anchor(NAME))
    return te.compute(
        (*batch, rows, columns), lambda *at: tiles[(*at[:-1], at[-1] // lanes, at[-1] % lanes)], name="rows_of_panels"
    )


def schedule(sch, block, hardware):
    """Tile rows and panels for registers, vectorize a panel's lanes, spread (batch, panels, rows) over the threads."""
    *batch, rows, panels, lanes, depth = scheduling.extents(sch, block)
    flops = scheduling.flops(sch, block)
    row_tile, panel_tile = scheduling.register_tile(rows, panels, lanes, hardware)
    epilogue = scheduling.epilogue(sch, block)
    whole = scheduling.extents(sch, epilogue) == [*batch, rows, panels * lanes]
    if whole:
        *outer, m, n = sch.get_loops(epilogue)
        no, panel, lane = sch.split(n, [None, panel_tile, lanes])
    else:
        # The last panel is not full: tiles go to memory whole; the epilogue, a loop of its own, reads the valid part.
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
