"""Pooling on channel-blocked tensors: lanes are channels.

    y[n, c, h, w, l] = max_{kh, kw} x[n, c, h*sh + kh*dh - pt, w*sw + kw*dw - pl, l]

or the sum over the same times scale[h, w], one over the number of elements that count. x is [N, C/l, H, W, l]. A tile
of columns shares what its windows have in common. Large windows are pooled along their rows first and then along
columns, KH + KW steps for KH*KW.

Integers have their maxima as they are. Averages of (x - zero) step, which are to be rounded to integers, often lie in
the middle of two: they are rounded on the way as those of ONNX Runtime's QLinearAveragePool are, each number by itself,
then their sum one after the other along rows, then that over the number of elements.

A window that reaches over the border has its maximum inside: indices are clamped, which takes elements of the border
more than once.
"""

from __future__ import annotations

import numpy as np

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels.dots import rounded
from nncc.passes.quantization import dequantized

NAME = "pool2d"
_LARGE = 16
"""Elements of a window from which two passes pay."""


def counts(shape, kernel, strides, dilation, padding, size, count_padding):
    """The elements that each average counts, [OH, OW]: those in the image, or in its padding too; at least one."""
    counts = []
    for axis in (0, 1):
        before, after = (padding[axis], padding[axis + 2]) if count_padding else (0, 0)
        taps = np.arange(size[axis])[:, None] * strides[axis] + np.arange(kernel[axis]) * dilation[axis] - padding[axis]
        counts.append(((taps >= -before) & (taps < shape[axis] + after)).sum(axis=1))
    return np.maximum(np.outer(*counts), 1).astype(np.float32)


def compute(data, *scale, kernel, strides, dilation, padding, size, step=1.0, zero=0):
    """Define maxima, or averages where there is a `scale`, of `size`; `padding` is (top, left, bottom, right).

    Averages of integers are those of (x - `zero`) `step`, in float32; their `scale` is the number of elements.
    """
    batch, blocks, *shape, lanes = (int(d) for d in data.shape)
    before = padding[:2]
    ends = [(size[a] - 1) * strides[a] + (kernel[a] - 1) * dilation[a] + 1 - before[a] for a in (0, 1)]
    meets = [before[a] < kernel[a] and (size[a] - 1) * strides[a] - before[a] < shape[a] for a in (0, 1)]
    clamped = not scale and tuple(dilation) == (1, 1) and all(meets)
    of_integers = data.dtype != "float32"
    outside = tirx.const(0.0, "float32") if scale else te.min_value(data.dtype)

    def element(n, c, h, w, i):
        """At (h, w) counted from the padding's corner."""
        index, inside = [h - before[0], w - before[1]], []
        for axis in (0, 1):
            if before[axis] and clamped:
                index[axis] = te.max(index[axis], 0)
            elif before[axis]:
                inside.append(index[axis] >= 0)
            if ends[axis] > shape[axis] and clamped:
                index[axis] = te.min(index[axis], shape[axis] - 1)
            elif ends[axis] > shape[axis]:
                inside.append(index[axis] < shape[axis])
        value = data[n, c, index[0], index[1], i]
        value = rounded(dequantized(value, step, zero)) if of_integers and scale else value
        return tirx.if_then_else(tirx.all(*inside), value, outside) if inside else value

    def at(axis, place, k):
        return place * strides[axis] + k * dilation[axis]

    reduce = te.sum if scale else te.max
    kh, kw = (te.reduce_axis((0, kernel[axis]), name=name) for axis, name in enumerate(("kh", "kw")))
    out = (batch, blocks, *size, lanes)
    if kernel[0] * kernel[1] >= _LARGE and min(kernel) > 1 and not (of_integers and scale):
        rows = te.compute(
            (batch, blocks, at(0, size[0] - 1, kernel[0] - 1) + 1, size[1], lanes),
            lambda n, c, h, w, i: reduce(element(n, c, h, at(1, w, kw), i), axis=[kw]),
            name="pool_rows",
            attrs=scheduling.part(NAME),
        )

        def window(n, c, h, w, i):
            return reduce(rows[n, c, at(0, h, kh), w, i], axis=[kh])
    else:

        def window(n, c, h, w, i):
            return reduce(element(n, c, at(0, h, kh), at(1, w, kw), i), axis=[kh, kw])

    result = te.compute(out, window, name="pool", attrs=scheduling.anchor(NAME))
    if not scale:
        return result

    def average(n, c, h, w, i):
        total = result[n, c, h, w, i]
        return total / scale[0][h, w] if of_integers else total * scale[0][h, w]

    return te.compute(out, average, name="average")


def schedule(sch, block, hardware, choose):
    """Tile the columns, unroll the window, vectorize the channel lanes, spread (batch, blocks, rows) over threads.

    Rows that are pooled first are pooled for a few rows of the result at a time, and lie in the first-level cache.
    """
    work = scheduling.flops(sch, block) // 2
    rows = next(iter(sch.get_producers(block)), None)
    epilogue = scheduling.epilogue(sch, block)
    n, c, h, w, _ = sch.get_loops(epilogue)
    batch, blocks, height, width, lanes = scheduling.extents(sch, epilogue)
    even = scheduling.even_tile(width, 8 if lanes * 32 <= hardware.vector_bits else 4)
    columns = choose("columns", dict.fromkeys([even, *(size for size in (1, 2, 4, 7, 8, 14, 16) if size <= width)]))
    tile = max(size for size in range(1, 9) if height % size == 0)
    if rows is not None:
        needed = scheduling.extents(sch, rows)[2] - height
        for size in (size for size in range(tile, height + 1) if height % size == 0):
            small = (size + needed) * width * lanes * 4 <= hardware.l1_kib * 1024
            tile = size if small and batch * blocks * (height // size) >= 4 * hardware.cores else tile
    strips = [size for size in range(1, height + 1) if height % size == 0]
    ho, _ = sch.split(h, [None, choose("strip", dict.fromkeys([tile, *strips]))])
    wo, _ = sch.split(w, [None, columns])
    if width % columns:
        sch.annotate(wo, "pragma_loop_partition_hint", 1)
    sch.compute_at(block, wo, preserve_unit_loops=True)
    placed = [block, epilogue]
    if rows is not None:
        work += scheduling.flops(sch, rows) // 2
        sch.compute_at(rows, ho, preserve_unit_loops=True)
        placed.append(rows)
    scheduling.parallel(sch, [n, c, ho], work, hardware, choose)
    if rows is not None:
        *_, lane, k = sch.get_loops(rows)
        _window(sch, rows, [k], [lane])
    scheduling.in_vectors(sch, epilogue, 1)
    loops = sch.get_loops(block)
    window = loops[-len(sch.get(block).iter_vars) + 5 :]
    column, lane = loops[-len(window) - 2 : -len(window)]
    _window(sch, block, window, [column, lane])
    return placed, f"tile 1x{columns}{f' after {tile} rows' if rows is not None else ''}"


def _window(sch, block, window, tile):
    """The loops of a `window` outside of those of a `tile`, all of them unrolled and the last one vectorized."""
    sch.reorder(*window, *tile)
    for loop in (*(window if np.prod([scheduling.extent(sch, k) for k in window]) <= 25 else []), *tile[:-1]):
        sch.unroll(loop)
    sch.vectorize(tile[-1])
    scheduling.decompose_reduction(sch, block, window[0])
