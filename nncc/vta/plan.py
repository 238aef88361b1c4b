"""The plans that a layer may have, the best first by an analytic cost.

All plans are ranked by closed formulas for what they move, compute and issue; of the best of these the tiles are
followed through the three queues, which shows what is not hidden. Both count cycles of the machine with its DRAM.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import ceil, prod
from typing import Any

import numpy as np

from nncc.errors import TargetError
from nncc.vta.footprint import depth, plan_footprint
from nncc.vta.layer import Layer, beyond
from nncc.vta.machine import MEMORIES, Machine
from nncc.vta.moves import WIDEST
from nncc.vta.plan_space import SHOWN, alu_cycles, best_first
from nncc.vta.port import port_of
from nncc.vta.stream import Plan
from nncc.vta.tiling import MOST_PADDING, Axis, Span, axes, live_sums, steps, tiles_of

__all__ = ["estimate", "plans", "refusal"]

_FOLLOWED = 16
"""Plans whose tiles are followed through the queues."""
_LONGEST_LOOP = (1 << 14) - 1


def refusal(layer: Layer, plan: Plan, machine: Machine) -> str:
    """Why a machine cannot compute a layer by a plan; empty if it can."""
    if reason := beyond(layer, machine) or _malformed(layer, plan):
        return reason
    for axis, extent, size, word in zip(
        axes(layer, machine), layer.output[1:], plan.tile[1:], ("rows", "columns"), strict=True
    ):
        if reason := _padding_refusal(axis, extent, size, word):
            return reason
    if layer.pad_value and any(layer.padding) and not machine.has("pad_value"):
        return f"padding is 0 on this machine, not {layer.pad_value}"
    if layer.kind == "depthwise" and not machine.has("multiply_accumulate"):
        return "this machine has no multiply-accumulate by lanes"
    rows = axes(layer, machine)[0].pitch * layer.input[2] if layer.input[1] > 1 else 0
    filters = layer.input[0] * prod(layer.kernel) if layer.kind == "conv2d" and plan.tile[0] > 1 else 0
    for apart, word in ((max(rows, layer.output[2] * (layer.output[1] > 1)), "rows"), (filters, "filters")):
        if apart > WIDEST:
            return f"{word} are {apart} elements apart, and those of a LOAD or STORE at most {WIDEST}"
    counts = _counts(layer, plan)
    if plan.buffers[2] < live_sums(plan.order, *counts):
        return f"{live_sums(plan.order, *counts)} tiles of sums are begun at once, and {plan.buffers[2]} have a place"
    used = plan_footprint(layer, plan, machine)
    for name, count in used.scratchpads.items():
        if count > depth(machine, name):
            return f"{count} elements do not fit {name.upper()}, which has {depth(machine, name)}"
    if used.sums > _LONGEST_LOOP:
        return f"a tile has {used.sums} vectors, and a loop at most {_LONGEST_LOOP} iterations"
    if _longest_list(layer, plan) > machine.depth("uop"):
        return f"a list of micro-operations does not fit UOP, which has {machine.depth('uop')}"
    return ""


def _malformed(layer: Layer, plan: Plan) -> str:
    """Why a plan is none for a layer of these sizes."""
    extents = (*layer.output, layer.input[0] if layer.kind == "conv2d" else 1)
    for size, extent, word in zip(
        (*plan.tile, plan.reduction), extents, ("blocks", "rows", "columns", "inputs"), strict=True
    ):
        if not 1 <= size <= extent:
            return f"a tile has {size} {word} of {extent}"
    if sorted(plan.order) != ["c", "o", "s"]:
        return f"`{plan.order}` is no order of the loops o, s and c"
    if min(plan.buffers) < 1:
        return f"a memory has {min(plan.buffers)} tiles"
    return ""


@lru_cache(maxsize=4096)
def _padding_refusal(axis: Axis, extent: int, size: int, word: str) -> str:
    """Why no LOAD pads the tiles of rows or columns."""
    for span in tiles_of(extent, size):
        before, behind = axis.padding_of(span)
        if before + behind >= axis.seen(span).size:
            return f"a tile sees nothing but padding in its {word}"
        if max(before, behind) > MOST_PADDING:
            return f"a tile has {max(before, behind)} {word} of padding on one side, and a LOAD at most {MOST_PADDING}"
    return ""


@lru_cache(maxsize=1024)
def plans(layer: Layer, machine: Machine, limit: int = _FOLLOWED) -> tuple[Plan, ...]:
    """At most `limit` plans for a layer, the best first. Raises TargetError if there is none."""
    reason, found = "no tile fits its memories", []
    for plan in best_first(layer, machine):
        if refused := refusal(layer, plan, machine):
            reason = refused
        else:
            found.append(plan)
        if len(found) >= max(limit, _FOLLOWED):
            break
    if not found:
        raise TargetError(f"accelerator: no plan for {layer.to_json()}: {reason}")
    scores = [_score(layer, plan, machine) for plan in found[:_FOLLOWED]]
    ranked = [found[index] for index in np.argsort(scores, kind="stable")]
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


def estimate(layer: Layer, plan: Plan, machine: Machine) -> int:
    """Cycles of a layer by a plan, alone in a program."""
    return sum(_followed(layer, plan, machine))


def _score(layer: Layer, plan: Plan, machine: Machine) -> float:
    """What plans are ranked by: of the ends of a layer, its neighbours in a program hide the greater part."""
    cycles, ends = _followed(layer, plan, machine)
    return cycles + SHOWN * ends


@lru_cache(maxsize=4096)
def _followed(layer: Layer, plan: Plan, machine: Machine) -> tuple[int, int]:
    """Cycles of a layer by a plan, its tiles followed through the queues, but for those of its ends: before anything is
    computed, and after everything is. The read port is the load queue's alone here."""
    start = machine.issue_cycles + MEMORIES[machine.memory].latency
    overhead = machine.issue_cycles + machine.pipeline_cycles
    rows, columns = axes(layer, machine)
    vectors_of, weights_of, results_of = (_rows(machine, memory) for memory in ("inp", "wgt", "out"))
    taps, conv = prod(layer.kernel), layer.kind == "conv2d"
    per_weight = taps if conv else ceil(taps / machine.block)
    per_vector, instructions = alu_cycles(layer, machine)
    split = 2 * overhead if machine.has("overwrite") or not conv else 3 * overhead
    loaded = computed = stored = 0.0
    data_done, weights_done, sums_free = ([0.0] * count for count in plan.buffers)
    data_free, weights_free = ([0.0] * count for count in plan.buffers[:2])
    begun = 0.0
    lists: set[tuple[Any, ...]] = set()
    uops, has_weights = 0, layer.kind in ("conv2d", "depthwise")
    for step in steps(layer, plan):
        blocks, height, width, inputs = (span.size for span in step[:4])
        if step.loads_weights and has_weights:
            filters = blocks, per_weight * (inputs if conv else 1), conv and inputs < layer.input[0]
            loaded = max(loaded, weights_free[step.weights]) + start + weights_of(*filters)
            weights_done[step.weights] = loaded
        if step.loads_data:
            tall, long = _real(rows, step.rows), _real(columns, step.columns)
            padded = any(rows.padding_of(step.rows)) or any(columns.padding_of(step.columns))
            together = long == columns.size and rows.pitch == columns.pitch == 1 and not padded
            loads = 1 if together else inputs
            if together:
                lines = vectors_of(inputs, tall * long, True)
            else:
                lines = inputs * vectors_of(tall, long * columns.pitch, long < columns.size or rows.pitch > 1)
            loaded = max(loaded, data_free[step.data]) + start * loads + lines
            data_done[step.data] = loaded
        vectors, pieces = blocks * height * width, 1 if width == layer.output[2] else blocks
        ready = max(computed, data_done[step.data], weights_done[step.weights])
        if step.first:
            ready = max(ready, sums_free[step.sums])
        begun = begun or ready
        computed = ready
        if conv:
            computed += vectors * inputs * taps + (split if step.first else overhead)
            key = (step.data, step.weights, step.sums, step.first, blocks, height, width, inputs)
            if key not in lists:
                lists.add(key)
                uops += prod(sorted((blocks, height, width))[:1]) * inputs * taps
        data_free[step.data] = weights_free[step.weights] = computed
        if step.last:
            box = (blocks, height * width, True) if pieces == 1 else (height, width, True)
            if layer.residual or layer.kind == "add":
                loaded += pieces * (start + vectors_of(*box))
                computed = max(computed, loaded)
            computed += vectors * per_vector + instructions * overhead
            stored = max(stored, computed) + pieces * (start + results_of(*box))
            sums_free[step.sums] = stored
            data_free[step.data] = computed
    loaded_lists = uops * machine.element_bytes("uop") / port_of(machine, "uop").bytes_per_cycle
    return round(computed - begun + loaded_lists), round(begun + max(0.0, stored - computed))


def _rows(machine: Machine, memory: str) -> Callable[[int, int, bool], float]:
    """Cycles of rows of so many elements, which lie apart or side by side in DRAM."""
    port, nbytes = port_of(machine, memory), machine.element_bytes(memory)
    return lru_cache(maxsize=64)(lambda rows, row, apart: float(port.cycles(rows, row * nbytes, apart)))


def _real(axis: Axis, span: Span) -> int:
    """How many of what windows see are in the input."""
    return axis.seen(span).size - sum(axis.padding_of(span))
