"""Attention on a GPU without its scores in memory: some queries to a block, all keys at once or 32 at a time.

    S[m, n] = alpha * sum_d q[m, d] K[d, n] + mask[m, n]        y[m, :] = sum_n softmax(S[m, :])[n] V[n, :]

`nncc::attention` and `nncc::whole_attention` of the prelude are its inner loops. q, K and V come as flat memory, and
for each a view of it: where it starts, and its strides.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.gpu import device_loops
from nncc.gpu.device_plans import STATIC_SHARED

NAME = "cuda_attention"
MOST_SHARED = 256
"""Depth and width together: the keys, values and queries of a block then fit into 48 KiB."""
_WARPS = 4
"""Of a block that takes some keys a step."""
_THREADS = 256
"""About, of a block that takes them all."""


def compute(q, keys, values, *masks, batch, sizes, views, alpha, queries_first=False):
    """Define y[.., M, E] of q[.., M, D], keys [.., D, N], values [.., N, E] and a mask that broadcasts to [.., M, N].

    `batch` are the leading axes, `sizes` are M, D, N and E. With `queries_first`, M comes before the last of `batch`.
    """
    batch, (queries, depth, length, width) = [int(d) for d in batch], [int(d) for d in sizes]
    part = scheduling.part(NAME)

    def element(tensor, view, *at):
        start, *strides = (int(v) for v in view)
        return tensor[start + sum(index * stride for index, stride in zip(at, strides, strict=True))]

    d = te.reduce_axis((0, depth), name="d")
    products = te.compute(
        (*batch, queries, length),
        lambda *at: te.sum(element(q, views[0], *at[:-1], d) * element(keys, views[1], *at[:-2], d, at[-1]), axis=[d]),
        name="products",
        attrs=part,
    )

    def score(*at):
        value = products[at] * tirx.const(alpha, "float32")
        if not masks:
            return value
        shape = [int(s) for s in masks[0].shape]
        place = at[len(at) - len(shape) :]
        return value + masks[0][tuple(0 if size == 1 else index for size, index in zip(shape, place, strict=True))]

    n, k = te.reduce_axis((0, length), name="n"), te.reduce_axis((0, length), name="k")
    rows = (*batch, queries)
    highest = te.compute(rows, lambda *at: te.max(score(*at, n), axis=[n]), name="highest", attrs=part)
    total = te.compute(
        rows, lambda *at: te.sum(tirx.exp(score(*at, k) - highest[at]), axis=[k]), name="total", attrs=part
    )
    j = te.reduce_axis((0, length), name="j")
    mixed = te.compute(
        (*rows, width),
        lambda *at: te.sum(
            tirx.exp(score(*at[:-1], j) - highest[at[:-1]]) * element(values, views[2], *at[:-2], j, at[-1]), axis=[j]
        ),
        name="mixed",
        attrs=part,
    )
    facts = {
        "nncc.sizes": [queries, depth, length, width],
        "nncc.views": [[int(v) for v in view] for view in views],
        "nncc.alpha": tirx.const(alpha, "float32"),
        "nncc.queries_first": int(queries_first),
    }

    def result(*at):
        place = _swapped(at) if queries_first else at
        return mixed[tuple(place)] / total[tuple(place[:-1])]

    shape = (*rows, width)
    shape = _swapped(shape) if queries_first else shape
    return te.compute(tuple(shape), result, name="attention", attrs=scheduling.anchor(NAME) | facts)


def _swapped(axes):
    """What belongs to the axes, with queries before heads or back."""
    *outer, first, second, last = axes
    return [*outer, second, first, last]


def schedule(sch, block, hardware, choose):
    """Tiles of queries of each head to the blocks, as many as leave work for all multiprocessors; all scores of a tile
    in shared memory where they fit."""
    notes = sch.get(block).annotations
    queries, depth, length, width = (int(s) for s in notes["nncc.sizes"])
    views = [[int(v) for v in view] for view in notes["nncc.views"]]
    queries_first = bool(notes["nncc.queries_first"])
    shape = scheduling.extents(sch, block)
    *batch, _, _ = _swapped(shape) if queries_first else shape
    heads = prod(batch)
    mixed = scheduling.producer(sch, block, "mixed")
    _, *masks, _, values = device_loops.sources(sch, mixed)
    q, keys = device_loops.sources(sch, scheduling.producer(sch, mixed, "products"))
    (q_start, *q_batch, qm, qd), (k_start, *k_batch, kd, kn), (v_start, *v_batch, vn, ve) = views
    mask_batch, (mm, mn) = [0] * len(batch), (0, 0)
    if masks:
        shape = [1] * (len(batch) + 2 - len(masks[0].shape)) + [int(d) for d in masks[0].shape]
        strides = [0 if size == 1 else prod(shape[axis + 1 :]) for axis, size in enumerate(shape)]
        *mask_batch, mm, mn = strides

    wide = -(-width // 32) * 32
    threads = max(1, _THREADS // wide) * wide
    groups = threads // wide
    fit = [n for n in (4, 8, 16, 2, 1) if _shared_bytes(n, depth, length, threads) <= STATIC_SHARED]
    together = [n for n in fit if n % groups == 0]
    if choose("scores", ["whole", "steps"] if together else ["steps"]) == "whole":
        busy = [n for n in (16, 8, 4, 2, 1) if n in together and heads * -(-queries // n) >= hardware.multiprocessors]
        tile = choose("queries", list(dict.fromkeys([*busy[:1], *together])))
        name, count, columns = "whole_attention", tile // groups, 1
        sizes = [tile, threads]
    else:
        enough = [n for n in (4, 2, 1) if heads * -(-queries // (_WARPS * n)) >= (hardware.multiprocessors or 1)]
        each = choose("queries", list(dict.fromkeys([*enough[:1], 1, 2, 4, 8])))
        tile, columns = each * _WARPS, -(-width // 32)
        name, count, threads = "attention", each * columns, 32 * _WARPS
        sizes = [each, _WARPS]
    sizes = [queries, depth, length, width, *sizes, qm, qd, kn, kd, vn, ve, str(bool(masks)).lower(), mm, mn]
    function = f"nncc::{name}<{', '.join(map(str, sizes))}>"

    def call(x, y, z, thread):
        head = device_loops.places(y, batch)

        def at(tensor, start, strides):
            return tensor, start + sum(i * s for i, s in zip(head, strides, strict=True))

        mask = at(masks[0], 0, mask_batch) if masks else (q, 0)
        operands = at(q, q_start, q_batch), at(keys, k_start, k_batch), at(values, v_start, v_batch), mask
        return function, *(word for operand in operands for word in operand), notes["nncc.alpha"], x * tile

    def place(x, y, z, thread, number):
        if name == "attention":
            m, e = x * tile + thread // 32 * (tile // _WARPS) + number // columns, number % columns * 32 + thread % 32
        else:
            m, e = x * tile + thread // wide + number * groups, thread % wide
        conditions = [m < queries] if queries % tile else []
        conditions += [e < width] if width % 32 else []
        at = [*device_loops.places(y, batch), m, e]
        return _swapped(at) if queries_first else at, tirx.all(*conditions) if conditions else None

    registers = device_loops.Registers(count, 1, count, place)
    grid = device_loops.Grid(-(-queries // tile), heads, 1, threads)
    how = "scores whole" if name == "whole_attention" else "32 keys a step"
    return device_loops.on_grid(sch, block, call, grid, registers), f"{tile} queries, {how}"


def _shared_bytes(tile, depth, length, threads):
    """Of shared memory for so many queries, their scores, and what each thread mixed for each of them."""
    return 4 * tile * (-(-depth // 4) * 4 + -(-length // 4) * 4 + 1 + threads)
