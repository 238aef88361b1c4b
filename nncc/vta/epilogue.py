"""How sums of products become the output: operations on one tile of the accumulators, and its store.

A machine with requantization does all in one operation, and adds a residual by another. One without adds the bias,
shifts and clips; it adds the residual by multiplying it with an identity matrix, which is one cycle a vector where
loading and adding it to the sums takes four.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from nncc.vta.footprint import Footprint, other_slots, params_whole
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.moves import Box, load_box, store_box
from nncc.vta.nests import Loop, nest
from nncc.vta.stream import Alu, Gemm, Load, Operation, Place, Plan
from nncc.vta.tiling import Step

__all__ = ["Epilogue", "clip", "sum_with_residual"]


@dataclass(frozen=True)
class Epilogue:
    """Of a layer with products, under a plan that uses so much of the chip."""

    layer: Layer
    plan: Plan
    machine: Machine
    used: Footprint

    @property
    def _whole(self) -> bool:
        return params_whole(self.layer, self.machine)

    @property
    def _sum(self) -> int:
        """The element of PAR of the residual's sum."""
        return self.layer.output[0] if self._whole else 2 * self.plan.tile[0]

    @property
    def _identity(self) -> int:
        """Where in WGT the identity is."""
        return self.plan.buffers[1] * self.used.weights

    @property
    def _bias(self) -> int:
        """Where in ACC the biases are."""
        return self.plan.buffers[2] * self.used.sums

    def constants(self) -> list[Load]:
        """What is loaded once, at the beginning."""
        layer, blocks = self.layer, self.layer.output[0]
        residual = bool(layer.residual)
        if not self.machine.has("requantize"):
            filters = Place(1, blocks * layer.input[0] * prod(layer.kernel))
            identity = [Load("wgt", filters, self._identity, 1, 1, 1)] if residual else []
            return [Load("acc", Place(2, 0), self._bias, 1, blocks, blocks), *identity]
        if self._whole:
            return [Load("par", Place(2, 0), 0, 1, blocks + residual, blocks + residual)]
        return [Load("par", Place(2, blocks), self._sum, 1, 1, 1)] if residual else []

    def finish(self, step: Step, tile: int) -> Iterator[Operation]:
        """The output of a step whose sums are complete; it is the `tile`-th of them."""
        layer, blocks = self.layer, step.blocks
        box, plane = Box(blocks, step.rows, step.columns), layer.output[1:]
        sums, pixels = step.sums * self.used.sums, step.rows.size * step.columns.size
        slots = self.plan.buffers[0]
        other = slots * self.used.data + tile % other_slots(slots) * self.used.residual
        vectors = [Loop(blocks.size * pixels, 1, 1)]
        if layer.residual:
            yield from load_box("inp", box, plane, other, 3)
        if self.machine.has("requantize"):
            params = blocks.start if self._whole else tile % 2 * self.plan.tile[0]
            if not self._whole:
                yield Load("par", Place(2, blocks.start), params, 1, blocks.size, blocks.size)
            yield self._requantize(blocks.size, pixels, sums, params)
            if layer.residual:
                yield sum_with_residual(layer, vectors, (sums, other, self._sum))
        else:
            yield from self._shift(blocks.size, pixels, sums, self._bias + blocks.start)
            if layer.residual:
                yield Gemm(**nest(vectors, (sums, other, self._identity)))
            yield from clip(layer, blocks.size * pixels, sums)
        yield from store_box(box, plane, sums, 4 if layer.residual else 3)

    def _requantize(self, blocks: int, pixels: int, sums: int, params: int) -> Alu:
        """int8 on the grid of the result; `params` is the element of PAR of the first block."""
        immediate = (self.layer.zero & 0xFF) | (0x100 if self.layer.relu else 0)
        loops = nest([Loop(blocks, pixels, 1), Loop(pixels, 1, 0)], (sums, params, 0))
        return Alu(**loops, operation="RQ", immediate=immediate)

    def _shift(self, blocks: int, pixels: int, sums: int, bias: int) -> Iterator[Alu]:
        """(acc + bias) >> shift; `bias` is the element of ACC of the first block's."""
        yield Alu(**nest([Loop(blocks, pixels, 1), Loop(pixels, 1, 0)], (sums, bias, 0)))
        if self.layer.shift:
            loops = nest([Loop(blocks * pixels, 1, 0)], (sums, 0, 0))
            yield Alu(**loops, operation="SHR", immediate=self.layer.shift)


def sum_with_residual(layer: Layer, loops: list[Loop], base: tuple[int, int, int]) -> Alu:
    """The sum of int8 in ACC and int8 in INP; the third of `base` is the element of PAR."""
    immediate = 1 if layer.residual == "second" else 0
    return Alu(**nest(loops, base), operation="QADD", immediate=immediate, from_inp=True)


def clip(layer: Layer, vectors: int, sums: int) -> Iterator[Alu]:
    """To int8, or to what of it is not negative."""
    loops = nest([Loop(vectors, 1, 0)], (sums, 0, 0))
    yield Alu(**loops, operation="MAX", immediate=0 if layer.relu else -128)
    yield Alu(**loops, operation="MIN", immediate=127)
