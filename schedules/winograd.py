"""Winograd's convolution F(m x n, 3x3) on channel-blocked tensors: m and n are 2 or 4, with stride 2 both are 2.

    Y = A_m^T [ sum_c (G_m w_c G_n^T) * (B_m^T d_c B_n) ] A_n

(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016). Each tile of e*f inputs, e = m+2 and
f = n+2, gives m*n outputs: 36 products for 16 outputs (m = n = 4) where a direct convolution takes 144. The elementwise
products of all tiles are e*f matrix products over the channels, register-tiled as in conv2d. Weights are transformed at
compile time.

With stride 2 (e = f = 5), the first and third weight of a row meet the even inputs, as a window of two with stride 1
does, which takes three products for two outputs; the second meets the odd ones: five products where there were six, and
25 in two dimensions for 4 outputs that take 36 directly.

x is [N, C/l, H, W, l], U is [e, f, O/l, C/l, l, l] (input lanes, output lanes), y is [N, O/l, OH, OW, l]. The schedule
lays U out so that the vectors of a register tile come in one stream.
Of integers, x and w as integers of 16 bits, the transforms are exact but for their denominators, which come last:

    s_m s_n Y = A'_m^T [ sum_c (G'_m w_c G'_n^T) * (B_m^T d_c B_n) ] A'_n      G'_m = R G_m, A'_m = s_m R^-1 A_m

R = diag(`SCALES`[m]) makes G' whole, and A' as good as A; s_2 = 2, s_4 = 24. All of it is computed modulo 2^32, where
s = 2^k q, q odd, has an inverse of q: what remains is a shift by k, exact wherever |Y| < 2^(31 - k), which `exact` asks
of the weights.

Rounding errors grow by the transforms' sums: about 3 (m = n = 2) to 20 (m = n = 4) times those of a direct
convolution; `ERROR` bounds them, and each kernel's decision states it.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "winograd"

MATRICES = {
    (2, 1): (
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], np.float64),
        np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float64),
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]], np.float64),
    ),
    (4, 1): (
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
    (2, 2): (
        np.array(
            [[1, 0, -1, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, -1]],
            np.float64,
        ),
        np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 1]], np.float64),
        np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, -1]], np.float64),
    ),
}
"""B^T, G and A^T by (m, stride)."""


SCALES = {2: (2, 2, 2, 2), 4: (24, 24, 24, 24, 24, 12)}
"""By m: what the rows of G are multiplied by to be whole, and to leave few factors to A': as much as keeps transformed
weights, up to 12 * 12 * 128, in 16 bits."""
DENOMINATORS = {2: 2, 4: 24}
"""By m: the least number that all of `SCALES` divide."""
ERROR = {(2, 2): 2e-6, (2, 4): 1e-5, (4, 4): 2e-5}
"""By (m, n): the largest error of an output, over the largest output (tests/test_winograd.py)."""
_WORTH = {True: 0.85, False: 0.8}
"""Of a direct convolution's time, what one of floats, or of integers, takes at most. Measured with VNNI in ResNet-18:
integers, 256 channels on 14x14 pixels, take 1.06 to 1.15 times as long as directly where 0.84 is predicted, as 5 MB of
weights come from beyond the second-level cache each time."""
TILES = {1: tuple(ERROR), 2: ((2, 2),)}
"""By stride, (m, n)."""


class Numbers(NamedTuple):
    """What is multiplied."""

    word: int
    """Products that one multiply-add of a lane takes."""
    data_bytes: int
    """Of a transformed activation, and of a transformed weight."""
    direct_word: int
    """Products that one multiply-add of a direct convolution takes."""
    direct_bytes: int
    """Of a weight of a direct convolution."""


FLOATS = Numbers(1, 4, 1, 4)


def integers(dot):
    """The numbers of a convolution of integers, directly by `dot`."""
    return Numbers(2, 2, dot.size, np.dtype(dot.weight).itemsize)


def exact(kernel, tile):
    """Whether a convolution of bytes by `kernel` is computed exactly: its results are not too large."""
    shift = _denominator(tile)[1]
    largest = 255 * np.abs(kernel.astype(np.int64)).sum(axis=(1, 2, 3)).max(initial=0)
    return bool(largest < 1 << (31 - shift))


def _denominator(tile):
    """The inverse of the odd part of s_m s_n modulo 2^32, and the power of two in it."""
    scale = prod(DENOMINATORS[m] for m in tile)
    shift = (scale & -scale).bit_length() - 1
    return pow(scale >> shift, -1, 1 << 32), shift


class Plan(NamedTuple):
    """How one convolution runs."""

    tile: tuple[int, int]
    """(m, n)."""
    strip: int
    """Rows of tiles that go through all three steps at once, a divisor of the image's: they stay in the cache."""
    cost: float
    """Predicted vector multiply-adds of one core that would take as long."""

    def __str__(self):
        return f"winograd {self.tile[0]}x{self.tile[1]}, {self.strip} rows of tiles"


def choose(kernel_shape, strides, dilation, batch, out_height, out_width, lanes, hardware, numbers=FLOATS):
    """The plan that is predicted to be fastest, None for a direct convolution, and the reason.

    A direct convolution takes as long as its register tiles over a row of outputs do, of which a short row wastes some,
    or as its weights take to come from memory. Transformed weights are e*f/9 times larger, which is what small images
    pay. They also make the library larger: a gain of less than 15 % is not worth that, and of integers, whose weights
    become eight times as large, one of less than 20 %.
    """
    reason = _unfit(kernel_shape, strides, dilation, lanes, numbers)
    if reason:
        return None, reason
    out_blocks, in_blocks = (-(-channels // lanes) for channels in kernel_shape[:2])
    size = batch, out_height, out_width
    products = in_blocks * out_blocks * lanes
    slower = scheduling.tiled_cost(out_width, out_blocks, lanes, hardware)
    direct = max(
        products * 9 * prod(size) * slower / numbers.direct_word,
        _fetching(products * lanes * 9 * numbers.direct_bytes, lanes, hardware),
    )
    stride = strides[0]
    plans = (plan(tile, in_blocks, out_blocks, size, lanes, hardware, numbers, stride) for tile in TILES[stride])
    best = min(plans, key=lambda p: p.cost)
    gain = best.cost / direct
    return best if gain < _WORTH[numbers is FLOATS] else None, f"predicted {gain:.2f} of a direct convolution's time"


def ways(kernel_shape, strides, dilation, batch, out_height, out_width, lanes, hardware, numbers=FLOATS):
    """The ways that may be fastest: plans, and None for a direct convolution; first the one that is predicted to be.

    Of each (m, n) there is the best plan and, where that one has strips, the one without.
    """
    best, _ = choose(kernel_shape, strides, dilation, batch, out_height, out_width, lanes, hardware, numbers)
    if _unfit(kernel_shape, strides, dilation, lanes, numbers):
        return [best]
    blocks = [-(-channels // lanes) for channels in kernel_shape[1::-1]]
    size, stride = (batch, out_height, out_width), strides[0]
    found = [plan(tile, *blocks, size, lanes, hardware, numbers, stride) for tile in TILES[stride]]
    whole = [p._replace(strip=-(-out_height // p.tile[0])) for p in found]
    return list(dict.fromkeys([best, *found, *whole, None]))


def _unfit(kernel_shape, strides, dilation, lanes, numbers):
    """Why Winograd's convolution is out of the question; empty where it is not."""
    out_channels, in_channels, *window = kernel_shape
    if tuple(window) != (3, 3):
        return f"the window is {window[0]}x{window[1]}, Winograd's 3x3"
    if tuple(strides) not in ((1, 1), (2, 2)) or tuple(dilation) != (1, 1):
        return "Winograd needs stride 1 or 2 and dilation 1"
    if strides[0] > 1 and numbers is not FLOATS:
        return "of integers, Winograd needs stride 1"
    return "too few channels for the transforms to pay" if min(in_channels, out_channels) < 2 * lanes else ""


def plan(tile, in_blocks, out_blocks, size, lanes, hardware, numbers=FLOATS, stride=1):
    """The strips that are predicted to be fastest for one (m, n); `size` is (batch, height, width) of the output.

    Counted are the products as `tile_cost` says, or the time in which their weights, once a strip, come from beyond
    the second-level cache where they do not fit half of it; two and a half for each vector operation of the transforms;
    what of a strip's transformed tensors does not fit the other half, written and read again; and cores without a
    strip.
    """
    batch, height, width = size
    down, across = -(-height // tile[0]), -(-width // tile[1])
    matrices = prod(len(MATRICES[m, stride][0]) for m in tile)
    weights = matrices * in_blocks * out_blocks * lanes**2 * numbers.data_bytes
    transforms = batch * down * across * (3 * in_blocks * matrices + out_blocks * (2 * matrices + 2 * prod(tile)))
    best = None
    for strip in range(down, 0, -1):
        if down % strip:
            continue
        strips, tiles = batch * down // strip, strip * across
        slower = scheduling.tiled_cost(tiles, out_blocks, lanes, hardware, streamed=_streamed(weights, hardware))
        products = matrices * in_blocks * out_blocks * lanes * strips * tiles * slower / numbers.word
        products = max(products, _fetching(weights * strips, lanes, hardware, weights))
        transformed = matrices * (in_blocks * numbers.data_bytes + out_blocks * 4) * tiles * lanes
        spilled = 2 * strips * _fetching(transformed, lanes, hardware)
        idle = 1.0 if strips == 1 else -(-strips // hardware.cores) * hardware.cores / strips
        cost = (products + 2.5 * transforms + spilled) * idle
        if best is None or cost < best.cost:
            best = Plan(tuple(tile), strip, cost)
    return best


def _streamed(weights, hardware):
    """Whether so many bytes of transformed weights come from beyond the second-level cache."""
    return weights > hardware.l2_kib * 1024


def _fetching(nbytes, lanes, hardware, once=None):
    """The vector multiply-adds that take as long as bytes from beyond the second-level cache, of which half is free.

    What fits there `once`, by default as a whole, comes only once.
    """
    half = hardware.l2_kib * 1024 // 2
    missing = max(0, nbytes - half) if once is None else nbytes if once > half else 0
    return missing / hardware.bytes_per_flop / (2 * lanes)


def pack(kernel, in_lanes, out_lanes, tile, stride=1):
    """[O, I, 3, 3] -> G w G^T as [e, f, O/co, ceil(I/ci), ci, co]: in float64, rounded once."""
    out_channels, in_channels = kernel.shape[:2]
    out_blocks, in_blocks = -(-out_channels // out_lanes), -(-in_channels // in_lanes)
    missing = (0, out_blocks * out_lanes - out_channels), (0, in_blocks * in_lanes - in_channels), (0, 0), (0, 0)
    g, h = (MATRICES[m, stride][1] for m in tile)
    transformed = np.einsum("ak,oikl,bl->aboi", g, np.pad(kernel, missing).astype(np.float64), h, optimize=True)
    blocks = (len(g), len(h), out_blocks, out_lanes, in_blocks, in_lanes)
    return np.ascontiguousarray(transformed.astype(np.float32).reshape(blocks).transpose(0, 1, 2, 4, 5, 3))


def pack_integers(kernel, in_lanes, out_lanes, tile, dot):
    """[O, I, 3, 3] of integers -> G' w G'^T as [e, f, O/co, ceil(I/ci), ci/size, co*size]; stride 1."""
    scaled = [np.asarray(SCALES[m])[:, None] * MATRICES[m, 1][1] for m in tile]
    out_channels, in_channels = kernel.shape[:2]
    out_blocks, in_blocks = -(-out_channels // out_lanes), -(-in_channels // in_lanes)
    missing = (0, out_blocks * out_lanes - out_channels), (0, in_blocks * in_lanes - in_channels), (0, 0), (0, 0)
    g, h = (np.rint(matrix).astype(np.int64) for matrix in scaled)
    transformed = np.einsum("ak,oikl,bl->aboi", g, np.pad(kernel, missing).astype(np.int64), h, optimize=True)
    blocks = (len(g), len(h), out_blocks, out_lanes, in_blocks, in_lanes)
    return dot.words(np.ascontiguousarray(transformed.reshape(blocks).transpose(0, 1, 2, 4, 5, 3)), 4)


def compute(data, weight, *, padding, tile, strip, stride=1, task="", dot=None, zero=0):
    """Define the convolution; `padding` is (top, left, bottom, right), `tile` and `strip` are the plan's.

    `dot` says how integers of 16 bits are multiplied, `zero` is what lies around them.
    """
    batch, in_blocks, height, width, lanes = (int(d) for d in data.shape)
    edge_h, edge_w, out_blocks, _, in_lanes, out_lanes = (int(d) for d in weight.shape)
    dtype = data.dtype
    if dot is not None:
        dtype, in_lanes, out_lanes = dot.data, lanes // dot.size, out_lanes // dot.size
    top, left, bottom, right = padding
    out_h, out_w = (height + top + bottom - 3) // stride + 1, (width + left + right - 3) // stride + 1
    tile_h, tile_w = tile
    step_h, step_w = tile_h * stride, tile_w * stride
    strips, across = -(-out_h // (tile_h * strip)), -(-out_w // tile_w)
    tiles = strip * across
    (into_h, _, out_of_h), (into_w, _, out_of_w) = (MATRICES[m, stride] for m in tile)
    if dot is not None:
        out_of_h, out_of_w = (MATRICES[m, 1][2] * DENOMINATORS[m] / SCALES[m] for m in tile)
    part = scheduling.part(NAME)

    def padded(q, c, h, w, v):
        row = q % strips * (strip * step_h) + h - top
        value = data[q // strips, c, row, w - left, v].astype(dtype)
        inside = tirx.all(row >= 0, row < height, w >= left, w < width + left)
        return tirx.if_then_else(inside, value, tirx.const(zero, dtype))

    pad = te.compute(
        (batch * strips, in_blocks, strip * step_h + edge_h - step_h, across * step_w + edge_w - step_w, lanes),
        padded,
        name="pad",
        attrs=part,
    )
    half = te.compute(
        (batch * strips, in_blocks, tiles, edge_h, edge_w, lanes),
        lambda q, c, p, i, j, v: scheduling.row_of(
            into_h, i, lambda r: pad[q, c, p // across * step_h + r, p % across * step_w + j, v]
        ),
        name="transform_columns",
        attrs=part,
    )
    transformed = te.compute(
        (batch * strips, edge_h, edge_w, in_blocks, tiles, lanes),
        lambda q, i, j, c, p, v: scheduling.row_of(into_w, j, lambda r: half[q, c, p, i, r, v]),
        name="transform_rows",
        attrs=part,
    )
    c, v = te.reduce_axis((0, in_blocks), name="c"), te.reduce_axis((0, in_lanes), name="v")

    def multiplied(q, i, j, o, p, oi):
        if dot is None:
            return transformed[q, i, j, c, p, v] * weight[i, j, o, c, v, oi]
        values, weights = (
            lambda t: transformed[q, i, j, c, p, v * dot.size + t],
            lambda at: weight[i, j, o, c, v, at],
        )
        return dot.product(values, weights, oi, out_lanes)

    product = te.compute(
        (batch * strips, edge_h, edge_w, out_blocks, tiles, out_lanes),
        lambda *at: te.sum(multiplied(*at), axis=[c, v]),
        name="winograd",
        attrs=scheduling.anchor(NAME, task),
    )

    def summed(*at):
        """Modulo 2^32; signed integers may not wrap."""
        return product[at] if dot is None else product[at].astype("uint32")

    half_out = te.compute(
        (batch * strips, out_blocks, tiles, tile_h, edge_w, out_lanes),
        lambda q, o, p, i, j, oi: scheduling.row_of(out_of_h, i, lambda r: summed(q, r, j, o, p, oi)),
        name="output_columns",
        attrs=part,
    )
    whole = te.compute(
        (batch * strips, out_blocks, tiles, tile_h, tile_w, out_lanes),
        lambda q, o, p, i, j, oi: scheduling.row_of(out_of_w, j, lambda r: half_out[q, o, p, i, r, oi]),
        name="output_rows",
        attrs=part,
    )

    def untiled(n, o, h, w, oi):
        q, row = n * strips + h // (strip * tile_h), h % (strip * tile_h)
        value = whole[q, o, row // tile_h * across + w // tile_w, row % tile_h, w % tile_w, oi]
        if dot is None:
            return value
        inverse, shift = _denominator(tile)
        product = value * tirx.const(inverse, "uint32") if inverse != 1 else value
        return tirx.shift_right(product.astype("int32"), tirx.const(shift, "int32"))

    return te.compute((batch, out_blocks, out_h, out_w, out_lanes), untiled, name="untile", attrs=part)


def schedule(sch, block, hardware, choose):
    """Strip by strip: tiles into the transform's domain, the products, and back with the epilogue."""
    strips, _, _, blocks, tiles, lanes, *_ = scheduling.extents(sch, block)
    weights = scheduling.operand(sch, block, 1)
    streamed = _streamed(weights.dtype.bits // 8 * prod(int(d) for d in weights.shape), hardware)
    dot = scheduling.dot_in(sch, block, hardware)
    laid = scheduling.laid_out(sch)
    possible = scheduling.register_tiles(tiles, blocks, lanes, hardware, streamed=streamed, dot=dot, laid=laid)
    rows, vectors = choose("tile", possible)
    scheduling.panels(sch, block, 1, 2, vectors)
    flops = scheduling.flops(sch, block)
    rows_in = scheduling.producer(sch, block, "transform_rows")
    columns_in = scheduling.producer(sch, rows_in, "transform_columns")
    pad = scheduling.producer(sch, columns_in, "pad")
    columns_out = sch.get_consumers(block)[0]
    rows_out = sch.get_consumers(columns_out)[0]
    untile = sch.get_consumers(rows_out)[0]
    epilogue = scheduling.epilogue(sch, untile)
    sch.compute_inline(untile)
    tile_h, tile_w = scheduling.extents(sch, rows_out)[3:5]
    stride = ", stride 2" if int(weights.shape[0]) > tile_h + 2 else ""

    n, o, h, w, lane = sch.get_loops(epilogue)
    # The products of all outputs first, or those of a panel of outputs, which then are still in the cache.
    by_panels = choose("output", ["whole", "panel"]) == "panel"
    oo, ob = sch.split(o, [None, vectors])
    strip = None
    if strips > 1:
        outer, h = sch.split(h, [None, tiles // -(-scheduling.extent(sch, w) // tile_w) * tile_h])
        sch.reorder(n, outer, oo, ob, h)
        strip = sch.fuse(n, outer)
    ho, hi = sch.split(h, [None, tile_h])
    wo, wi = sch.split(w, [None, tile_w])
    sch.reorder(oo, ob, ho, wo, hi, wi, lane)
    for each in (rows_out, columns_out):
        sch.compute_at(each, hi, preserve_unit_loops=True)
        scheduling.in_vectors(sch, each, 1)
    sch.vectorize(lane)
    sch.unroll(wi)
    sch.unroll(hi)
    if by_panels:
        sch.compute_at(block, oo, preserve_unit_loops=True)
    elif strip is not None:
        sch.compute_at(block, strip, preserve_unit_loops=True)
    if strip is not None:
        sch.compute_at(rows_in, strip, preserve_unit_loops=True)
        scheduling.parallel(sch, [strip], flops, hardware, choose)
    elif by_panels:
        scheduling.parallel(sch, [n, oo], flops, hardware, choose)
    else:
        scheduling.parallel(sch, [n, oo, ob, ho, wo], flops // 10, hardware, choose)

    i, j, c, p, v = sch.get_loops(rows_in)[-5:]
    sch.reorder(c, p, i, j, v)
    sch.compute_at(columns_in, i, preserve_unit_loops=True)
    sch.compute_at(pad, c, preserve_unit_loops=True)
    scheduling.in_vectors(sch, pad, 0)
    scheduling.in_vectors(sch, columns_in, 1)
    scheduling.in_vectors(sch, rows_in, 2)

    i, j, *_ = sch.get_loops(block)[-7:]
    oo, k, copies = scheduling.tile_products(sch, block, rows, vectors, hardware, choose)
    if strip is None:
        scheduling.parallel(sch, [c], flops // 10, hardware, choose)
        if not by_panels:
            scheduling.parallel(sch, [i, j, oo], flops, hardware, choose)
    scheduling.decompose_reduction(sch, block, k)
    scheduling.fetch_ahead(sch, block, 1, 2, [k], strips * -(-tiles // rows), hardware, choose)
    cut = f" in {strips} strips" if strips > 1 else ""
    error = f", error {ERROR[tile_h, tile_w]:.0e}" if str(weights.dtype) == "float32" else ""
    decision = f"F({tile_h}x{tile_w},3x3{stride}) tile {rows}x{vectors}{cut}{error}"
    return [block, *copies, pad, rows_in, columns_in, columns_out, rows_out, epilogue], decision
