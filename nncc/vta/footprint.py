"""What of the chip's memories a layer uses, by its tiles and buffers."""

from __future__ import annotations

from math import ceil
from typing import Any, NamedTuple

from nncc.vta.layer import Layer
from nncc.vta.machine import Machine
from nncc.vta.stream import Plan
from nncc.vta.tiling import Span, axes

__all__ = ["Footprint", "depth", "footprint", "other_slots", "params_whole", "plan_footprint"]


class Footprint(NamedTuple):
    """Elements of the chip's memories that a layer uses under a plan: of one slot, and in all."""

    data: int
    residual: int
    weights: int
    sums: int
    inp: int
    wgt: int
    acc: int
    par: int

    @property
    def scratchpads(self) -> dict[str, int]:
        return {"inp": self.inp, "wgt": self.wgt, "acc": self.acc, "par": self.par}


def plan_footprint(layer: Layer, plan: Plan, machine: Machine) -> Footprint:
    """What a plan needs."""
    return footprint(layer, machine, plan.tile, plan.reduction, plan.buffers)


def footprint(layer: Layer, machine: Machine, tile: Any, reduction: Any, buffers: Any) -> Footprint:
    """What tiles and buffers as those of `Plan` need; numbers, or arrays for many plans at once.

    The memories lie so: slots of data, slots of residual data; slots of weights, the identity (for residuals without an
    ALU that reads INP); slots of sums, biases (without PAR).
    """
    rows, columns = axes(layer, machine)
    blocks, height, width = tile
    own = machine.has("requantize")
    inputs = reduction if layer.kind == "conv2d" else blocks
    data = inputs * rows.seen(Span(0, height)).size * columns.seen(Span(0, width)).size
    sums = blocks * height * width
    weights = blocks * 0
    if layer.kind == "conv2d":
        weights = blocks * reduction * layer.kernel[0] * layer.kernel[1]
    elif layer.kind == "depthwise":
        weights = blocks * ceil(layer.kernel[0] * layer.kernel[1] / machine.block)
    other = sums if layer.residual or layer.kind == "add" else sums * 0
    in_sums = layer.kind in ("max_pool", "add") and not own
    inp = 0 * data if in_sums else buffers[0] * data + other_slots(buffers[0]) * other
    acc = buffers[2] * (sums + (data if layer.kind == "max_pool" else sums) * in_sums)
    acc = acc + (0 if own or in_sums else layer.output[0])
    wgt = buffers[1] * weights + (bool(layer.residual) and not own)
    par = params_held(layer, machine, blocks) if own else 0 * blocks
    return Footprint(data, other, weights, sums, inp, wgt, acc, par)


def depth(machine: Machine, memory: str) -> int:
    """Elements that a memory of the chip holds; none if the machine has none."""
    known = any(kind.name == memory for kind in machine.description.memories)
    return machine.depth(memory) if known else 0


def other_slots(slots: Any) -> Any:
    """Slots of residual data beside so many of data: two, or one beside one."""
    return 2 - (slots < 2)


def params_whole(layer: Layer, machine: Machine) -> bool:
    """Whether the parameters of all blocks are held at once; else those of two tiles are."""
    return layer.kind in ("max_pool", "add") or layer.output[0] + bool(layer.residual) <= machine.depth("par")


def params_held(layer: Layer, machine: Machine, blocks: Any) -> Any:
    """Elements of PAR for tiles of so many blocks; the residual's lies behind the others."""
    if layer.kind in ("max_pool", "add"):
        return (layer.kind == "add") + 0 * blocks
    if params_whole(layer, machine):
        return layer.output[0] + bool(layer.residual) + 0 * blocks
    return 2 * blocks + bool(layer.residual)
