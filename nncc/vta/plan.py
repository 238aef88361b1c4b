"""The plans that a layer may have, the best first by an analytic cost.

All plans are ranked by closed formulas for what they move, compute and issue; of the best of these the tiles are
followed through the three queues, which shows what is not hidden. Both count cycles of the machine with its DRAM.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations
from math import ceil, prod
from typing import Any

import numpy as np

from nncc.errors import TargetError
from nncc.vta.layer import Layer
from nncc.vta.machine import MEMORIES, Machine
from nncc.vta.stream import Plan
from nncc.vta.tiling import MOST_PADDING, Axis, Span, axes, footprint, live_sums, steps, tiles_of

__all__ = ["estimate", "plans", "refusal"]

_FOLLOWED = 16
"""Plans whose tiles are followed through the queues."""
_LONGEST_LOOP = (1 << 14) - 1


def refusal(layer: Layer, plan: Plan, machine: Machine) -> str:
    """Why a machine cannot compute a layer by a plan; empty if it can."""
    for axis, extent, size, word in zip(
        axes(layer, machine), layer.output[1:], plan.tile[1:], ("rows", "columns"), strict=True
    ):
        for span in tiles_of(extent, size):
            before, behind = axis.padding_of(span)
            if max(before, behind) > MOST_PADDING:
                return (
                    f"a tile has {max(before, behind)} {word} of padding on one side, and a LOAD at most {MOST_PADDING}"
                )
            if before + behind >= axis.seen(span).size:
                return f"a tile sees nothing but padding in its {word}"
    if layer.pad_value and any(layer.padding) and not machine.has("pad_value"):
        return f"padding is 0 on this machine, not {layer.pad_value}"
    if layer.kind == "depthwise" and not machine.has("multiply_accumulate"):
        return "this machine has no multiply-accumulate by lanes"
    counts = _counts(layer, plan)
    if plan.buffers[2] < live_sums(plan.order, *counts):
        return f"{live_sums(plan.order, *counts)} tiles of sums are begun at once, and {plan.buffers[2]} have a place"
    used = footprint(layer, plan, machine)
    for name, count in used.scratchpads.items():
        depth = machine.depth(name) if name != "par" or machine.has("requantize") else 0
        if count > depth:
            return f"{count} elements do not fit {name.upper()}, which has {depth}"
    if used.sums > _LONGEST_LOOP:
        return f"a tile has {used.sums} vectors, and a loop at most {_LONGEST_LOOP} iterations"
    if _longest_list(layer, plan) > machine.depth("uop"):
        return f"a list of micro-operations does not fit UOP, which has {machine.depth('uop')}"
    return ""


@lru_cache(maxsize=1024)
def plans(layer: Layer, machine: Machine, limit: int = _FOLLOWED) -> tuple[Plan, ...]:
    """At most `limit` plans for a layer, the best first. Raises TargetError if there is none."""
    table = _space(layer, machine)
    cost = _closed_cost(layer, machine, table)
    order = np.argsort(cost, kind="stable")
    order = order[np.isfinite(cost[order])]
    found: list[Plan] = []
    for index in order:
        plan = _plan(table, int(index))
        if plan not in found and not refusal(layer, plan, machine):
            found.append(plan)
        if len(found) >= max(limit, _FOLLOWED):
            break
    if not found:
        smallest = Plan((1, 1, min(layer.output[2], 8)), 1, "osc", (1, 1, 1))
        reason = refusal(layer, smallest, machine) or "no tile fits its memories"
        raise TargetError(f"accelerator: no plan for {layer.to_json()}: {reason}")
    scores = [estimate(layer, plan, machine) for plan in found[:_FOLLOWED]]
    ranked = [found[i] for i in np.argsort(scores, kind="stable")]
    return tuple((ranked + found[_FOLLOWED:])[:limit])


def _counts(layer: Layer, plan: Plan) -> tuple[int, int, int]:
    """Tiles of output blocks, of rows and columns, of input blocks."""
    spaces = ceil(layer.output[1] / plan.tile[1]) * ceil(layer.output[2] / plan.tile[2])
    return (
        ceil(layer.output[0] / plan.tile[0]),
        spaces,
        ceil(layer.input[0] / plan.reduction) if layer.kind == "conv2d" else 1,
    )


def _longest_list(layer: Layer, plan: Plan) -> int:
    """Micro-operations of the longest instruction: all loops of a tile but the two longest."""
    reduction = plan.reduction if layer.kind == "conv2d" else 1
    taps = 1 if layer.kind == "depthwise" else prod(layer.kernel)
    return prod(sorted(plan.tile)[:1]) * reduction * taps


def _sizes(extent: int, most: int = 8) -> list[int]:
    """Sizes that cut an extent into equal parts, or nearly; the whole first."""
    sizes = list(dict.fromkeys(ceil(extent / parts) for parts in range(1, extent + 1)))
    return sizes if len(sizes) <= most else [*sizes[: most - 2], *sizes[-2:]]


def _space(layer: Layer, machine: Machine) -> dict[str, Any]:
    """All plans as columns."""
    conv = layer.kind == "conv2d"
    blocks, height, width = layer.output
    orders = ["".join(order) for order in permutations("osc")] if conv else ["osc", "soc"]
    widths = [size for size in _sizes(width) if size >= min(width, 4)]
    grid = np.meshgrid(
        _sizes(blocks), _sizes(height, 12), widths, _sizes(layer.input[0]) if conv else [1],
        np.arange(len(orders)), [1, 2, 3], [1, 2, 3, 0], [0, 1, 2],
        indexing="ij",
    )  # fmt: skip
    names = ("blocks", "rows", "columns", "reduction", "order", "inp", "wgt", "acc")
    table: dict[str, Any] = dict(zip(names, (axis.reshape(-1) for axis in grid), strict=True))
    o, s = -(-blocks // table["blocks"]), -(-height // table["rows"]) * -(-width // table["columns"])
    c = -(-layer.input[0] // table["reduction"]) if conv else np.ones_like(o)
    table |= {"o": o, "s": s, "c": c, "orders": orders}
    live = np.ones_like(o)
    for index, order in enumerate(orders):
        inside = order[order.index("c") + 1 :]
        value = (o if "o" in inside else 1) * (s if "s" in inside else 1)
        live = np.where((table["order"] == index) & (c > 1), value, live)
    table["acc"] = np.minimum(o * s, np.choose(table["acc"], [live, live + 1, 2 * live]))
    table["inp"] = np.minimum(table["inp"], s * c if conv else s * o)
    table["wgt"] = np.minimum(np.where(table["wgt"] == 0, table["acc"], table["wgt"]), o * c)
    return table


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


def _seen(axis: Axis, size: Any) -> Any:
    """As `Axis.seen`, for an array of sizes."""
    return size if axis.sparse else (size - 1) * axis.stride + (axis.kernel - 1) * axis.dilation + 1


def _closed_cost(layer: Layer, machine: Machine, table: dict[str, Any]) -> Any:
    """Cycles of all plans of a table; infinite where a memory is too small."""
    conv, taps = layer.kind == "conv2d", prod(layer.kernel)
    rows, columns = axes(layer, machine)
    memory = MEMORIES[machine.memory]
    wide = memory.bytes_per_cycle or machine.bus_bytes
    start = machine.issue_cycles + memory.latency
    o, s, c = table["o"], table["s"], table["c"]
    ob, height, width, cb = (table[name] for name in ("blocks", "rows", "columns", "reduction"))
    inputs = cb if conv else ob
    seen = _seen(rows, height) * _seen(columns, width)
    data, sums = inputs * seen, ob * height * width
    weights = ob * cb * taps if conv else ob * ceil(taps / machine.block) if layer.kind == "depthwise" else 0 * ob
    other = sums if layer.residual or layer.kind == "add" else 0 * sums
    own = machine.has("requantize")

    data_cycles = np.minimum(height * rows.stride + rows.kernel, rows.size) * np.minimum(
        _seen(columns, width) * columns.pitch, columns.size
    ) * inputs * machine.element_bytes("inp") / wide + start * inputs  # fmt: skip
    weight_cycles = start + weights * machine.element_bytes("wgt") / wide
    vector_cycles = machine.element_bytes("inp") / wide
    data_loads = _loads(table, "sc" if conv else "os", "o" if conv else "c", "inp")
    load = data_loads * data_cycles + o * s * (other > 0) * (start + other * vector_cycles)
    if conv or layer.kind == "depthwise":
        load = load + _loads(table, "oc" if conv else "o", "s", "wgt") * weight_cycles
    vectors = prod(layer.output)
    per_vector, instructions = _alu_cycles(layer, machine)
    longest = np.maximum(np.maximum(ob, height), width)
    length = ob * height * width // (longest * np.maximum(1, np.sort([ob, height, width], axis=0)[1]))
    combinations = np.minimum(table["inp"] * np.lcm(table["wgt"], table["acc"]), o * s * c)
    overhead = machine.issue_cycles + machine.pipeline_cycles
    compute = vectors * per_vector + o * s * instructions * overhead
    if conv:
        compute = compute + vectors * layer.input[0] * taps + (o * s * c + o * s) * overhead
        compute = compute + combinations * length * cb * taps * 4 / wide
    store = vectors * vector_cycles + o * s * (start + memory.latency)
    fill = data_cycles + weight_cycles
    tail = start + sums * (vector_cycles + per_vector)
    hidden = (table["inp"] > 1) & ((table["wgt"] > 1) | (o * c == 1)) & ((table["acc"] > 1) | (o * s == 1))
    total = np.maximum(np.maximum(compute, load), store) + np.where(hidden, 0, 0.5 * np.minimum(compute, load))
    total = total + fill + tail
    slots = np.minimum(2, table["inp"])
    fits = (
        (table["inp"] * data + slots * other <= machine.depth("inp"))
        & (table["wgt"] * weights <= machine.depth("wgt"))
        & (table["acc"] * sums + (0 if own else layer.output[0]) <= machine.depth("acc"))
    )
    return np.where(fits, total, np.inf)


def _alu_cycles(layer: Layer, machine: Machine) -> tuple[int, int]:
    """For each vector of the output: cycles of the ALU; for each tile: its instructions."""
    taps = prod(layer.kernel)
    own = machine.has("requantize")
    if layer.kind == "add":
        return (2, 2) if own else (4, 3)
    if layer.kind == "max_pool":
        return (taps, 2) if own else (1 + 2 * taps, 3)
    if layer.kind == "depthwise":
        return taps + 1, taps + 1
    residual = bool(layer.residual)
    return (1 + residual, 1 + residual) if own else (5 + (layer.shift > 0) + residual, 4 + (layer.shift > 0) + residual)


def estimate(layer: Layer, plan: Plan, machine: Machine) -> int:
    """Cycles of a layer by a plan, its tiles followed through the queues; the read port is the load queue's alone."""
    memory = MEMORIES[machine.memory]
    wide = memory.bytes_per_cycle or machine.bus_bytes
    start = machine.issue_cycles + memory.latency
    overhead = machine.issue_cycles + machine.pipeline_cycles
    rows, columns = axes(layer, machine)
    vector, taps = machine.element_bytes("inp") / wide, prod(layer.kernel)
    weight = machine.element_bytes("wgt") / wide
    conv = layer.kind == "conv2d"
    per_weight = taps if conv else ceil(taps / machine.block)
    per_vector, instructions = _alu_cycles(layer, machine)
    split = 2 * overhead if machine.has("overwrite") or not conv else 3 * overhead
    loaded = computed = stored = 0.0
    data_done, weights_done, sums_free = ([0.0] * count for count in plan.buffers)
    data_free, weights_free = ([0.0] * count for count in plan.buffers[:2])
    lists: set[tuple[Any, ...]] = set()
    uops, has_weights = 0, layer.kind in ("conv2d", "depthwise")
    for step in steps(layer, plan):
        blocks, height, width, inputs = (span.size for span in step[:4])
        if step.loads_weights and has_weights:
            count = blocks * per_weight * (inputs if conv else 1)
            loaded = max(loaded, weights_free[step.weights]) + start + count * weight
            weights_done[step.weights] = loaded
        if step.loads_data:
            tall, long = _real(rows, step.rows), _real(columns, step.columns)
            whole = long == columns.size and tall == rows.seen(step.rows).size and not any(layer.padding)
            loads = 1 if whole else inputs
            loaded = max(loaded, data_free[step.data]) + start * loads + inputs * tall * long * columns.pitch * vector
            data_done[step.data] = loaded
        vectors = blocks * height * width
        ready = max(computed, data_done[step.data], weights_done[step.weights])
        if step.first:
            ready = max(ready, sums_free[step.sums])
        computed = ready
        if conv:
            computed += vectors * inputs * taps + (split if step.first else overhead)
            key = (step.data, step.weights, step.sums, step.first, blocks, height, width, inputs)
            if key not in lists:
                lists.add(key)
                uops += prod(sorted((blocks, height, width))[:1]) * inputs * taps
        data_free[step.data] = weights_free[step.weights] = computed
        if step.last:
            if layer.residual or layer.kind == "add":
                loaded += start + vectors * vector
                computed = max(computed, loaded)
            computed += vectors * per_vector + instructions * overhead
            stored = max(stored, computed) + start + memory.latency + vectors * vector
            sums_free[step.sums] = stored
            data_free[step.data] = computed
    return round(max(computed, stored) + uops * 4 / wide)


def _real(axis: Axis, span: Span) -> int:
    """How many of what windows see are in the input."""
    return axis.seen(span).size - sum(axis.padding_of(span))
