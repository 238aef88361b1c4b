"""Convolutions, and dense layers as such of 1x1: products on the matrix unit, then requantization, then a residual sum.

With an instruction for it (`overwrite`), the first products of a tile replace its sums, which need no reset then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from nncc.vta.epilogue import Epilogue
from nncc.vta.footprint import Footprint, plan_footprint
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.moves import WIDEST, Box, load_windows
from nncc.vta.nests import Loop, nest
from nncc.vta.stream import Gemm, Load, Operation, Place, Plan
from nncc.vta.tiling import Axis, Step, axes, steps

__all__ = ["conv2d"]


@dataclass(frozen=True)
class _Shape:
    layer: Layer
    plan: Plan
    machine: Machine
    rows: Axis
    columns: Axis
    used: Footprint

    @property
    def taps(self) -> int:
        return prod(self.layer.kernel)


def conv2d(layer: Layer, plan: Plan, machine: Machine) -> Iterator[Operation]:
    """The operations of a convolution, in order."""
    shape = _Shape(layer, plan, machine, *axes(layer, machine), plan_footprint(layer, plan, machine))
    epilogue, tiles = Epilogue(layer, plan, machine, shape.used), 0
    for index, step in enumerate(steps(layer, plan)):
        if step.loads_weights:
            yield _load_weights(shape, step)
        if index == 0:
            yield from epilogue.constants()
        if step.loads_data:
            box = Box(step.reduction, step.rows, step.columns)
            slot = step.data * shape.used.data
            yield from load_windows("inp", box, shape.rows, shape.columns, slot, layer.pad_value)
        yield from _products(shape, step)
        if step.last:
            yield from epilogue.finish(step, tiles)
            tiles += 1


def _load_weights(shape: _Shape, step: Step) -> Load:
    inputs, taps = shape.layer.input[0], shape.taps
    first = (step.blocks.start * inputs + step.reduction.start) * taps
    slot = step.weights * shape.used.weights
    rows, row = step.blocks.size, step.reduction.size * taps
    if step.reduction.size == inputs and rows * row <= WIDEST:
        rows, row = 1, rows * row
    return Load("wgt", Place(1, first), slot, rows, row, inputs * taps if rows > 1 else row)


def _products(shape: _Shape, step: Step) -> Iterator[Gemm]:
    """Sums of products of a step: all of them, or the first tap's and then the others'."""
    layer, (blocks, rows, columns, inputs) = shape.layer, (span.size for span in step[:4])
    height, width = (axis.seen(span).size for axis, span in ((shape.rows, step.rows), (shape.columns, step.columns)))
    kernel = layer.kernel
    base = (step.sums * shape.used.sums, step.data * shape.used.data, step.weights * shape.used.weights)
    places = [
        Loop(blocks, rows * columns, 0, inputs * shape.taps),
        Loop(rows, columns, shape.rows.step * width),
        Loop(columns, 1, shape.columns.step),
    ]
    reduction = [
        Loop(inputs, 0, height * width, shape.taps),
        Loop(kernel[0], 0, shape.rows.dilation * width, kernel[1]),
        Loop(kernel[1], 0, shape.columns.dilation, 1),
    ]
    if not step.first:
        yield Gemm(**nest([*places, *reduction], base))
        return
    if not shape.machine.has("overwrite"):
        yield Gemm(**nest([Loop(blocks * rows * columns, 1, 0)], (base[0], 0, 0)), reset=True)
        yield Gemm(**nest([*places, *reduction], base))
        return
    every = nest(places, base, reduction)
    length = inputs * shape.taps
    uops = every.pop("uops").reshape(-1, length, 3)
    yield Gemm(uops[:, 0], **every, overwrite=True)
    if length > 1:
        yield Gemm(np.ascontiguousarray(uops[:, 1:]).reshape(-1, 3), **every)
