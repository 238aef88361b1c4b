"""Matrix product with the right-hand side in panels of some vectors' width.

    y[.., m, n] = sum_k x[.., m, k] * P[.., n div l, k, n mod l]        P[.., p, k, i] = w[.., k, p l + i]

A constant right-hand side is packed at compile time; another is packed by the kernel itself, which costs one pass
over it. One register tile is `rows` x `vectors` accumulators of `lanes` (l): the schedule lays P out so that what one
step of the reduction takes comes in one stream.

Of integers (`nncc.kernels.dots`), x is taken by words and P is [.., ceil(N/l), K/size, l * size]; the result is int32.

Weights may be codes that the kernel decodes in registers, so that they are small in memory: w = code * scale + offset,
with a scale and an offset for each column and group of rows.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "matmul"


def compute(x, weight, *, columns, lanes, packed, dot=None, transposed=False, ragged=False):
    """Define x[.., M, K] times `weight` to [.., M, columns].

    `weight` is [N/lanes, K, lanes] where it is `packed`; else [.., K, columns], or [.., columns, K] where it is
    `transposed`, with the leading axes of x or none. With a `dot`, it is packed in words. Where it is `ragged`, it does
    for any number of columns, also where lanes divide it.
    """
    rows_of_weight = int(x.shape[-1])
    if dot is not None:
        x = _whole_words(scheduling.widened(x, dot), dot)
    *batch, rows, depth = (int(d) for d in x.shape)
    depth //= dot.size if dot is not None else 1
    blocks = -(-columns // lanes)
    shared = len(weight.shape) == (3 if packed else 2)
    if not packed and dot is not None:
        dtype = weight.dtype if dot.name == "none" else dot.weight

        def word(*at):
            """Behind the last row or column anything will do: words of x have zeros there, and no result is read."""
            *outer, p, k, place = at
            lane, t = dot.member(place, lanes)
            n, k = p * lanes + lane, k * dot.size + t
            n = te.min(n, columns - 1) if columns % lanes else n
            k = te.min(k, rows_of_weight - 1) if rows_of_weight % dot.size else k
            return weight[(*outer, *((n, k) if transposed else (k, n)))].astype(dtype)

        outer = [] if shared else batch
        weight = te.compute((*outer, blocks, depth, lanes * dot.size), word, name="pack_words")
    elif not packed:

        def element(*at):
            *outer, p, k, i = at
            n = p * lanes + i
            if columns % lanes == 0 and not ragged:
                return weight[(*outer, k, n)]
            return tirx.if_then_else(n < columns, weight[(*outer, k, n)], tirx.const(0, weight.dtype))

        weight = te.compute((*([] if shared else batch), blocks, depth, lanes), element, name="pack")
    axis = te.reduce_axis((0, depth), name="k")

    def product(*at):
        *outer, m, no, i = at
        if dot is None:
            return te.sum(x[(*outer, m, axis)] * weight[(*([] if shared else outer), no, axis, i)], axis=[axis])
        panel = (*([] if packed or shared else outer), no, axis)
        word = dot.product(
            lambda t: x[(*outer, m, axis * dot.size + t)], lambda place: weight[(*panel, place)], i, lanes
        )
        return te.sum(word, axis=[axis])

    tiles = te.compute((*batch, rows, blocks, lanes), product, name="matmul", attrs=scheduling.anchor(NAME))
    return te.compute(
        (*batch, rows, columns), lambda *at: tiles[(*at[:-1], at[-1] // lanes, at[-1] % lanes)], name="rows_of_panels"
    )


def codes(weight, lanes, bits):
    """[K, N] of integers -> P of int8, or of two rows' 4 bits a byte, [ceil(N/l), K/2, l], the even row's lower."""
    depth, columns = weight.shape
    blocks = -(-columns // lanes)
    spread = np.pad(weight, ((0, 0), (0, blocks * lanes - columns))).reshape(depth, blocks, lanes).transpose(1, 0, 2)
    if bits == 8:
        return np.ascontiguousarray(spread.astype(np.int8))
    nibbles = spread.astype(np.uint8)
    return np.ascontiguousarray(nibbles[:, 0::2] | nibbles[:, 1::2] << 4)


def compute_coded(x, weight, *tables, columns, lanes, group, bits):
    """Define x[.., M, K] times decoded weights to [.., M, columns]; `weight` is that of `codes`.

    `tables` are the scales, and the offsets if there are any, [ceil(N/l), K/group, l]; without tables a code is its
    weight.
    """
    *batch, rows, depth = (int(d) for d in x.shape)
    blocks = -(-columns // lanes)
    axis = te.reduce_axis((0, depth), name="k")

    def decoded(no, k, i):
        if bits == 8:
            value = weight[no, k, i].astype("float32")
        else:
            byte = weight[no, k // 2, i].astype("int32")
            value = tirx.bitwise_and(tirx.shift_right(byte, k % 2 * 4), 15).astype("float32")
        for operation, table in zip((tirx.Mul, tirx.Add), tables, strict=False):
            value = operation(value, table[no, k // group, i])
        return value

    def product(*at):
        *outer, m, no, i = at
        return te.sum(x[(*outer, m, axis)] * decoded(no, axis, i), axis=[axis])

    tiles = te.compute((*batch, rows, blocks, lanes), product, name="matmul", attrs=scheduling.anchor(NAME))
    return te.compute(
        (*batch, rows, columns), lambda *at: tiles[(*at[:-1], at[-1] // lanes, at[-1] % lanes)], name="rows_of_panels"
    )


def _whole_words(x, dot):
    """x with zeros behind its last column, so that words are whole."""
    *outer, depth = (int(d) for d in x.shape)
    if depth % dot.size == 0:
        return x
    whole = -(-depth // dot.size) * dot.size
    return te.compute(
        (*outer, whole),
        lambda *at: tirx.if_then_else(at[-1] < depth, x[(*at[:-1], te.min(at[-1], depth - 1))], tirx.const(0, x.dtype)),
        name="pad_words",
    )


def _unrollings(depth):
    """How many steps of the reduction may be unrolled, by preference."""
    return [size for size in (4, 2, 1, 8, 16) if depth % size == 0 and size <= max(4, depth)]


def schedule(sch, block, hardware, choose):
    """Tile rows and panels for registers, vectorize a panel's lanes, spread (batch, panels, rows) over the threads."""
    *batch, rows, panels, lanes, depth = scheduling.extents(sch, block)
    flops = scheduling.flops(sch, block)
    dot = scheduling.dot_in(sch, block, hardware)
    laid = scheduling.laid_out(sch)
    tiles = scheduling.register_tiles(rows, panels, lanes, hardware, streamed=True, dot=dot, laid=laid)
    row_tile, vectors = choose("tile", tiles)
    operand = scheduling.operand_shape(sch, block, 1)
    scheduling.panels(sch, block, 1, len(operand) - 3, vectors)
    pack = next((p for p in sch.get_producers(block) if sch.get(p).name_hint.startswith("pack")), None)
    if pack is not None:
        *around, p, k, i = sch.get_loops(pack)
        p, j = sch.split(p, [None, vectors])
        sch.reorder(*around, p, k, j, i)
    epilogue = scheduling.epilogue(sch, block)
    columns = scheduling.extents(sch, epilogue)[-1]
    in_rows = scheduling.extents(sch, epilogue) == [*batch, rows, columns] and -(-columns // lanes) == panels
    # A last panel that is not full is peeled off the loop of one thread; loops for several are fused, not peeled.
    whole = in_rows and (columns % lanes == 0 or hardware.cores == 1)
    if whole:
        *outer, m, n = sch.get_loops(epilogue)
        no, panel, lane = sch.split(n, [None, vectors, lanes])
        if columns % lanes:
            sch.annotate(no, "pragma_loop_partition_hint", 1)
    else:
        # Tiles go to memory whole; the epilogue, a loop of its own, reads the valid part.
        if len(scheduling.extents(sch, epilogue)) == len(batch) + 3:
            epilogue = None
        *outer, m, no, lane, _ = sch.get_loops(block)
        no, panel = sch.split(no, [None, vectors])
    mo, row = sch.split(m, [None, row_tile])
    sch.reorder(*outer, no, mo, row, panel, lane)
    if rows % row_tile:
        sch.annotate(mo, "pragma_loop_partition_hint", 1)
    placed = scheduling.finish_tiles(sch, block, epilogue, mo, whole=whole, unrolled=2)
    threads = [*outer, no]
    if rows % row_tile == 0:
        # Few panels and many rows: both feed the threads.
        rows_too = hardware.cores > 1 and prod(batch) * (panels // vectors) < 4 * hardware.cores
        count = scheduling.extent(sch, mo)
        strips = [size for size in (1, 2, 4, 8, 16, 32) if count % size == 0 and size < count and panels > vectors]
        strip = choose("strip", [count, *strips])
        if strip < count:  # some rows, which stay in the cache, take all panels before the next come
            ms, mo = sch.split(mo, [None, strip])
            sch.reorder(ms, no)
            threads = [*outer, ms, no]
        elif rows_too:
            threads.append(mo)
    uses = scheduling.extent(sch, mo)
    scheduling.parallel(sch, threads, flops, hardware, choose)
    row, panel, lane, k = sch.get_loops(block)[-4:]
    ko, ki = sch.split(k, [None, choose("unroll", _unrollings(depth))])
    sch.reorder(ko, ki, row, panel, lane)
    placed += scheduling.operand_in_registers(sch, block, 0, ko, hardware)
    for loop in (ki, row, panel):
        sch.unroll(loop)
    sch.vectorize(lane)
    scheduling.decompose_reduction(sch, block, ko)
    scheduling.fetch_ahead(sch, block, 1, len(operand) - 3, [ko], uses, hardware, choose)
    return placed, f"tile {row_tile}x{vectors}"
