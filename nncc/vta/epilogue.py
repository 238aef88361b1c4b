"""What is done with sums of products before they are stored: operations on one tile of the accumulators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nncc.vta.footprint import params_whole
from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.nests import Loop, nest
from nncc.vta.stream import Alu, Load, Operation, Place
from nncc.vta.tiling import Span

__all__ = ["Params", "clip", "requantize", "shift_and_clip", "sum_with_residual"]


@dataclass(frozen=True)
class Params:
    """Where the parameters of a layer with products lie in PAR: of all blocks, or of two tiles of blocks in turn."""

    layer: Layer
    machine: Machine
    tile: int
    """Blocks of a tile."""

    @property
    def whole(self) -> bool:
        return params_whole(self.layer, self.machine)

    @property
    def residual(self) -> int:
        """The element of the residual's sum."""
        return self.layer.output[0] if self.whole else 2 * self.tile

    def first_loads(self) -> list[Load]:
        """What is loaded once."""
        count, blocks = self.layer.output[0] + bool(self.layer.residual), self.layer.output[0]
        if self.whole:
            return [Load("par", Place(2, 0), 0, 1, count, count)]
        return [Load("par", Place(2, blocks), self.residual, 1, 1, 1)] if self.layer.residual else []

    def place(self, blocks: Span, index: int) -> int:
        """The first element of the blocks of the `index`-th tile of the output."""
        return blocks.start if self.whole else index % 2 * self.tile

    def loads(self, blocks: Span, index: int) -> list[Load]:
        """What is loaded for that tile."""
        if self.whole:
            return []
        return [Load("par", Place(2, blocks.start), self.place(blocks, index), 1, blocks.size, blocks.size)]


def requantize(layer: Layer, blocks: Span, pixels: int, sums: int, params: int) -> Alu:
    """int8 on the grid of the result; `params` is the element of PAR of the first block."""
    immediate = (layer.zero & 0xFF) | (0x100 if layer.relu else 0)
    loops = nest([Loop(blocks.size, pixels, 1), Loop(pixels, 1, 0)], (sums, params, 0))
    return Alu(**loops, operation="RQ", immediate=immediate)


def sum_with_residual(layer: Layer, loops: list[Loop], base: tuple[int, int, int]) -> Alu:
    """The sum of int8 in ACC and int8 in INP; the third of `base` is the element of PAR."""
    immediate = 1 if layer.residual == "second" else 0
    return Alu(**nest(loops, base), operation="QADD", immediate=immediate, from_inp=True)


def shift_and_clip(
    layer: Layer, blocks: Span, pixels: int, sums: int, bias: int, residual: Operation | None
) -> Iterator[Operation]:
    """(acc + bias) >> shift, what the residual's sum is done by, and the bounds; biases lie in ACC from `bias` on."""
    yield Alu(**nest([Loop(blocks.size, pixels, 1), Loop(pixels, 1, 0)], (sums, bias + blocks.start, 0)))
    if layer.shift:
        yield Alu(**nest([Loop(blocks.size * pixels, 1, 0)], (sums, 0, 0)), operation="SHR", immediate=layer.shift)
    if residual is not None:
        yield residual
    yield from clip(layer, blocks.size * pixels, sums)


def clip(layer: Layer, vectors: int, sums: int) -> Iterator[Alu]:
    """To int8, or to what of it is not negative."""
    loops = nest([Loop(vectors, 1, 0)], (sums, 0, 0))
    yield Alu(**loops, operation="MAX", immediate=0 if layer.relu else -128)
    yield Alu(**loops, operation="MIN", immediate=127)
