"""A 1x1 convolution as Strassen's matrix product, once, on channel-blocked tensors with all pixels in one row.

    | C11 C12 |   | A11 A12 | | B11 B12 |      A: pixels by input channels, B: input by output channels; of each
    | C21 C22 | = | A21 A22 | | B21 B22 |      pair of pixels, and of blocks of channels, one is in either half

    M1 = (A11 + A22)(B11 + B22)    M2 = (A21 + A22) B11    M3 = A11 (B12 - B22)    M4 = A22 (B21 - B11)
    M5 = (A11 + A12) B22           M6 = (A21 - A11)(B11 + B12)                     M7 = (A12 - A22)(B21 + B22)

    C11 = M1 + M4 - M5 + M7    C12 = M3 + M5    C21 = M2 + M4    C22 = M1 - M2 + M3 + M6

(Strassen, "Gaussian elimination is not optimal", 1969): seven products of half the size in each direction where there
were eight. Sums of weights are made at compile time: 7/4 of their size. Rounding errors are those of about twice as
many terms, and each pixel has a part in those of the one that it is paired with; `ERROR` bounds them.

x is [N, C/l, 1, P, l], B is [7, O/2l, C/2l, l, l] (input lanes, output lanes), y is [N, O/l, 1, P, l].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nncc import scheduling
from nncc.compat import te

NAME = "strassen"
ERROR = 2e-6
"""The largest error of an output, over the largest output (tests/test_strassen.py)."""

LEFT = np.array(
    [[1, 0, 0, 1], [0, 0, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 0, 0], [-1, 0, 1, 0], [0, 1, 0, -1]], np.float64
)
"""The left factors, of A11, A12, A21, A22."""
RIGHT = np.array(
    [[1, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, -1], [-1, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]], np.float64
)
"""The right factors, of B11, B12, B21, B22."""
OUT = np.array(
    [[1, 0, 0, 1, -1, 0, 1], [0, 0, 1, 0, 1, 0, 0], [0, 1, 0, 1, 0, 0, 0], [1, -1, 1, 0, 0, 1, 0]], np.float64
)
"""C11, C12, C21, C22, of the products."""
_INTO, _OUT_OF = 40, 30
"""Vector operations that the sums of four vectors of activations take, and those that make four of the output."""
_WORTH = 0.93
"""Of a direct convolution's time: the library grows by three quarters of the weights."""


class Plan(NamedTuple):
    """That a convolution runs so."""

    cost: float
    """Predicted vector multiply-adds of one core that would take as long."""

    def __str__(self) -> str:
        return NAME


def ways(kernel_shape, pixels, batch, lanes, hardware):
    """The ways of a 1x1 convolution that does not pad or stride: a plan where it is predicted to pay, and None for a
    direct one."""
    out_channels, in_channels = kernel_shape[:2]
    if out_channels % (2 * lanes) or in_channels % (2 * lanes) or pixels % 2:
        return [None]
    outs, ins, half = out_channels // (2 * lanes), in_channels // (2 * lanes), pixels // 2
    once = batch * outs * ins * lanes * half  # one of the products
    direct = 8 * once * scheduling.tiled_cost(pixels, 2 * outs, lanes, hardware, streamed=True)
    sums = batch * half * (ins * _INTO + outs * _OUT_OF)
    plan = Plan(7 * once * scheduling.tiled_cost(half, outs, lanes, hardware, streamed=True) + sums)
    return [plan, None] if plan.cost < _WORTH * direct else [None]


def pack(kernel, lanes):
    """[O, I, 1, 1] -> the right factors as [7, O/2l, I/2l, l, l]: in float64, rounded once."""
    out_channels, in_channels = kernel.shape[:2]
    blocks = out_channels // lanes // 2, 2, lanes, in_channels // lanes // 2, 2, lanes
    factors = np.einsum("sjk,okacjb->socba", RIGHT.reshape(7, 2, 2), kernel.reshape(blocks).astype(np.float64))
    return np.ascontiguousarray(factors.astype(np.float32))


def compute(data, weight, *, task=""):
    """Define the convolution; `task` for `scheduling.anchor`."""
    batch, in_blocks, _, pixels, lanes = (int(d) for d in data.shape)
    out_half, in_half, half = int(weight.shape[1]), in_blocks // 2, pixels // 2
    part = scheduling.part(NAME)

    def quarter(n, number, c, p, v):
        """A11, A12, A21 or A22."""
        return data[n, c * 2 + number % 2, 0, p * 2 + number // 2, v]

    factors = te.compute(
        (batch, in_half, half, 7, lanes),
        lambda n, c, p, s, v: _row(LEFT, s, lambda number: quarter(n, number, c, p, v)),
        name="left_factors",
        attrs=part,
    )
    c, v = te.reduce_axis((0, in_half), name="c"), te.reduce_axis((0, lanes), name="v")
    left = te.compute(
        (batch, 7, in_half, half, lanes), lambda n, s, c, p, v: factors[n, c, p, s, v], name="left", attrs=part
    )
    product = te.compute(
        (batch, 7, out_half, half, lanes),
        lambda n, s, o, p, oi: te.sum(left[n, s, c, p, v] * weight[s, o, c, v, oi], axis=[c, v]),
        name="strassen",
        attrs=scheduling.anchor(NAME, task),
    )
    quarters = te.compute(
        (batch, out_half, half, 4, lanes),
        lambda n, o, p, number, oi: _row(OUT, number, lambda s: product[n, s, o, p, oi]),
        name="quarters",
        attrs=part,
    )
    return te.compute(
        (batch, 2 * out_half, 1, pixels, lanes),
        lambda n, o, h, w, oi: quarters[n, o // 2, w // 2, w % 2 * 2 + o % 2, oi],
        name="whole",
        attrs=part,
    )


def _row(matrix, index, element):
    return scheduling.row_of(matrix, index, element, scheduling.plain_combination)


def schedule(sch, block, hardware, choose):
    """All left factors, the products of all outputs or of a panel of them, and back with the epilogue."""
    outs, half, lanes, ins, _ = scheduling.extents(sch, block)[2:]
    rows, vectors = choose("tile", scheduling.register_tiles(half, outs, lanes, hardware, streamed=True))
    scheduling.panels(sch, block, 1, 1, vectors)
    flops = scheduling.flops(sch, block)
    left = scheduling.producer(sch, block, "left")
    factors = scheduling.producer(sch, left, "left_factors")
    quarters = sch.get_consumers(block)[0]
    whole = sch.get_consumers(quarters)[0]
    epilogue = scheduling.epilogue(sch, whole)
    sch.compute_inline(whole)
    # The factors of one vector of pixels in registers, and from there to where the products read them.
    n, s, c, p, v = sch.get_loops(left)
    sch.reorder(n, c, p, s, v)
    sch.compute_at(factors, p, preserve_unit_loops=True)
    for each in (factors, left):
        scheduling.in_vectors(sch, each, 1)
    n, o, h, w, lane = sch.get_loops(epilogue)
    o, column = sch.split(o, [None, 2])
    w, row = sch.split(w, [None, 2])
    # The products of all outputs first, or those of a panel of outputs, which then are still in the cache.
    by_panels = choose("output", ["whole", "panel"] if outs <= ins else ["panel", "whole"]) == "panel"
    oo, ob = sch.split(o, [None, vectors])
    sch.reorder(n, oo, ob, h, w, row, column, lane)
    sch.compute_at(quarters, w, preserve_unit_loops=True)
    scheduling.in_vectors(sch, quarters, 1)
    sch.vectorize(lane)
    for loop in (row, column):
        sch.unroll(loop)
    if by_panels:
        sch.compute_at(block, oo, preserve_unit_loops=True)
        scheduling.parallel(sch, [n, oo], flops, hardware, choose)
    else:
        scheduling.parallel(sch, [n, oo, ob], flops // 10, hardware, choose)
    s, *_ = sch.get_loops(block)[-6:]
    oo, k, copies = scheduling.tile_products(sch, block, rows, vectors, hardware, choose)
    scheduling.parallel(sch, [c], flops // 10, hardware, choose)
    if not by_panels:
        scheduling.parallel(sch, [s, oo], flops, hardware, choose)
    scheduling.decompose_reduction(sch, block, k)
    scheduling.fetch_ahead(sch, block, 1, 1, [k], -(-half // rows), hardware, choose)
    return [block, *copies, factors, left, quarters, epilogue], f"tile {vectors}x{rows}, error {ERROR:.0e}"
