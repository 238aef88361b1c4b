"""Winograd's convolution F(m x n, 3x3) on channel-blocked tensors, stride 1: m and n are 2 or 4.

    Y = A_m^T [ sum_c (G_m w_c G_n^T) * (B_m^T d_c B_n) ] A_n

(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Each tile of (m+2)(n+2) inputs gives m*n
outputs: 36 products for 16 outputs (m = n = 4) where a direct convolution takes 144. The elementwise products of all
tiles are (m+2)(n+2) matrix products over the channels, register-tiled as in conv2d. Weights are transformed at compile
time.

x is [N, C/l, H, W, l], U is [m+2, n+2, O/(l*v), C/l, l, v, l] (input lanes, then the vectors of a register tile, which
so come in one stream, of output lanes), y is [N, O/l, OH, OW, l].
Rounding errors grow by the transforms' sums: about 3 (m = n = 2) to 20 (m = n = 4) times those of a direct
convolution, around 1e-6 to 1e-5 of the largest output.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "winograd"

MATRICES = {
    2: (
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float64),
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float64),
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float64),
    ),
    4: (
        np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ],
            np.float64,
        ),
        np.array(
            [
                [1 / 4, 0, 0],
                [-1 / 6, -1 / 6, -1 / 6],
                [-1 / 6, 1 / 6, -1 / 6],
                [1 / 24, 1 / 12, 1 / 6],
                [1 / 24, -1 / 12, 1 / 6],
                [0, 0, 1],
            ],
            np.float64,
        ),
        np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float64),
    ),
}
"""B^T, G and A^T by m."""


TILES = ((2, 2), (2, 4), (4, 4))


def choose(kernel_shape, strides, dilation, batch, out_height, out_width, hardware):
    """The tile (m, n) that is predicted to be fastest, None for a direct convolution, and the reason.

    Counts vector multiply-adds of one core: a direct convolution runs at nine tenths of the peak, the products as
    `tile_cost` says, a vector operation of the transforms costs two and a half. Weights that do not fit the
    second-level cache come from memory meanwhile: transformed ones are (m+2)(n+2)/9 times larger, which is what small
    images pay. They also make the library larger: a gain of less than 15 % is not worth that.
    """
    out_channels, in_channels, *window = kernel_shape
    if tuple(window) != (3, 3):
        return None, f"the window is {window[0]}x{window[1]}, Winograd's 3x3"
    if tuple(strides) != (1, 1) or tuple(dilation) != (1, 1):
        return None, "Winograd needs stride 1 and dilation 1"
    lanes = max(1, hardware.vector_bits // 32)
    in_blocks, out_blocks = -(-in_channels // lanes), -(-out_channels // lanes)
    if min(in_channels, out_channels) < 2 * lanes:
        return None, "too few channels for the transforms to pay"
    products = in_blocks * out_blocks * lanes

    def fetched(matrices):
        nbytes = products * lanes * matrices * 4
        return max(0, nbytes - hardware.l2_kib * 1024 // 2) / hardware.bytes_per_flop / (2 * lanes)

    direct = max(products * 9 * batch * out_height * out_width / 0.9, fetched(9))
    cost = {}
    for m, n in TILES:
        matrices, tiles = (m + 2) * (n + 2), batch * -(-out_height // m) * -(-out_width // n)
        rows, vectors, streamed = _register_tile(matrices, in_blocks, out_blocks, tiles, lanes, hardware)
        time = (
            products * matrices * tiles * scheduling.tile_cost(rows, vectors, tiles, lanes, hardware, streamed=streamed)
        )
        transforms = tiles * (in_blocks * 4 * matrices + out_blocks * (2 * matrices + 2 * m * n))
        cost[m, n] = max(time / 0.95, fetched(matrices)) + 2.5 * transforms
    best = min(cost, key=cost.__getitem__)
    gain = cost[best] / direct
    return best if gain < 0.85 else None, f"predicted {gain:.2f} of a direct convolution's time"


def _register_tile(matrices, in_blocks, out_blocks, tiles, lanes, hardware):
    """Rows and vectors of the products' register tile, and whether the weights come from memory."""
    streamed = matrices * in_blocks * out_blocks * lanes**2 * 4 > hardware.l2_kib * 1024
    tile = scheduling.register_tile(tiles, out_blocks, lanes, hardware, streamed=streamed)
    return *tile, streamed


def pack(kernel, in_lanes, out_lanes, tile, batch, out_height, out_width, hardware):
    """[O, I, 3, 3] -> G w G^T as [m+2, n+2, O/(co*v), ceil(I/ci), ci, v, co]: in float64, rounded once."""
    out_channels, in_channels = kernel.shape[:2]
    out_blocks, in_blocks = -(-out_channels // out_lanes), -(-in_channels // in_lanes)
    rows, columns = tile[0] + 2, tile[1] + 2
    tiles = batch * -(-out_height // tile[0]) * -(-out_width // tile[1])
    _, vectors, _ = _register_tile(rows * columns, in_blocks, out_blocks, tiles, out_lanes, hardware)
    missing = (0, out_blocks * out_lanes - out_channels), (0, in_blocks * in_lanes - in_channels), (0, 0), (0, 0)
    g, h = (MATRICES[m][1] for m in tile)
    transformed = np.einsum("ak,oikl,bl->aboi", g, np.pad(kernel, missing).astype(np.float64), h, optimize=True)
    panels = (rows, columns, out_blocks // vectors, vectors, out_lanes, in_blocks, in_lanes)
    return np.ascontiguousarray(transformed.astype(np.float32).reshape(panels).transpose(0, 1, 2, 5, 6, 3, 4))


def compute(data, weight, *, padding, tile):
    """Define the convolution; `padding` is (top, left, bottom, right), `tile` is (m, n)."""
    batch, in_blocks, height, width, lanes = (int(d) for d in data.shape)
    edge_h, edge_w, panels, _, in_lanes, vectors, out_lanes = (int(d) for d in weight.shape)
    out_blocks = panels * vectors
    top, left, bottom, right = padding
    out_h, out_w = height + top + bottom - 2, width + left + right - 2
    tile_h, tile_w = tile
    rows, columns = -(-out_h // tile_h), -(-out_w // tile_w)
    tiles = batch * rows * columns
    (into_h, _, out_of_h), (into_w, _, out_of_w) = (MATRICES[m] for m in tile)
    part = scheduling.part(NAME)

    def padded(n, c, h, w, v):
        inside = tirx.all(h >= top, h < height + top, w >= left, w < width + left)
        value = data[n, c, tirx.max(tirx.min(h - top, height - 1), 0), tirx.max(tirx.min(w - left, width - 1), 0), v]
        return tirx.if_then_else(inside, value, tirx.const(0, data.dtype))

    pad = te.compute((batch, in_blocks, rows * tile_h + 2, columns * tile_w + 2, lanes), padded, name="pad")

    def at(p):
        return p // (rows * columns), p // columns % rows * tile_h, p % columns * tile_w

    def column(c, p, i, j, v):
        n, h, w = at(p)
        return _row(into_h, i, lambda r: pad[n, c, h + r, w + j, v])

    half = te.compute((in_blocks, tiles, edge_h, edge_w, lanes), column, name="transform_columns", attrs=part)
    transformed = te.compute(
        (edge_h, edge_w, in_blocks, tiles, lanes),
        lambda i, j, c, p, v: _row(into_w, j, lambda r: half[c, p, i, r, v]),
        name="transform_rows",
        attrs=part,
    )
    c, v = te.reduce_axis((0, in_blocks), name="c"), te.reduce_axis((0, in_lanes), name="v")
    product = te.compute(
        (edge_h, edge_w, out_blocks, tiles, out_lanes),
        lambda i, j, o, p, oi: te.sum(
            transformed[i, j, c, p, v] * weight[i, j, o // vectors, c, v, o % vectors, oi], axis=[c, v]
        ),
        name="winograd",
        attrs=scheduling.anchor(NAME),
    )
    half_out = te.compute(
        (out_blocks, tiles, tile_h, edge_w, out_lanes),
        lambda o, p, i, j, oi: _row(out_of_h, i, lambda r: product[r, j, o, p, oi]),
        name="output_columns",
        attrs=part,
    )
    whole = te.compute(
        (out_blocks, tiles, tile_h, tile_w, out_lanes),
        lambda o, p, i, j, oi: _row(out_of_w, j, lambda r: half_out[o, p, i, r, oi]),
        name="output_rows",
        attrs=part,
    )
    return te.compute(
        (batch, out_blocks, out_h, out_w, out_lanes),
        lambda n, o, h, w, oi: whole[o, (n * rows + h // tile_h) * columns + w // tile_w, h % tile_h, w % tile_w, oi],
        name="untile",
        attrs=part,
    )


def _row(matrix, index, element):
    """sum_r matrix[index, r] element(r) for a symbolic row: selects that vanish once its loop is unrolled."""
    result = None
    for number, factors in enumerate(matrix):
        total = None
        for r, factor in enumerate(factors):
            if factor == 0:
                continue
            term = element(r) if factor == 1 else element(r) * tirx.const(float(factor), "float32")
            total = term if total is None else total + term
        result = total if result is None else tirx.Select(index == number, total, result)
    return result


def schedule(sch, block, hardware):
    """Three passes: tiles into the transform's domain, the products, and back with the epilogue."""
    edge_h, edge_w, out_blocks, tiles, lanes, in_blocks, in_lanes = scheduling.extents(sch, block)
    flops = scheduling.flops(sch, block)
    rows_in = scheduling.producer(sch, block, "transform_rows")
    columns_in = scheduling.producer(sch, rows_in, "transform_columns")
    columns_out = sch.get_consumers(block)[0]
    rows_out = sch.get_consumers(columns_out)[0]
    untile = sch.get_consumers(rows_out)[0]
    epilogue = scheduling.epilogue(sch, untile)
    sch.compute_inline(untile)

    i, j, c, p, v = sch.get_loops(rows_in)
    sch.reorder(c, p, i, j, v)
    sch.compute_at(columns_in, i, preserve_unit_loops=True)
    scheduling.in_vectors(sch, columns_in, 1)
    scheduling.in_vectors(sch, rows_in, 2)
    scheduling.parallel(sch, [c, p], flops // 10, hardware)

    i, j, o, p, lane, c, v = sch.get_loops(block)
    rows, vectors, _ = _register_tile(edge_h * edge_w, in_blocks, out_blocks, tiles, lanes, hardware)
    oo, vector = sch.split(o, [None, vectors])
    po, row = sch.split(p, [None, rows])
    sch.reorder(i, j, oo, po, c, v, row, vector, lane)
    if tiles % rows:
        sch.annotate(po, "pragma_loop_partition_hint", 1)
    store = sch.cache_write(block, 0, "global")
    sch.reverse_compute_at(store, po, preserve_unit_loops=True)
    scheduling.in_vectors(sch, store, 2)
    loads = scheduling.operand_in_registers(sch, block, 0, c, hardware)
    if in_lanes <= 16:
        sch.unroll(v)
    for loop in (row, vector):
        sch.unroll(loop)
    sch.vectorize(lane)
    scheduling.parallel(sch, [i, j, oo], flops, hardware)
    scheduling.decompose_reduction(sch, block, c)

    tile_h, tile_w = scheduling.extents(sch, rows_out)[2:4]
    n, o, h, w, lane = sch.get_loops(epilogue)
    ho, hi = sch.split(h, [None, tile_h])
    wo, wi = sch.split(w, [None, tile_w])
    sch.reorder(n, o, ho, wo, hi, wi, lane)
    sch.compute_at(rows_out, hi, preserve_unit_loops=True)
    sch.compute_at(columns_out, hi, preserve_unit_loops=True)
    for each in (columns_out, rows_out):
        scheduling.in_vectors(sch, each, 1)
    sch.vectorize(lane)
    sch.unroll(wi)
    sch.unroll(hi)
    scheduling.parallel(sch, [n, o, ho, wo], flops // 10, hardware)
    decision = f"F({tile_h}x{tile_w},3x3) tile {rows}x{vectors}"
    return [block, store, *loads, rows_in, columns_in, columns_out, rows_out, epilogue], decision
