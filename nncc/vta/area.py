"""How large an accelerator is, in mm² of 40 nm silicon: an estimate by what it is made of, to compare machines.

Arithmetic and registers are those that Aladdin counts with, of a commercial 40 nm library (Shao, Reagen, Wei, Brooks:
"Aladdin: a pre-RTL, power-performance accelerator simulator", ISCA 2014); what is of another width is scaled from 32
bits: adders, shifters and registers by the width, multipliers by its square. A bit of a scratchpad is a cell of 600
squares of half the feature size (the rule of thumb for six transistors: 0.24 um2), a quarter more for the second port,
and as much again for decoders, sense amplifiers and wires. Counted is the datapath of the core in ``nncc/vta/rtl``: its
wires, its control and the clock tree are not, so that the whole is larger by a part that is about the same for all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.errors import UsageError

if TYPE_CHECKING:
    from nncc.vta.machine import Machine

__all__ = ["Area", "Budget", "area_of", "budget_of"]

_REGISTER_UM2 = 5.98
"""Of one bit; the others are of 32 bits."""
_ADD_UM2 = 278.0
_SHIFT_UM2 = 250.0
_MULTIPLY_UM2 = 6350.0
_FLOAT_ADD_UM2 = 4360.0
_FLOAT_MULTIPLY_UM2 = 8970.0
_SRAM_UM2 = 0.24 * 1.25 * 2
"""Of one bit."""
_PRODUCT_UM2 = _MULTIPLY_UM2 / 16 + 0.75 * _ADD_UM2 + 16 * _REGISTER_UM2
"""A multiplier of 8 bits, its adder in the tree (24 bits), the register between."""
_LANE_UM2 = 2 * _ADD_UM2 + _SHIFT_UM2 + _MULTIPLY_UM2 + 4 * 32 * _REGISTER_UM2
"""The sum of products; adder (which compares too), shifter and multiplier of the ALU; four stages."""
_FLOAT_LANE_UM2 = 2 * _FLOAT_MULTIPLY_UM2 + 2 * _FLOAT_ADD_UM2 + 3 * _FLOAT_ADD_UM2 / 2 + _MULTIPLY_UM2 / 16
"""Two products and two sums; three conversions, each half an adder: what shifts and rounds; the product of MAC."""


@dataclass(frozen=True)
class Area:
    """mm² of 40 nm silicon, by part."""

    products: float
    """The matrix unit."""
    lanes: float
    """The vector unit."""
    scratchpads: float
    ports: float
    """To DRAM, with the instructions that wait."""

    @property
    def total(self) -> float:
        return self.products + self.lanes + self.scratchpads + self.ports


def area_of(machine: Machine) -> Area:
    """The estimate for a machine."""
    lane = _LANE_UM2 + (_FLOAT_LANE_UM2 if machine.has("requantize") else 0.0)
    kinds = [kind.name for kind in machine.description.memories if not kind.held_in]
    bits = 8 * sum(machine.depth(name) * machine.sram_bytes(name) for name in kinds)
    waiting = 128 * (3 * machine.queue_depth + machine.fetch_depth)
    # A beat comes in and is turned to where its elements begin, and so is one that leaves.
    beats = 2 * 8 * machine.bus_bytes * (2 * _REGISTER_UM2 + _SHIFT_UM2 / 32)
    return Area(
        machine.block**2 * _PRODUCT_UM2 * 1e-6,
        machine.block * lane * 1e-6,
        bits * _SRAM_UM2 * 1e-6,
        (waiting * _REGISTER_UM2 + beats) * 1e-6,
    )


@dataclass(frozen=True)
class Budget:
    """How large a machine may be."""

    number: float
    relative: bool
    """Whether `number` is a multiple of another machine's area, else mm²."""

    def mm2(self, own: Machine) -> float:
        """What it is beside the target's own machine."""
        return self.number * area_of(own).total if self.relative else self.number


def budget_of(text: str) -> Budget:
    """``3.5`` or ``3.5mm2``: mm²; ``1.5x``: times the target's own machine. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(mm2|x)?", text.strip())
    if found is None or not float(found[1]):
        hint = "mm² of 40 nm silicon, as `3.5`, or times the target's own machine, as `1.5x`"
        raise UsageError(f"`--budget {text}` is no area", hint)
    return Budget(float(found[1]), found[2] == "x")
