"""How a layer is cut into tiles, in which order they are computed, and what of them stays on the chip.

A step computes one tile of the output from one tile of input channels. Each memory of the chip is a ring of slots: a
tile that is in none takes the place of the one that came first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.stream import Plan

__all__ = ["MOST_PADDING", "Axis", "Span", "Step", "axes", "live_sums", "steps", "tiles_of"]

MOST_PADDING = 15
"""Rows or elements of padding on one side of a LOAD."""


class Span(NamedTuple):
    """Some consecutive blocks, rows or columns."""

    start: int
    size: int


@dataclass(frozen=True)
class Axis:
    """Rows or columns of the input as windows see them."""

    size: int
    kernel: int
    stride: int
    dilation: int
    padding: int
    """Before the first one."""
    sparse: bool
    """Whether only every `stride`-th one is loaded: the window has one tap, and the DMA can leave out the others."""

    def seen(self, span: Span) -> Span:
        """What windows at a span of outputs see, in units of `pitch`; it may begin below 0 and end behind the input."""
        if self.sparse:
            return span
        return Span(
            span.start * self.stride - self.padding,
            (span.size - 1) * self.stride + (self.kernel - 1) * self.dilation + 1,
        )

    @property
    def pitch(self) -> int:
        """From one that is loaded to the next, in the input."""
        return self.stride if self.sparse else 1

    @property
    def step(self) -> int:
        """From the window of one output to the next one's, in what is loaded."""
        return 1 if self.sparse else self.stride

    @property
    def length(self) -> int:
        """How many can be loaded."""
        return ceil(self.size / self.pitch)

    def padding_of(self, span: Span) -> tuple[int, int]:
        """How much of what windows at a span see lies before and behind the input."""
        start, size = self.seen(span)
        return max(0, -start), max(0, start + size - self.length)


def axes(layer: Layer, machine: Machine) -> tuple[Axis, Axis]:
    """Rows and columns."""
    top, left, bottom, right = layer.padding
    bare = [kernel == 1 and stride > 1 and not pads for kernel, stride, pads in (
        (layer.kernel[0], layer.stride[0], top or bottom), (layer.kernel[1], layer.stride[1], left or right)
    )]  # fmt: skip
    steps = machine.has("x_step") and layer.stride[1] <= 4
    rows = Axis(layer.input[1], layer.kernel[0], layer.stride[0], layer.dilation[0], top, bare[0])
    return rows, Axis(layer.input[2], layer.kernel[1], layer.stride[1], layer.dilation[1], left, bare[1] and steps)


class Step(NamedTuple):
    """A tile of the output, a tile of input blocks, the slots of what it needs, and what must be loaded first."""

    blocks: Span
    rows: Span
    columns: Span
    reduction: Span
    data: int
    weights: int
    sums: int
    loads_data: bool
    loads_weights: bool
    first: bool
    """Of the steps of this tile of the output."""
    last: bool


def steps(layer: Layer, plan: Plan) -> Iterator[Step]:
    """All steps in the order of the plan."""
    reduces = layer.kind == "conv2d"
    blocks = tiles_of(layer.output[0], plan.tile[0])
    spaces = [
        (rows, columns)
        for rows in tiles_of(layer.output[1], plan.tile[1])
        for columns in tiles_of(layer.output[2], plan.tile[2])
    ]
    reductions = tiles_of(layer.input[0], plan.reduction) if reduces else [Span(0, 0)]
    counts = {"o": len(blocks), "s": len(spaces), "c": len(reductions)}
    outer, middle, inner = tuple(plan.order)
    data, weights, sums = (_Ring(count) for count in plan.buffers)
    for first in range(counts[outer]):
        for second in range(counts[middle]):
            for third in range(counts[inner]):
                at = {outer: first, middle: second, inner: third}
                o, s, c = at["o"], at["s"], at["c"]
                data_slot, loads_data = data.place((s, c if reduces else o))
                weights_slot, loads_weights = weights.place((o, c))
                sums_slot, _ = sums.place((o, s))
                yield Step(
                    blocks[o], *spaces[s], reductions[c] if reduces else blocks[o], data_slot, weights_slot, sums_slot,
                    loads_data, loads_weights, c == 0, c == len(reductions) - 1,
                )  # fmt: skip


class _Ring:
    """Slots that are filled in turn."""

    def __init__(self, count: int) -> None:
        self.held: list[tuple[int, int] | None] = [None] * count
        self.slots: dict[tuple[int, int], int] = {}
        self.next = 0

    def place(self, key: tuple[int, int]) -> tuple[int, bool]:
        """The slot of a tile, and whether it was in none."""
        slot = self.slots.get(key)
        if slot is not None:
            return slot, False
        slot, old = self.next, self.held[self.next]
        if old is not None:
            del self.slots[old]
        self.held[slot] = key
        self.slots[key] = slot
        self.next = (slot + 1) % len(self.held)
        return slot, True


def tiles_of(extent: int, size: int) -> list[Span]:
    """An extent in tiles of a size, the last one with what is left."""
    return [Span(start, min(size, extent - start)) for start in range(0, extent, size)]


def live_sums(order: str, blocks: int, spaces: int, reductions: int) -> int:
    """Tiles of the output that are begun before the first is complete."""
    if reductions == 1:
        return 1
    inside = order[order.index("c") + 1 :]
    return (blocks if "o" in inside else 1) * (spaces if "s" in inside else 1)
