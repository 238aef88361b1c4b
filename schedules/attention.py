"""Attention of some heads without their scores in memory: rows of scores are made, used and forgotten in the cache.

    S[m, n] = alpha * sum_d q[m, d] K[d, n] + mask[m, n]        y[m, :] = sum_n softmax(S[m, :])[n] V[n, :]

`rows` queries are done at a time: their scores by register tiles from panels of K, one vector wide; exp(S - max);
the product with panels of V; and 1 / sum at its end. K, V and scores have zeros up to whole vectors; the last tile of
queries repeats the last query, so that y has more rows than q where `rows` does not divide them.
"""

from __future__ import annotations

from math import prod

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels import rows as by_rows

NAME = "attention"
_LOWEST = tirx.const(float("-inf"), "float32")


_LONG = 24
"""Tiles of keys that a sequence of open length may be taken to have: a multiple of many numbers."""
_ROWS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16)
"""Queries at a time where their number is open: what sizes of open dimensions may be divided by."""


def tile(queries, keys, width, lanes, hardware, *, ragged=False):
    """Queries at a time, and the panels of keys and of values that registers hold beside them.

    Where it is `ragged`, for any numbers of queries and keys; more than two panels would be much to fill up then.
    """
    if ragged:
        queries = keys = _LONG * lanes

    def cheapest(rows, panels, most):
        each = max(1, lanes * 32 // hardware.vector_bits)
        beside = rows if hardware.lane_operand else 1
        fits = [
            v
            for v in range(1, most + 1)
            if panels % v == 0 and (rows * v + v) * each + beside <= hardware.vector_registers
        ]
        return min((scheduling.tile_cost(rows, v, queries, lanes, hardware), v) for v in fits or [1])

    choices = []
    for rows in _ROWS if ragged else range(1, min(queries, 16) + 1):
        scores, key_panels = cheapest(rows, -(-keys // lanes), 2 if ragged else 8)
        mixed, value_panels = cheapest(rows, -(-width // lanes), 8)
        choices.append((scores + mixed, rows, key_panels, value_panels))
    return min(choices)[1:]


def compute(q, keys, values, *masks, batch, sizes, views, alpha, lanes, tile, ragged=False):
    """Define y[B, M', E] of q[.., M, D], keys [.., D, N], values [.., N, E] and a mask that broadcasts to [.., M, N].

    `batch` are the leading axes, of B elements; `sizes` are M, D, N and E; M' is M up to a multiple of the tile. The
    three come as flat memory, and for each a view of it: where it starts, and its strides. Where it is `ragged`, it
    does for any M and N, also where tiles divide them.
    """
    batch, (queries, depth, length, width) = [int(d) for d in batch], [int(d) for d in sizes]
    heads, part, zero = prod(batch), scheduling.part(NAME), tirx.const(0.0, "float32")
    padded = -(-queries // tile[0]) * tile[0]
    together = tile[1] if ragged else 1
    panels, outputs = -(-length // (together * lanes)) * together, width // lanes
    deep = panels * lanes if ragged else -(-length // 4) * 4  # TVM has to see that all weights are there

    def inside(value, *bounds, otherwise=zero):
        conditions = [index < size for index, size, most in bounds if most > size or ragged]
        return tirx.if_then_else(tirx.all(*conditions), value, otherwise) if conditions else value

    def head(b):
        at = []
        for size in reversed(batch):
            at.insert(0, b % size if len(at) < len(batch) - 1 else b)
            b = b // size
        return at

    def element(tensor, view, *at):
        start, *strides = (int(v) for v in view)
        return tensor[start + sum(index * stride for index, stride in zip(at, strides, strict=True))]

    def existing(m):
        return tirx.min(m, queries - 1) if padded > queries or ragged else m

    key_panels = te.compute(
        (heads, panels, depth, lanes),
        lambda b, no, d, ni: inside(
            element(keys, views[1], *head(b), d, no * lanes + ni), (no * lanes + ni, length, panels * lanes)
        ),
        name="pack_keys",
    )
    value_panels = te.compute(
        (heads, outputs, deep, lanes),
        lambda b, eo, n, ei: inside(element(values, views[2], *head(b), n, eo * lanes + ei), (n, length, deep)),
        name="pack_values",
    )
    d = te.reduce_axis((0, depth), name="d")
    products = te.compute(
        (heads, padded, panels, lanes),
        lambda b, m, no, ni: te.sum(
            element(q, views[0], *head(b), existing(m), d) * key_panels[b, no, d, ni], axis=[d]
        ),
        name="products",
        attrs=part,
    )

    def score(b, m, n):
        value = products[b, m, n // lanes, n % lanes] * tirx.const(alpha, "float32")
        return value + masked(b, m, n) if masks else value

    mask_shape = [int(s) for s in masks[0].shape] if masks else []
    one_row = ragged and mask_shape[-1:] == [length] and mask_shape[-2:-1] in ([], [1])
    if one_row:  # lanes beyond its end would be read one by one in each row
        whole_mask = te.compute(
            (*mask_shape[:-1], panels * lanes),
            lambda *at: inside(masks[0][at], (at[-1], length, panels * lanes)),
            name="pack_mask",
        )

    def masked(b, m, n):
        at = [*head(b), existing(m), n]
        at = at[len(at) - len(mask_shape) :]
        place = tuple(0 if size == 1 else index for size, index in zip(mask_shape, at, strict=True))
        return whole_mask[place] if one_row else inside(masks[0][place], (n, length, panels * lanes))

    scores = te.compute((heads, padded, panels * lanes), score, name="scores", attrs=part)
    whole = by_rows.Tiles(panels * lanes, lanes)
    tiles = whole if ragged else by_rows.Tiles(length, min(lanes, 1 << (length.bit_length() - 1)))

    def existing_score(b, m, step, i):
        n = tiles.start(step) + i
        return tirx.Select(n < length, scores[b, m, n], _LOWEST) if ragged else scores[b, m, n]

    highest = by_rows.fold_max((heads, padded), tiles, existing_score, part)

    def power_of(b, m, n):
        value = tirx.exp(tirx.min(scores[b, m, n] - highest[b, m], zero))
        return tirx.Select(n < length, value, zero) if panels * lanes > length or ragged else value

    power = te.compute((heads, padded, panels * lanes), power_of, name="power", attrs=part)
    total = by_rows.fold_sum((heads, padded), whole, lambda b, m, step, i: power[b, m, step * lanes + i], "sum", part)
    scale = te.compute((heads, padded), lambda b, m: tirx.const(1.0, "float32") / total[b, m], name="scale", attrs=part)
    n = te.reduce_axis((0, deep), name="n")
    mixed = te.compute(
        (heads, padded, outputs, lanes),
        lambda b, m, eo, ei: te.sum(power[b, m, n] * value_panels[b, eo, n, ei], axis=[n]),
        name="attention",
        attrs=scheduling.anchor(NAME) | {"nncc.tile": list(tile)},
    )
    return te.compute(
        (heads, padded, width),
        lambda b, m, e: mixed[b, m, e // lanes, e % lanes] * scale[b, m],
        name="mixed",
        attrs=part,
    )


def schedule(sch, block, hardware, choose):
    """Heads and tiles of queries over the threads."""
    heads, padded, outputs, lanes, length = scheduling.extents(sch, block)
    result = sch.get_consumers(block)[0]
    scale = scheduling.producer(sch, result, "scale")
    power = scheduling.producer(sch, block, "power")
    scores = scheduling.producer(sch, power, "scores")
    products = scheduling.producer(sch, scores, "products")
    depth = scheduling.extents(sch, products)[-1]
    rows, key_panels, value_panels = (int(size) for size in sch.get(block).annotations["nncc.tile"])
    panels = scheduling.extents(sch, products)[2]
    rows = choose("rows", dict.fromkeys([rows, *(size for size in range(1, 17) if padded % size == 0)]))
    static = all(isinstance(v.dom.extent, tirx.IntImm) for v in sch.get(products).iter_vars)
    uneven = [size for size in (2, 3, 4) if static and size < panels and panels % size]
    key_panels = choose("key panels", dict.fromkeys([key_panels, *_divisors(panels), *uneven]))
    value_panels = choose("value panels", dict.fromkeys([value_panels, *_divisors(outputs)]))
    placed = [block, result, *_pack_squares(sch, products, lanes, hardware, choose)]
    b, m, e = sch.get_loops(result)
    m, row = sch.split(m, [None, rows])
    e, panel, lane = sch.split(e, [None, value_panels, lanes])
    sch.reorder(b, m, e, row, panel, lane)
    scheduling.in_vectors(sch, result, 2)
    sch.compute_at(block, e, preserve_unit_loops=True)
    sums = [(block, _multiply_in_registers(sch, block))]
    for made in by_rows.producers(sch, [scale, power]):
        if sch.get(made).name_hint in ("products", "pack_keys", "pack_values", "pack_mask"):
            continue
        sch.compute_at(made, m, preserve_unit_loops=True)
        placed.append(made)
        if made_is(sch, made, scores):
            row, n = sch.get_loops(made)[3:]
            n, panel, lane = sch.split(n, [None, key_panels, lanes])
            sch.reorder(n, row, panel, lane)
            if panels % key_panels:
                sch.annotate(n, "pragma_loop_partition_hint", 1)
            scheduling.in_vectors(sch, made, 2)
            sch.compute_at(products, n, preserve_unit_loops=True)
            sums.append((products, _multiply_in_registers(sch, products)))
            placed.append(products)
        elif made_is(sch, made, power):
            row, n = sch.get_loops(made)[3:]
            n, lane = sch.split(n, [None, lanes])
            sch.reorder(n, row, lane)
            scheduling.in_vectors(sch, made, 1)
        else:
            reduced = by_rows.in_tiles(sch, made, 3, 1)
            if reduced is not None:
                sums.append((made, reduced))
    scheduling.parallel(sch, [b, m], 2 * heads * padded * length * (depth + outputs * lanes), hardware, choose)
    for made, loop in sums:
        scheduling.decompose_reduction(sch, made, loop)
    return placed, f"tile {rows}x{key_panels} {rows}x{value_panels}"


def _pack_squares(sch, products, lanes, hardware, choose):
    """Pack keys that lie in rows, each along the depth, by transposing squares; the block, if that is so."""
    pack = scheduling.producer(sch, products, "pack_keys")
    heads, panels, depth, _ = scheduling.extents(sch, pack)
    iterators, (load,) = sch.get(pack).iter_vars, scheduling.loads(sch, pack)
    whole = all(isinstance(v.dom.extent, tirx.IntImm) for v in iterators) and depth % lanes == 0
    if not whole or scheduling.step(load.indices[-1], iterators[2].var) != 1:
        return []
    b, no, d, ni = sch.get_loops(pack)
    d, column = sch.split(d, [None, lanes])
    sch.reorder(b, d, no, column, ni)
    sch.unroll(column)
    sch.vectorize(ni)
    sch.annotate(no, "pragma_loop_partition_hint", 1)  # the last panel may not be full
    scheduling.parallel(sch, [b, d], heads * panels * depth * lanes, hardware, choose)
    return [pack]


def _divisors(panels):
    """Numbers of panels that a register tile may have, up to eight."""
    return [size for size in range(1, 9) if panels % size == 0]


def made_is(sch, block, other):
    return sch.get(block).name_hint == sch.get(other).name_hint


def _multiply_in_registers(sch, block):
    """Unroll a product's register tile and some steps of its reduction; the loop of the other steps."""
    *_, row, panel, lane, k = sch.get_loops(block)
    outer, inner = sch.split(k, [None, next(f for f in (4, 2, 1) if scheduling.divides(sch, k, f))])
    sch.reorder(outer, inner, row, panel, lane)
    for loop in (inner, row, panel):
        sch.unroll(loop)
    sch.vectorize(lane)
    return outer
