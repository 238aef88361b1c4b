"""Attention of some heads without their scores in memory: rows of scores are made, used and forgotten in the cache.

    S[m, n] = alpha * sum_d q[m, d] K[d, n] + mask[m, n]        y[m, :] = sum_n softmax(S[m, :])[n] V[n, :]

`rows` queries are done at a time: their scores by register tiles from panels of K, one vector wide; exp(S - max);
the product with panels of V; and 1 / sum at its end. K, V and scores have zeros up to whole vectors; the last tile of
queries repeats the last query, so that y has more rows than q where `rows` does not divide them.
"""

from __future__ import annotations

from math import prod

from nncc import rows as by_rows
from nncc import scheduling
from nncc.compat import te, tirx

NAME = "attention"


def tile(queries, keys, width, lanes, hardware):
    """Queries at a time, and the panels of keys and of values that registers hold beside them."""

    def cheapest(rows, panels):
        each = max(1, lanes * 32 // hardware.vector_bits)
        beside = rows if hardware.lane_operand else 1
        fits = [
            v for v in range(1, 9) if panels % v == 0 and (rows * v + v) * each + beside <= hardware.vector_registers
        ]
        return min((scheduling.tile_cost(rows, v, queries, lanes, hardware), v) for v in fits or [1])

    choices = []
    for rows in range(1, min(queries, 16) + 1):
        (scores, key_panels), (mixed, value_panels) = (cheapest(rows, -(-n // lanes)) for n in (keys, width))
        choices.append((scores + mixed, rows, key_panels, value_panels))
    return min(choices)[1:]


def compute(q, keys, values, *masks, batch, sizes, views, alpha, lanes, tile):
    """Define y[B, M', E] of q[.., M, D], keys [.., D, N], values [.., N, E] and a mask that broadcasts to [.., M, N].

    `batch` are the leading axes, of B elements; `sizes` are M, D, N and E; M' is M up to a multiple of the tile. The
    three come as flat memory, and for each a view of it: where it starts, and its strides.
    """
    batch, (queries, depth, length, width) = [int(d) for d in batch], [int(d) for d in sizes]
    heads, part, zero = prod(batch), scheduling.part(NAME), tirx.const(0.0, "float32")
    padded = -(-queries // tile[0]) * tile[0]
    panels, outputs = -(-length // lanes), width // lanes
    deep = -(-length // 4) * 4

    def inside(value, *bounds):
        conditions = [index < size for index, size, most in bounds if most > size]
        return tirx.if_then_else(tirx.all(*conditions), value, zero) if conditions else value

    def head(b):
        at = []
        for size in reversed(batch):
            at.insert(0, b % size if len(at) < len(batch) - 1 else b)
            b = b // size
        return at

    def element(tensor, view, *at):
        start, *strides = (int(v) for v in view)
        return tensor[start + sum(index * stride for index, stride in zip(at, strides, strict=True))]

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

    def query(r, d):
        m = r % padded
        m = tirx.min(m, queries - 1) if padded > queries else m
        return element(q, views[0], *head(r // padded), m, d)

    d = te.reduce_axis((0, depth), name="d")
    products = te.compute(
        (heads * padded, panels, lanes),
        lambda r, no, ni: te.sum(query(r, d) * key_panels[r // padded, no, d, ni], axis=[d]),
        name="products",
        attrs=part,
    )

    def score(r, n):
        value = products[r, n // lanes, n % lanes] * tirx.const(alpha, "float32")
        return value + masked(r, n) if masks else value

    def masked(r, n):
        at = [*head(r // padded), tirx.min(r % padded, queries - 1), n]
        shape = [int(s) for s in masks[0].shape]
        at = at[len(at) - len(shape) :]
        value = masks[0][tuple(0 if size == 1 else index for size, index in zip(shape, at, strict=True))]
        return inside(value, (n, length, panels * lanes))

    scores = te.compute((heads * padded, panels * lanes), score, name="scores", attrs=part)
    tiles = by_rows.Tiles(length, min(lanes, 1 << (length.bit_length() - 1)))
    highest = by_rows.fold_max(heads * padded, tiles, lambda r, step, i: scores[r, tiles.start(step) + i], part)

    def power_of(r, n):
        value = tirx.exp(tirx.min(scores[r, n] - highest[r], zero))
        return tirx.Select(n < length, value, zero) if panels * lanes > length else value

    power = te.compute((heads * padded, panels * lanes), power_of, name="power", attrs=part)
    whole = by_rows.Tiles(panels * lanes, lanes)
    total = by_rows.fold_sum(heads * padded, whole, lambda r, step, i: power[r, step * lanes + i], "sum", part)
    scale = te.compute((heads * padded,), lambda r: tirx.const(1.0, "float32") / total[r], name="scale", attrs=part)
    n = te.reduce_axis((0, deep), name="n")
    mixed = te.compute(
        (heads, padded, outputs, lanes),
        lambda b, m, eo, ei: te.sum(power[b * padded + m, n] * value_panels[b, eo, n, ei], axis=[n]),
        name="attention",
        attrs=scheduling.anchor(NAME) | {"nncc.tile": list(tile)},
    )
    return te.compute(
        (heads, padded, width),
        lambda b, m, e: mixed[b, m, e // lanes, e % lanes] * scale[b * padded + m],
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
    panels = scheduling.extents(sch, products)[1]
    rows = choose("rows", dict.fromkeys([rows, *(size for size in range(1, 17) if padded % size == 0)]))
    key_panels = choose("key panels", dict.fromkeys([key_panels, *_divisors(panels)]))
    value_panels = choose("value panels", dict.fromkeys([value_panels, *_divisors(outputs)]))
    placed = [block, result]
    b, m, e = sch.get_loops(result)
    m, row = sch.split(m, [None, rows])
    e, panel, lane = sch.split(e, [None, value_panels, lanes])
    sch.reorder(b, m, e, row, panel, lane)
    scheduling.in_vectors(sch, result, 2)
    sch.compute_at(block, e, preserve_unit_loops=True)
    sums = [(block, _multiply_in_registers(sch, block))]
    for made in by_rows.producers(sch, [scale, power]):
        if sch.get(made).name_hint in ("products", "pack_keys", "pack_values"):
            continue
        sch.compute_at(made, m, preserve_unit_loops=True)
        placed.append(made)
        if made_is(sch, made, scores):
            row, n = sch.get_loops(made)[2:]
            n, panel, lane = sch.split(n, [None, key_panels, lanes])
            sch.reorder(n, row, panel, lane)
            scheduling.in_vectors(sch, made, 2)
            sch.compute_at(products, n, preserve_unit_loops=True)
            sums.append((products, _multiply_in_registers(sch, products)))
            placed.append(products)
        elif made_is(sch, made, power):
            row, n = sch.get_loops(made)[2:]
            n, lane = sch.split(n, [None, lanes])
            sch.reorder(n, row, lane)
            scheduling.in_vectors(sch, made, 1)
        else:
            reduced = by_rows.in_tiles(sch, made, 2, 1)
            if reduced is not None:
                sums.append((made, reduced))
    scheduling.parallel(sch, [b, m], 2 * heads * padded * length * (depth + outputs * lanes), hardware, choose)
    for made, loop in sums:
        scheduling.decompose_reduction(sch, made, loop)
    return placed, f"tile {rows}x{key_panels} {rows}x{value_panels}"


def _divisors(panels):
    """Numbers of panels that a register tile may have, up to eight."""
    return [size for size in range(1, 9) if panels % size == 0]


def made_is(sch, block, other):
    return sch.get(block).name_hint == sch.get(other).name_hint


def _multiply_in_registers(sch, block):
    """Unroll a product's register tile and some steps of its reduction; the loop of the other steps."""
    *_, row, panel, lane, k = sch.get_loops(block)
    outer, inner = sch.split(k, [None, next(f for f in (4, 2, 1) if scheduling.extent(sch, k) % f == 0)])
    sch.reorder(outer, inner, row, panel, lane)
    for loop in (inner, row, panel):
        sch.unroll(loop)
    sch.vectorize(lane)
    return outer
