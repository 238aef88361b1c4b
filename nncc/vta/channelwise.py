"""Layers that keep to their channels: depthwise convolutions, maxima of windows, sums of two tensors."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, prod

from nncc.vta.epilogue import Epilogue, clip, sum_with_residual
from nncc.vta.footprint import other_slots, plan_footprint
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.moves import Box, load_box, load_windows, store_box
from nncc.vta.nests import Loop, nest
from nncc.vta.stream import Alu, Gemm, Load, Operation, Place, Plan
from nncc.vta.tiling import Axis, Step, axes, steps

__all__ = ["add", "depthwise", "max_pool"]


def depthwise(layer: Layer, plan: Plan, machine: Machine) -> Iterator[Operation]:
    """One pass of multiply-accumulate for each tap of the window, then requantization."""
    rows, columns = axes(layer, machine)
    used, taps = plan_footprint(layer, plan, machine), prod(layer.kernel)
    elements, epilogue = ceil(taps / machine.block), Epilogue(layer, plan, machine, used)
    for index, step in enumerate(steps(layer, plan)):
        weights, data, sums = step.weights * used.weights, step.data * used.data, step.sums * used.sums
        if step.loads_weights:
            count = step.blocks.size * elements
            yield Load("wgt", Place(1, step.blocks.start * elements), weights, 1, count, count)
        if index == 0:
            yield from epilogue.constants()
        box = Box(step.blocks, step.rows, step.columns)
        if step.loads_data:
            yield from load_windows("inp", box, rows, columns, data, layer.pad_value)
        places = _places(step, rows, columns, elements)
        for tap, offset in enumerate(_taps(layer, step, rows, columns)):
            loops = nest(places, (sums, data + offset, weights + tap // machine.block), weights_move=False)
            immediate = tap % machine.block
            yield Alu(**loops, operation="MAC", immediate=immediate, overwrite=tap == 0, from_inp=True)
        yield from epilogue.finish(step, index)


def max_pool(layer: Layer, plan: Plan, machine: Machine) -> Iterator[Operation]:
    """The first tap's numbers replace the sums, the others are compared with them.

    An ALU that does not read INP gets the data in ACC, behind the sums.
    """
    rows, columns = axes(layer, machine)
    used, own = plan_footprint(layer, plan, machine), machine.has("from_inp")
    for step in steps(layer, plan):
        box, sums = Box(step.blocks, step.rows, step.columns), step.sums * used.sums
        data = step.data * used.data if own else plan.buffers[2] * used.sums + step.sums * used.data
        if step.loads_data or not own:
            yield from load_windows("inp" if own else "acc8", box, rows, columns, data, layer.pad_value)
        window = [Loop(layer.kernel[0], 0, rows.dilation * columns.seen(step.columns).size)]
        window.append(Loop(layer.kernel[1], 0, columns.dilation))
        every = nest(_places(step, rows, columns), (sums, data, 0), window)
        uops = every.pop("uops").reshape(-1, prod(layer.kernel), 3)
        if own:
            yield Alu(uops[:, 0], **every, operation="MAX", overwrite=True, from_inp=True)
        else:
            vectors = Loop(prod(span.size for span in step[:3]), 1, 0)
            yield Gemm(**nest([vectors], (sums, 0, 0)), reset=True)
            yield Alu(uops[:, 0], **every)
        if uops.shape[1] > 1:
            yield Alu(uops[:, 1:].reshape(-1, 3), **every, operation="MAX", from_inp=own)
        yield from store_box(box, layer.output[1:], sums, 1)


def add(layer: Layer, plan: Plan, machine: Machine) -> Iterator[Operation]:
    """Data is moved to the sums, the other tensor is added to it."""
    used, own = plan_footprint(layer, plan, machine), machine.has("quantized_add")
    plane = layer.output[1:]
    for index, step in enumerate(steps(layer, plan)):
        box, sums = Box(step.blocks, step.rows, step.columns), step.sums * used.sums
        vectors = prod(span.size for span in step[:3])
        loops = [Loop(vectors, 1, 1)]
        if own:
            if index == 0:
                yield Load("par", Place(1, 0), 0, 1, 1, 1)
            data = step.data * used.data
            other = plan.buffers[0] * used.data + index % other_slots(plan.buffers[0]) * used.residual
            yield from load_box("inp", box, plane, data, 0)
            yield from load_box("inp", box, plane, other, 2)
            yield Alu(**nest(loops, (sums, data, 0)), operation="MAX", overwrite=True, from_inp=True)
            yield sum_with_residual(layer, loops, (sums, other, 0))
        else:
            other = plan.buffers[2] * used.sums + step.sums * used.sums
            yield from load_box("acc8", box, plane, sums, 0)
            yield from load_box("acc8", box, plane, other, 1)
            yield Alu(**nest(loops, (sums, other, 0)))
            yield from clip(layer, vectors, sums)
        yield from store_box(box, plane, sums, 3 if own else 2)


def _places(step: Step, rows: Axis, columns: Axis, weights: int = 0) -> list[Loop]:
    """Loops over a tile of the output; `weights` elements of WGT are of a block."""
    height, width = rows.seen(step.rows).size, columns.seen(step.columns).size
    return [
        Loop(step.blocks.size, step.rows.size * step.columns.size, height * width, weights),
        Loop(step.rows.size, step.columns.size, rows.step * width),
        Loop(step.columns.size, 1, columns.step),
    ]


def _taps(layer: Layer, step: Step, rows: Axis, columns: Axis) -> list[int]:
    """Where each tap of the first window is, in a tile of data."""
    width = columns.seen(step.columns).size
    return [
        y * rows.dilation * width + x * columns.dilation for y in range(layer.kernel[0]) for x in range(layer.kernel[1])
    ]
