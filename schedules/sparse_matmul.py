"""Matrix product by a constant of which blocks of weights are zero: they are skipped.

    y[.., m, (p g + j) l + i] = sum_e sum_t x[.., m, 4 c_e + t] W[p, e, t, j, i]

A block is `l * g` columns of the constant by four of its rows: g vectors of columns share a list of the blocks that are
not zero, all lists as long as the longest. x is [.., M, K], W is [N/(l g), E, 4, g, l], of integers
[N/(l g), E, 4/size, g, l * size] in words (`nncc.kernels.dots`), places (c) are int32 [N/(l g), E].
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te
from nncc.kernels import skipping
from nncc.kernels.skipping import WORD

NAME = "sparse_matmul"


def pack(matrix, lanes, vectors, dot=None):
    """[K, N] -> (W, places); lists that are shorter end in zeros."""
    weights, places = skipping.pack(matrix.T[:, :, None, None], lanes, vectors, dot)
    return weights, places[..., 0]


def compute(x, weight, places, *, dot=None):
    """Define x[.., M, K] times a packed [K, N], K a multiple of 4, as [.., M, N]; of integers into int32."""
    if dot is not None:
        x = scheduling.widened(x, dot)
    *batch, rows, _ = (int(d) for d in x.shape)
    count, length, steps, vectors, lanes = (int(d) for d in weight.shape)
    lanes //= 1 if dot is None else dot.size
    e, t = te.reduce_axis((0, length), name="e"), te.reduce_axis((0, steps), name="t")

    def element(*index):
        *outer, m, p, i = index
        at, first = (p // vectors, e, t, p % vectors), places[p // vectors, e] * WORD
        if dot is None:
            return te.sum(x[(*outer, m, first + t)] * weight[(*at, i)], axis=[e, t])
        values = lambda k: x[(*outer, m, first + t * dot.size + k)]  # noqa: E731
        return te.sum(dot.product(values, lambda place: weight[(*at, place)], i, lanes), axis=[e, t])

    attrs = {**scheduling.anchor(NAME), "vectors": vectors}
    tiles = te.compute((*batch, rows, count * vectors, lanes), element, name="sparse_matmul", attrs=attrs)
    return te.compute(
        (*batch, rows, count * vectors * lanes),
        lambda *at: tiles[(*at[:-1], at[-1] // lanes, at[-1] % lanes)],
        name="rows_of_panels",
    )


def schedule(sch, block, hardware, choose):
    """Tile rows and lists for registers, walk the lists, vectorize the lanes, spread the tiles over the threads."""
    vectors = int(sch.get(block).annotations["vectors"])
    *batch, rows, panels, lanes, _, _ = scheduling.extents(sch, block)
    flops = scheduling.flops(sch, block)
    dot = scheduling.dot_in(sch, block, hardware)
    tiles = skipping.list_tiles(rows, panels // vectors, vectors, lanes, hardware, dot=dot)
    row_tile, lists = choose("tile", tiles)
    epilogue = scheduling.epilogue(sch, block)
    whole = scheduling.extents(sch, epilogue) == [*batch, rows, panels * lanes]
    if whole:
        *outer, m, n = sch.get_loops(epilogue)
        no, nl, nv, lane = sch.split(n, [None, lists, vectors, lanes])
    else:  # tiles go to memory, and the epilogue, a loop of its own, reads them
        if len(scheduling.extents(sch, epilogue)) == len(batch) + 3:
            epilogue = None
        *outer, m, n, lane, _, _ = sch.get_loops(block)
        no, nl, nv = sch.split(n, [None, lists, vectors])
    mo, mi = sch.split(m, [None, row_tile])
    sch.reorder(*outer, no, mo, mi, nl, nv, lane)
    if rows % row_tile:
        sch.annotate(mo, "pragma_loop_partition_hint", 1)
    placed = scheduling.finish_tiles(sch, block, epilogue, mo, whole=whole, unrolled=3)
    threads = [*outer, no]
    if rows % row_tile == 0 and hardware.cores > 1 and prod(batch) * (panels // vectors // lists) < 4 * hardware.cores:
        threads.append(mo)  # few panels and many rows: both feed the threads
    scheduling.parallel(sch, threads, flops, hardware, choose)
    if whole:
        mi, n, lane, e, t = sch.get_loops(block)[-5:]
        nl, nv = sch.split(n, [None, vectors])
    else:
        mi, nl, nv, lane, e, t = sch.get_loops(block)[-6:]
    sch.reorder(e, nl, t, mi, nv, lane)
    for loop in (nl, t, mi, nv):
        sch.unroll(loop)
    sch.vectorize(lane)
    scheduling.decompose_reduction(sch, block, e)
    return placed, f"tile {row_tile}x{lists}x{vectors}"
