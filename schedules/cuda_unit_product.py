"""Matrix products of two tensors of bytes on tensor cores, into int32.

    y[.., m, n] = sum_k x[.., m, k] w[.., k, n]        or, of a w that is transposed, w[.., n, k]

x is uint8 or int8, w int8; w has the leading axes of x, or none: then all rows of x are those of one product.
`nncc::unit_product` of the prelude is its inner loop.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te
from nncc.gpu import device_loops
from nncc.gpu.device_units import KIND, KINDS, choose_unit_tile, decoded

NAME = "cuda_unit_product"


def compute(x, other, *, kind, transposed):
    """Define x[.., M, K] times `other`, [.., K, N] or, if `transposed`, [.., N, K]; `kind` is a word of `KINDS`."""
    *batch, rows, depth = (int(d) for d in x.shape)
    columns, shared = int(other.shape[-2 if transposed else -1]), len(other.shape) == 2
    k = te.reduce_axis((0, depth), name="k")

    def product(*at):
        place = (at[-1], k) if transposed else (k, at[-1])
        factor = other[(*(() if shared else at[:-2]), *place)]
        return te.sum(decoded(x[(*at[:-1], k)], kind) * decoded(factor, kind), axis=[k])

    attrs = scheduling.anchor(NAME) | {KIND: kind, "nncc.transposed": int(transposed)}
    return te.compute((*batch, rows, columns), product, name="unit_product", attrs=attrs)


def schedule(sch, block, hardware, choose):
    """Tiles of rows by columns, and parts of the depth, so that all multiprocessors have work."""
    annotations = sch.get(block).annotations
    word, transposed = str(annotations[KIND]), bool(annotations["nncc.transposed"])
    kind = KINDS[word]
    *outer, rows, columns, depth = scheduling.extents(sch, block)
    x, other = (scheduling.operand(sch, block, i) for i in (0, 1))
    shared = len(other.shape) == 2
    axes = [*outer, rows]
    batch = 1 if shared else prod(outer)
    rows = prod(axes) if shared else rows
    plan = choose_unit_tile(rows, columns, -(-depth // kind.each), kind, hardware, choose, batch=batch)
    tile = plan.tile
    flags = f"{str(transposed).lower()}, {str(shared).lower()}"
    sizes = f"{rows}, {depth}, {columns}, {flags}, {plan.parts}, {plan.part}"
    function = f"nncc::unit_product<{tile.words(kind)}, {sizes}>"
    vector = 4 if columns % 4 == 0 else 1

    def place(i, j, z, thread, number):
        m, n, inside = device_loops.in_tile(tile, (i, j), thread, number * vector, rows, columns)
        at = device_loops.places(m, axes) if shared else [*device_loops.places(z // plan.parts, outer), m]
        return [*at, n], inside

    registers = device_loops.Registers(tile.count, vector, tile.count, place, kind.sum)
    grid = device_loops.Grid(-(-rows // tile.m), -(-columns // tile.n), batch * plan.parts, tile.threads)
    arguments = lambda i, j, z, _: (function, x, other, i, j, z)  # noqa: E731
    placed = device_loops.on_grid(sch, block, arguments, grid, registers, plan.parts)
    return placed, f"tile {plan}, {word}"
