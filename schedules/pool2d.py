"""Pooling on channel-blocked tensors: lanes are channels.

    y[n, c, h, w, l] = max_{kh, kw} x[n, c, h*sh + kh*dh - pt, w*sw + kw*dw - pl, l]

or the sum over the same times scale[h, w], one over the number of elements that count. x is [N, C/l, H, W, l]. A tile
of columns shares what its windows have in common. Large windows are pooled along their rows first and then along
columns, KH + KW steps for KH*KW.

A window that reaches over the border has its maximum inside: indices are clamped, which takes elements of the border
more than once.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx

NAME = "pool2d"
ROWS = "pool_rows"
_LARGE = 16
"""Elements of a window from which two passes pay."""


def scales(shape, kernel, strides, dilation, padding, size, count_padding):
    """One over the elements that each average counts, [OH, OW]: those in the image, or in its padding too."""
    counts = []
    for axis in (0, 1):
        before, after = (padding[axis], padding[axis + 2]) if count_padding else (0, 0)
        taps = np.arange(size[axis])[:, None] * strides[axis] + np.arange(kernel[axis]) * dilation[axis] - padding[axis]
        counts.append(((taps >= -before) & (taps < shape[axis] + after)).sum(axis=1))
    return (1 / np.maximum(np.outer(*counts), 1)).astype(np.float32)


def compute(data, *scale, kernel, strides, dilation, padding, size):
    """Define maxima, or averages where there is a `scale`, of `size`; `padding` is (top, left, bottom, right)."""
    batch, blocks, *shape, lanes = (int(d) for d in data.shape)
    before = list(padding[:2])
    ends = [(size[a] - 1) * strides[a] + (kernel[a] - 1) * dilation[a] + 1 - before[a] for a in (0, 1)]
    after = [max(0, ends[a] - shape[a]) for a in (0, 1)]
    meets = [before[a] < kernel[a] and (size[a] - 1) * strides[a] - before[a] < shape[a] for a in (0, 1)]
    clamped = not scale and tuple(dilation) == (1, 1) and all(meets)
    if any((*before, *after)) and not clamped:
        data = _pad(data, before, after, 0.0 if scale else float(np.finfo(np.float32).min))
        before = after = [0, 0]

    def inside(axis, index):
        index = te.max(index - before[axis], 0) if before[axis] else index
        return te.min(index, shape[axis] - 1) if after[axis] else index

    def at(axis, place, k):
        return place * strides[axis] + k * dilation[axis]

    reduce = te.sum if scale else te.max
    kh, kw = (te.reduce_axis((0, kernel[axis]), name=name) for axis, name in enumerate(("kh", "kw")))
    out = (batch, blocks, *size, lanes)
    anchor = scheduling.anchor(NAME)
    if kernel[0] * kernel[1] >= _LARGE and min(kernel) > 1:
        rows = te.compute(
            (batch, blocks, at(0, size[0] - 1, kernel[0] - 1) + 1, size[1], lanes),
            lambda n, c, h, w, i: reduce(data[n, c, inside(0, h), inside(1, at(1, w, kw)), i], axis=[kw]),
            name=ROWS,
            attrs=scheduling.part(NAME),
        )
        result = te.compute(
            out, lambda n, c, h, w, i: reduce(rows[n, c, at(0, h, kh), w, i], axis=[kh]), name="pool", attrs=anchor
        )
    else:
        result = te.compute(
            out,
            lambda n, c, h, w, i: reduce(
                data[n, c, inside(0, at(0, h, kh)), inside(1, at(1, w, kw)), i], axis=[kh, kw]
            ),
            name="pool",
            attrs=anchor,
        )
    if not scale:
        return result
    return te.compute(out, lambda n, c, h, w, i: result[n, c, h, w, i] * scale[0][h, w], name="average")


def _pad(data, before, after, value):
    batch, blocks, height, width, lanes = data.shape

    def element(n, c, h, w, i):
        inside = tirx.all(h >= before[0], h < height + before[0], w >= before[1], w < width + before[1])
        return tirx.if_then_else(inside, data[n, c, h - before[0], w - before[1], i], tirx.const(value, data.dtype))

    shape = batch, blocks, height + before[0] + after[0], width + before[1] + after[1], lanes
    return te.compute(shape, element, name="pad")


def schedule(sch, block, hardware):
    """Tile the columns, unroll the window, vectorize the channel lanes, spread (batch, blocks, rows) over threads.

    What goes before, padding and rows, is made for a few rows at a time, which then lie in the first-level cache.
    """
    work = scheduling.flops(sch, block) // 2
    epilogue = scheduling.epilogue(sch, block)
    n, c, h, w, _ = sch.get_loops(epilogue)
    extents = scheduling.extents(sch, epilogue)
    columns = scheduling.even_tile(extents[3], 8 if extents[4] * 32 <= hardware.vector_bits else 4)
    ho, _ = sch.split(h, [None, max(size for size in range(1, 9) if extents[2] % size == 0)])
    wo, _ = sch.split(w, [None, columns])
    if extents[3] % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    sch.compute_at(block, wo, preserve_unit_loops=True)
    placed = [block, epilogue]
    before, rows = sch.get_producers(block), None
    while before:
        (producer,) = before
        before = sch.get_producers(producer)
        sch.compute_at(producer, ho, preserve_unit_loops=True)
        placed.append(producer)
        if scheduling.is_spatial(sch, producer):
            sch.vectorize(sch.get_loops(producer)[-1])
        else:
            rows = producer
            work += scheduling.flops(sch, producer) // 2
    scheduling.parallel(sch, [n, c, ho], work, hardware)
    if rows is not None:
        *_, lane, k = sch.get_loops(rows)
        _window(sch, rows, [k], [lane])
    scheduling.in_vectors(sch, epilogue, 1)
    loops = sch.get_loops(block)
    window = loops[-len(sch.get(block).iter_vars) + 5 :]
    column, lane = loops[-len(window) - 2 : -len(window)]
    _window(sch, block, window, [column, lane])
    return placed, f"tile 1x{columns}{' after rows' if rows is not None else ''}"


def _window(sch, block, window, tile):
    """The loops of a `window` outside of those of a `tile`, all of them unrolled and the last one vectorized."""
    sch.reorder(*window, *tile)
    for loop in (*(window if np.prod([scheduling.extent(sch, k) for k in window]) <= 25 else []), *tile[:-1]):
        sch.unroll(loop)
    sch.vectorize(tile[-1])
    scheduling.decompose_reduction(sch, block, window[0])
