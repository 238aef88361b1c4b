"""What is done with sums of products before they are stored: operations on one tile of the accumulators."""

from __future__ import annotations

from collections.abc import Iterator

from nncc.vta.layer import Layer
from nncc.vta.nests import Loop, nest
from nncc.vta.stream import Alu, Operation
from nncc.vta.tiling import Span

__all__ = ["clip", "requantize", "shift_and_clip", "sum_with_residual"]


def requantize(layer: Layer, blocks: Span, pixels: int, sums: int) -> Alu:
    """int8 on the grid of the result, by the parameters of each block."""
    immediate = (layer.zero & 0xFF) | (0x100 if layer.relu else 0)
    loops = nest([Loop(blocks.size, pixels, 1), Loop(pixels, 1, 0)], (sums, blocks.start, 0))
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
