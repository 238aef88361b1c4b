"""All plans of a layer as columns, and closed formulas for what each costs."""

from __future__ import annotations

from itertools import permutations
from math import ceil, prod
from typing import Any

import numpy as np

from nncc.vta.footprint import depth, footprint
from nncc.vta.layer import Layer
from nncc.vta.machine import MEMORIES, Machine
from nncc.vta.port import port_of
from nncc.vta.stream import Plan
from nncc.vta.tiling import Span, axes

__all__ = ["SHOWN", "alu_cycles", "best_first"]


def best_first(layer: Layer, machine: Machine) -> list[Plan]:
    """The plans whose tiles fit the memories, by ascending cost; no more than `_MOST`."""
    table = _space(layer, machine)
    order = np.argsort(_cost(layer, machine, table), kind="stable")
    return list(dict.fromkeys(_plan(table, int(index)) for index in order[:_MOST]))


SHOWN = 0.25
"""Of the cycles at the ends of a layer, before anything is computed and after everything is, how many its neighbours do
not hide."""
_MOST = 1024
_MOST_TILES = 4096


def _sizes(extent: int, least: int = 1) -> list[int]:
    """Sizes that cut an extent into about equal parts, the whole first: 1 to 8, 10, 12, 14, 16, 20 and so on."""
    parts = [part << power for power in range(max(1, extent.bit_length() - 2)) for part in (4, 5, 6, 7)]
    sizes = [ceil(extent / part) for part in (1, 2, 3, *parts) if part < extent] + [1]
    return [size for size in dict.fromkeys(sizes) if size >= min(extent, least)]


def _space(layer: Layer, machine: Machine) -> dict[str, Any]:
    """The plans that fit the memories, as columns: sizes of tiles, an index into ``orders``, buffers; how many tiles
    there are of output blocks (``o``), of rows and columns (``s``) and of input blocks (``c``)."""
    conv = layer.kind == "conv2d"
    blocks, height, width = layer.output
    orders = ["".join(order) for order in permutations("osc")] if conv else ["osc", "soc"]
    inputs = _sizes(layer.input[0]) if conv else [1]
    tiles = _largest(layer, machine, _columns([_sizes(blocks), _sizes(height), _sizes(width, 4), inputs]))
    rest = _columns([range(len(orders)), (1, 2, 3), (1, 2, 3, 0), (0, 1, 2)])
    columns = np.concatenate([np.repeat(tiles, rest.shape[1], axis=1), np.tile(rest, tiles.shape[1])])
    names = ("blocks", "rows", "columns", "reduction", "order", "inp", "wgt", "acc")
    table: dict[str, Any] = dict(zip(names, columns, strict=True))
    o, s = -(-blocks // table["blocks"]), -(-height // table["rows"]) * -(-width // table["columns"])
    c = -(-layer.input[0] // table["reduction"]) if conv else np.ones_like(o)
    table |= {"o": o, "s": s, "c": c}
    live = np.ones_like(o)
    for index, order in enumerate(orders):
        inside = order[order.index("c") + 1 :]
        value = (o if "o" in inside else 1) * (s if "s" in inside else 1)
        live = np.where((table["order"] == index) & (c > 1), value, live)
    table["acc"] = np.minimum(o * s, np.choose(table["acc"], [live, live + 1, 2 * live]))
    table["inp"] = np.minimum(table["inp"], s * c if conv else s * o)
    table["wgt"] = np.minimum(np.where(table["wgt"] == 0, table["acc"], table["wgt"]), o * c)
    buffers = np.stack([table["inp"], table["wgt"], table["acc"]])
    fits = _fits(layer, machine, columns[:4], buffers)
    return {name: column[fits] for name, column in table.items()} | {"orders": orders}


def _columns(options: list[Any]) -> Any:
    """All combinations of options: [options, combinations]."""
    return np.stack([axis.reshape(-1) for axis in np.meshgrid(*options, indexing="ij")]).astype(np.int64)


def _largest(layer: Layer, machine: Machine, tiles: Any) -> Any:
    """Of tiles that fit the memories, those that need the fewest steps; of data, two at once if there are such."""
    once, twice = (
        _fits(layer, machine, tiles, np.full((3, tiles.shape[1]), 1) + np.array([[more], [0], [0]])) for more in (0, 1)
    )
    found = tiles[:, np.where(twice.any(), twice, once)]
    extents = np.array([*layer.output, layer.input[0] if layer.kind == "conv2d" else 1])[:, None]
    steps = (-(-extents // found)).prod(axis=0)
    return found[:, np.argsort(steps, kind="stable")[:_MOST_TILES]]


def _fits(layer: Layer, machine: Machine, tiles: Any, buffers: Any) -> Any:
    """Which tiles (blocks, rows, columns, reduction) with their buffers fit the memories."""
    used = footprint(layer, machine, tuple(tiles[:3]), tiles[3], tuple(buffers)).scratchpads
    return np.logical_and.reduce([np.asarray(count) <= depth(machine, name) for name, count in used.items()])


def _plan(table: dict[str, Any], index: int) -> Plan:
    at = {name: int(table[name][index]) for name in ("blocks", "rows", "columns", "reduction", "inp", "wgt", "acc")}
    order = table["orders"][int(table["order"][index])]
    tile = (at["blocks"], at["rows"], at["columns"])
    return Plan(tile, at["reduction"], order, (at["inp"], at["wgt"], at["acc"]))


def _loads(table: dict[str, Any], keys: str, other: str, slots: str) -> Any:
    """How often tiles that are told apart by the loops `keys` are loaded, where the loop `other` is not one of them."""
    total = prod(table[key] for key in keys)
    count = np.array(total)
    for index, order in enumerate(table["orders"]):
        inside = [key for key in order[order.index(other) + 1 :] if key in keys]
        held = prod((table[key] for key in inside), start=np.ones_like(total))
        count = np.where((table["order"] == index) & (held > table[slots]), total * table[other], count)
    return count


def _cost(layer: Layer, machine: Machine, table: dict[str, Any]) -> Any:
    """Cycles of all plans of a table."""
    conv, taps = layer.kind == "conv2d", prod(layer.kernel)
    rows, columns = axes(layer, machine)
    start = machine.issue_cycles + MEMORIES[machine.memory].latency
    overhead = machine.issue_cycles + machine.pipeline_cycles
    o, s, c = table["o"], table["s"], table["c"]
    tile = (table["blocks"], table["rows"], table["columns"])
    reduction = table["reduction"]
    used = footprint(layer, machine, tile, reduction, (table["inp"], table["wgt"], table["acc"]))
    inp, wgt, out, uop = (port_of(machine, memory) for memory in ("inp", "wgt", "out", "uop"))
    vector, weight = machine.element_bytes("inp"), machine.element_bytes("wgt")

    inputs = reduction if conv else tile[0]
    height = np.minimum(rows.seen(Span(0, tile[1])).size, rows.length)
    width = np.minimum(columns.seen(Span(0, tile[2])).size * columns.pitch, columns.size)
    apart = (width < columns.size) | (rows.pitch > 1)
    data = inputs * (start + inp.cycles(height, width * vector, apart))
    if not any(layer.padding) and rows.pitch * columns.pitch == 1:
        data = np.where(apart, data, start + inp.cycles(inputs, height * width * vector))
    filters = reduction < layer.input[0] if conv else np.zeros(1, bool)
    weights = start + wgt.cycles(tile[0], used.weights // tile[0] * weight, filters)
    whole = tile[2] == layer.output[2]
    pieces = np.where(whole, 1, tile[0])
    share = prod(layer.output) / np.prod(tile, axis=0)  # tiles of the output, the last ones by their part
    box = np.where(whole, tile[0], tile[1]), np.where(whole, tile[1] * tile[2], tile[2]) * vector
    load = _loads(table, "sc" if conv else "os", "o" if conv else "c", "inp") * data
    if layer.residual or layer.kind == "add":
        load = load + pieces * (o * s * start + share * inp.cycles(*box))
    if conv or layer.kind == "depthwise":
        load = load + _loads(table, "oc" if conv else "o", "s", "wgt") * weights
    vectors = prod(layer.output)
    per_vector, instructions = alu_cycles(layer, machine)
    compute = vectors * per_vector + o * s * instructions * overhead
    if conv:
        shortest = np.minimum(np.minimum(tile[0], tile[1]), tile[2])
        lists = np.minimum(table["inp"] * np.lcm(table["wgt"], table["acc"]), o * s * c)
        compute = compute + vectors * layer.input[0] * taps + (o * s * c + o * s) * overhead
        compute = compute + lists * shortest * reduction * taps * machine.element_bytes("uop") / uop.bytes_per_cycle
    store = pieces * (o * s * start + share * out.cycles(*box))
    hidden = (table["inp"] > 1) & ((table["wgt"] > 1) | (o * c == 1)) & ((table["acc"] > 1) | (o * s == 1))
    exposed = np.where(hidden, 0, 0.5 * np.minimum(compute, load))
    ends = data + weights + start + used.sums * (vector / out.bytes_per_cycle + per_vector)
    return np.maximum(np.maximum(compute, load), store) + exposed + SHOWN * ends


def alu_cycles(layer: Layer, machine: Machine) -> tuple[int, int]:
    """For each vector of the output: cycles of the ALU; for each tile: its instructions."""
    taps = prod(layer.kernel)
    own = machine.has("requantize")
    if layer.kind == "add":
        return (2, 2) if own else (4, 3)
    if layer.kind == "max_pool":
        return (taps, 2) if own else (1 + 2 * taps, 3)
    residual = bool(layer.residual)
    if layer.kind == "depthwise":
        return taps + 1 + residual, taps + 1 + residual
    return (1 + residual, 1 + residual) if own else (5 + (layer.shift > 0) + residual, 4 + (layer.shift > 0) + residual)
