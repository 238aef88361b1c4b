"""Depthwise convolution on channel-blocked tensors: one filter per channel, lanes are channels.

    y[n, c, h, w, l] = sum_{kh, kw} x[n, c, h*sh + kh*dh - pt, w*sw + kw*dw - pl, l] * W[c, kh, kw, l]

x is [N, C/l, H, W, l], W is [C/l, KH, KW, l]. The work is bound by loads: a tile of columns shares each weight vector.

Of integers, `group` neighbouring columns share words of neighbouring elements, of which each has its own weights:

    y[n, c, h, g J + j, l] = sum_{kh, q} X[n, c, h*sh + kh*dh, g, q, l] . V[c, kh, j, q, l]
    X[n, c, h, g, q, l][t] = x[n, c, h, g J sw + q size + t, l]
    V[c, kh, j, q, l][t] = W[c, kh, q size + t - j sw, l]
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx, topi

NAME = "depthwise_conv2d"


def pack(kernel, lanes):
    """[C, 1, KH, KW] -> [ceil(C/l), KH, KW, l], zeros where channels are missing."""
    channels, _, height, width = kernel.shape
    blocks = -(-channels // lanes)
    padded = np.pad(kernel, ((0, blocks * lanes - channels), (0, 0), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(blocks, lanes, height, width).transpose(0, 2, 3, 1))


def group(width, stride, dot):
    """How many columns share words, and how many words: as few as can be, of as many columns as can be."""
    words, columns = min((-(-((j - 1) * stride + width) // dot.size), -j) for j in range(1, dot.size + 1))
    return -columns, words


def pack_words(kernel, lanes, stride, dilation, dot):
    """[C, 1, KH, KW] -> V as [ceil(C/l), KH, J, Q, l * size]; between dilated columns there are zeros."""
    dense = np.zeros((*kernel.shape[:3], (kernel.shape[3] - 1) * dilation + 1), kernel.dtype)
    dense[..., ::dilation] = kernel
    spread = pack(dense, lanes)
    blocks, height, width, _ = spread.shape
    columns, words = group(width, stride, dot)
    shifted = np.zeros((blocks, height, columns, words * dot.size, lanes), spread.dtype)
    for j in range(columns):
        shifted[:, :, j, j * stride : j * stride + width] = spread
    return dot.words(shifted, 3)


def compute_words(data, weight, *, strides, padding, dilation, dot, zero, size):
    """Define the convolution of integers; `size` is (OH, OW), `zero` is around x."""
    batch, blocks, height, width, lanes = (int(d) for d in data.shape)
    _, kernel_h, columns, words, _ = (int(d) for d in weight.shape)
    data = scheduling.widened(data, dot)
    groups = -(-size[1] // columns)  # of the last, some columns may be no one's
    covered = (groups - 1) * columns * strides[1] + words * dot.size
    top, left, bottom, _ = padding
    right = max(0, covered - left - width)
    value = tirx.const(zero, data.dtype)
    data = topi.nn.pad(data, [0, 0, top, left, 0], [0, 0, bottom, right, 0], pad_value=value, name="pad")
    rows = height + top + bottom

    def word(n, c, h, g, q, place):
        lane, t = dot.member(place, lanes)
        return data[n, c, h, g * columns * strides[1] + q * dot.size + t, lane]

    packed = te.compute(
        (batch, blocks, rows, groups, words, lanes * dot.size), word, name="words", attrs=scheduling.part(NAME)
    )
    kh = te.reduce_axis((0, kernel_h), name="kh")
    q = te.reduce_axis((0, words), name="q")

    def product(n, c, h, w, i):
        return dot.lanewise(
            lambda at: packed[n, c, h * strides[0] + kh * dilation[0], w // columns, q, at],
            lambda at: weight[c, kh, w % columns, q, at],
            i,
            lanes,
        )

    return te.compute(
        (batch, blocks, *size, lanes),
        lambda *at: te.sum(product(*at), axis=[kh, q]),
        name="depthwise_conv2d",
        attrs={**scheduling.anchor(NAME), "columns": columns},
    )


def compute(data, weight, *, strides, padding, dilation):
    """Define the convolution; `padding` is (top, left, bottom, right)."""
    batch, blocks, _, _, lanes = (int(d) for d in data.shape)
    _, kernel_h, kernel_w, _ = (int(d) for d in weight.shape)
    data, (out_h, out_w) = scheduling.padded(data, (kernel_h, kernel_w), strides, padding, dilation)
    kh = te.reduce_axis((0, kernel_h), name="kh")
    kw = te.reduce_axis((0, kernel_w), name="kw")
    return te.compute(
        (batch, blocks, out_h, out_w, lanes),
        lambda n, c, h, w, i: te.sum(
            data[n, c, h * strides[0] + kh * dilation[0], w * strides[1] + kw * dilation[1], i] * weight[c, kh, kw, i],
            axis=[kh, kw],
        ),
        name="depthwise_conv2d",
        attrs=scheduling.anchor(NAME),
    )


def schedule(sch, block, hardware, choose):
    """Tile the columns, unroll the filter, vectorize the channel lanes, spread (batch, blocks, rows) over threads.

    Padding is no memory: the first and the last tile of a row are loops of their own, in which LLVM knows what lies
    outside, and of a row outside nothing is read. Words, with their padding, are made for a few rows at a time, which
    then lie in the first-level cache.
    """
    epilogue = scheduling.epilogue(sch, block)
    words = next((p for p in sch.get_producers(block) if sch.get(p).name_hint == "words"), None)
    n, c, h, w, _ = sch.get_loops(epilogue)
    extents = scheduling.extents(sch, epilogue)
    each = int(sch.get(block).annotations["columns"]) if words is not None else 1
    even = scheduling.even_tile(extents[3], 8 if extents[4] * 32 <= hardware.vector_bits else 4)
    sizes = [size for size in [even, *range(1, 17)] if size <= extents[3]]
    if words is not None:
        sizes = [-(-size // each) * each for size in sizes]
    columns = choose("columns", dict.fromkeys(sizes))
    strips = [size for size in range(1, extents[2] + 1) if extents[2] % size == 0]
    most = min(8, _rows_in_cache(sch, words, extents[2], hardware)) if words is not None else 8
    strip = max(size for size in strips if size <= most)
    ho, _ = sch.split(h, [None, choose("strip", dict.fromkeys([strip, *strips]))])
    wo, _ = sch.split(w, [None, columns])
    pads = [p for p in sch.get_producers(block if words is None else words) if scheduling.is_padding(sch, p)]
    inside = words is None and pads != [] and choose("padding", ["inside", "copied"]) == "inside"
    if inside or extents[3] % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    sch.compute_at(block, wo, preserve_unit_loops=True)
    placed = [block, epilogue]
    if words is not None:
        sch.compute_at(words, ho, preserve_unit_loops=True)
        sch.vectorize(sch.get_loops(words)[-1])
        placed.append(words)
    for pad in pads:
        if inside:
            sch.compute_inline(pad)
        elif sch.get_producers(pad) == []:
            sch.compute_at(pad, ho, preserve_unit_loops=True)
            sch.vectorize(sch.get_loops(pad)[-1])
            placed.append(pad)
    scheduling.parallel(sch, [n, c, ho], scheduling.flops(sch, block), hardware, choose)
    scheduling.in_vectors(sch, epilogue, 1)
    tn, tc, th, tw, lanes, kh, kw = sch.get_loops(block)[-7:]
    sch.reorder(tn, tc, th, kh, kw, tw, lanes)
    small = scheduling.extent(sch, kh) * scheduling.extent(sch, kw) <= 25
    unrolled = choose("unroll", ["window", "row", "none"] if small else ["none", "row"])
    if unrolled == "window":
        sch.unroll(kh)
    if unrolled != "none":
        sch.unroll(kw)
    sch.unroll(tw)
    sch.vectorize(lanes)
    scheduling.decompose_reduction(sch, block, kh)
    return placed, f"tile 1x{columns}"


def _rows_in_cache(sch, words, height, hardware):
    """How many rows of y may be made at a time for their words to stay in the first-level cache."""
    rows, groups, count, row = scheduling.extents(sch, words)[2:]
    each = groups * count * row * np.dtype(str(sch.get(words).writes[0].source.dtype)).itemsize
    stride = max(1, rows // max(1, height))
    return max(1, (hardware.l1_kib * 768 // each - (rows - stride * height)) // stride)
