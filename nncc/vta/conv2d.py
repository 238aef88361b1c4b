"""Convolutions, and dense layers as such of 1x1: products on the matrix unit, then requantization, then a residual sum.

With an instruction for it (`overwrite`), the first products of a tile replace its sums, which need no reset then. A
machine without requantization adds the bias, shifts and clips; one whose ALU does not read INP adds the residual by
multiplying it with an identity matrix, which is one cycle a vector where loading and adding it to the sums takes four.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from nncc.vta.epilogue import requantize, shift_and_clip, sum_with_residual
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.moves import Box, load_box, load_windows, store_box
from nncc.vta.nests import Loop, nest
from nncc.vta.stream import Gemm, Load, Operation, Place, Plan
from nncc.vta.tiling import Axis, Footprint, Step, axes, footprint, steps

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

    @property
    def residual(self) -> int:
        """Where in INP the slots of residual data begin."""
        return self.plan.buffers[0] * self.used.data

    @property
    def identity(self) -> int:
        """Where in WGT the identity is."""
        return self.plan.buffers[1] * self.used.weights

    @property
    def bias(self) -> int:
        """Where in ACC the biases are."""
        return self.plan.buffers[2] * self.used.sums


def conv2d(layer: Layer, plan: Plan, machine: Machine) -> Iterator[Operation]:
    """The operations of a convolution, in order."""
    shape = _Shape(layer, plan, machine, *axes(layer, machine), footprint(layer, plan, machine))
    tiles = 0
    for index, step in enumerate(steps(layer, plan)):
        if step.loads_weights:
            yield _load_weights(shape, step)
        if index == 0:
            yield from _load_constants(shape)
        if step.loads_data:
            box = Box(step.reduction, step.rows, step.columns)
            slot = step.data * shape.used.data
            yield from load_windows("inp", box, shape.rows, shape.columns, slot, layer.pad_value)
        yield from _products(shape, step)
        if step.last:
            yield from _finish(shape, step, tiles)
            tiles += 1


def _load_weights(shape: _Shape, step: Step) -> Load:
    inputs, taps = shape.layer.input[0], shape.taps
    first = (step.blocks.start * inputs + step.reduction.start) * taps
    slot = step.weights * shape.used.weights
    rows, row = step.blocks.size, step.reduction.size * taps
    if step.reduction.size == inputs and rows * row < 1 << 16:
        rows, row = 1, rows * row
    return Load("wgt", Place(1, first), slot, rows, row, inputs * taps)


def _load_constants(shape: _Shape) -> Iterator[Load]:
    layer = shape.layer
    if shape.machine.has("requantize"):
        yield Load("par", Place(2, 0), 0, 1, shape.used.par, shape.used.par)
        return
    blocks = layer.output[0]
    yield Load("acc", Place(2, 0), shape.bias, 1, blocks, blocks)
    if layer.residual:
        yield Load("wgt", Place(1, blocks * layer.input[0] * shape.taps), shape.identity, 1, 1, 1)


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


def _finish(shape: _Shape, step: Step, tile: int) -> Iterator[Operation]:
    """Requantization, the residual's sum, and the store of one tile of the output."""
    layer, machine = shape.layer, shape.machine
    box, plane = Box(step.blocks, step.rows, step.columns), layer.output[1:]
    sums, pixels = step.sums * shape.used.sums, step.rows.size * step.columns.size
    other = shape.residual + tile % min(2, shape.plan.buffers[0]) * shape.used.residual
    if layer.residual:
        yield from load_box("inp", box, plane, other, 3)
    vectors = [Loop(step.blocks.size * pixels, 1, 1)]
    if machine.has("requantize"):
        yield requantize(layer, step.blocks, pixels, sums)
        if layer.residual:
            yield sum_with_residual(layer, vectors, (sums, other, layer.output[0]))
    else:
        residual = Gemm(**nest(vectors, (sums, other, shape.identity))) if layer.residual else None
        yield from shift_and_clip(layer, step.blocks, pixels, sums, shape.bias, residual)
    yield from store_box(box, plane, sums, 4 if layer.residual else 3)
