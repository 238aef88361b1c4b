"""Matrix product on a GPU of float32 and weights of 8 or 4 bits, which are decoded on their way to shared memory.

    y[.., m, n] = sum_k x[.., m, k] (code[k, n] scale[k div g, n] + offset[k div g, n])

Codes are int8 [K, N], or of 4 bits uint8 [K/2, N], two rows a byte, the even row's lower. `nncc::coded_matmul` of the
prelude is its inner loop.
"""

from __future__ import annotations

from math import prod

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops, device_tiles

NAME = "cuda_coded_matmul"


def codes(weight, bits):
    """[K, N] of integers -> the same as int8, or as two rows' 4 bits a byte, [K/2, N]."""
    if bits == 8:
        return np.ascontiguousarray(weight.astype(np.int8))
    nibbles = weight.astype(np.uint8)
    return np.ascontiguousarray(nibbles[0::2] | nibbles[1::2] << 4)


def compute(x, weight, *tables, group, bits, tf32=False):
    """Define x[.., M, K] times decoded weights to [.., M, N]; `weight` is that of `codes`.

    `tables` are the scales, and the offsets if there are any, [K/group, N]; without tables a code is its weight. With
    `tf32`, tensor cores multiply, and round both factors.
    """
    *batch, rows, depth = (int(d) for d in x.shape)
    columns = int(weight.shape[1])
    k = te.reduce_axis((0, depth), name="k")

    def decoded(k, n):
        if bits == 8:
            value = weight[k, n].astype("float32")
        else:
            shifted = tirx.shift_right(weight[k // 2, n].astype("int32"), k % 2 * 4)
            value = tirx.bitwise_and(shifted, 15).astype("float32")
        for operation, table in zip((tirx.Mul, tirx.Add), tables, strict=False):
            value = operation(value, table[k // group, n])
        return value

    attrs = {"nncc.tf32": int(tf32), "nncc.group": int(group), "nncc.bits": int(bits)}
    return te.compute(
        (*batch, rows, columns),
        lambda *at: te.sum(x[(*at[:-1], k)] * decoded(k, at[-1]), axis=[k]),
        name="coded_matmul",
        attrs=scheduling.anchor(NAME) | attrs,
    )


def schedule(sch, block, hardware, choose):
    """Tiles of rows by columns, and parts of the depth, so that all multiprocessors have work."""
    notes = sch.get(block).annotations
    tf32, group, bits = bool(notes["nncc.tf32"]), int(notes["nncc.group"]), int(notes["nncc.bits"])
    *outer, columns, depth = scheduling.extents(sch, block)
    x, weight, *tables = device_loops.sources(sch, block)
    rows = prod(outer)
    plan = device_tiles.choose_tile(rows, columns, depth, 1, hardware, choose, tf32=tf32)
    tile = plan.tile
    sizes = f"{rows}, {depth}, {columns}, {bits}, {group}, {len(tables)}, {plan.part}"
    function = f"nncc::coded_matmul<{tile.words()}, {sizes}>"
    vector = tile.run if columns % tile.run == 0 else 1
    scales, offsets = [*tables, x, x][:2]  # of those that there are none, nothing is read

    def place(i, j, z, thread, number):
        m, n, inside = device_loops.in_tile(tile, (j, i), thread, number * vector, rows, columns)
        return [*device_loops.places(m, outer), n], inside

    registers = device_loops.Registers(tile.count, vector, tile.sums, place)
    grid = device_loops.Grid(-(-columns // tile.n), -(-rows // tile.m), plan.parts, tile.threads)
    arguments = lambda i, j, z, _: (function, x, weight, scales, offsets, i, j, z)  # noqa: E731
    placed = device_loops.on_grid(sch, block, arguments, grid, registers, plan.parts)
    return placed, f"tile {plan}, {bits} bits"
