"""Matrix product on a GPU, of plain float32 tensors.

    y[.., m, n] = sum_k x[.., m, k] w[.., k, n]

w has the leading axes of x, or none: then all rows of x are those of one product. `nncc::matmul` of the prelude is its
inner loop.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te
from nncc.gpu import device_loops, device_tiles

NAME = "cuda_matmul"


def compute(x, weight, *, tf32=False):
    """Define x[.., M, K] times weight[.., K, N]; with `tf32`, tensor cores multiply, and round both factors."""
    *batch, rows, depth = (int(d) for d in x.shape)
    columns, shared = int(weight.shape[-1]), len(weight.shape) == 2
    k = te.reduce_axis((0, depth), name="k")
    return te.compute(
        (*batch, rows, columns),
        lambda *at: te.sum(x[(*at[:-1], k)] * weight[(*(() if shared else at[:-2]), k, at[-1])], axis=[k]),
        name="matmul",
        attrs=scheduling.anchor(NAME) | {"nncc.tf32": int(tf32)},
    )


def schedule(sch, block, hardware, choose):
    """Tiles of rows by columns, and parts of the depth, so that all multiprocessors have work."""
    *outer, rows, columns, depth = scheduling.extents(sch, block)
    x, weight = (scheduling.operand(sch, block, i) for i in (0, 1))
    shared = len(weight.shape) == 2
    axes = [*outer, rows]
    batch = 1 if shared else prod(outer)
    rows = prod(axes) if shared else rows
    tf32 = bool(sch.get(block).annotations["nncc.tf32"])
    plan = device_tiles.choose_tile(rows, columns, depth, batch, hardware, choose, tf32=tf32)
    tile = plan.tile
    sizes = f"{rows}, {depth}, {columns}, {str(shared).lower()}, {plan.parts}, {plan.part}"
    function = f"nncc::matmul<{tile.words()}, {sizes}>"
    vector = tile.run if columns % tile.run == 0 else 1

    def place(x, y, z, thread, number):
        m, n, inside = device_loops.in_tile(tile, (y, x), thread, number * vector, rows, columns)
        at = device_loops.places(m, axes) if shared else [*device_loops.places(z // plan.parts, outer), m]
        return [*at, n], inside

    registers = device_loops.Registers(tile.count, vector, tile.sums, place)
    grid = device_loops.Grid(-(-columns // tile.n), -(-rows // tile.m), batch * plan.parts, tile.threads)
    arguments = lambda i, j, z, _: (function, x, weight, i, j, z)  # noqa: E731
    placed = device_loops.on_grid(sch, block, arguments, grid, registers, plan.parts)
    return placed, f"tile {plan}"
