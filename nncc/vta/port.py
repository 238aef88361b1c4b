"""How long rows take between DRAM and the chip, by the rules of ``nncc/runtime/vta/timing.cpp``.

A row is moved in bursts, of which so many may be under way, each for the latency and its beats: short rows take what
the latency makes of them, however wide the bus is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.vta.machine import MEMORIES, Machine

__all__ = ["Port", "port_of"]


@dataclass(frozen=True)
class Port:
    """The way of one memory of the chip to the machine's DRAM."""

    bytes_per_cycle: int
    """Of the bus, the DRAM, and a memory that takes in an element a cycle, the least."""
    burst_bytes: int
    latency: int
    outstanding: int

    def cycles(self, rows: Any, row_bytes: Any, apart: Any = True) -> Any:
        """From the first beat to the last, of rows that lie apart in DRAM or else make one; numbers, or arrays."""
        count, length = np.where(apart, rows, 1), np.where(apart, row_bytes, rows * row_bytes)
        bursts = np.maximum(count * -(-length // self.burst_bytes), 1)
        beats = count * length / self.bytes_per_cycle / bursts
        # A burst begins when the one so many before it has ended.
        groups, rest = (bursts - 1) // self.outstanding, (bursts - 1) % self.outstanding + 1
        return groups * np.maximum(self.outstanding * beats, self.latency + beats) + rest * beats


def port_of(machine: Machine, memory: str) -> Port:
    """For elements of a memory of the chip (``inp``, ``wgt``, ``out``)."""
    dram = MEMORIES[machine.memory]
    wide = min(dram.bytes_per_cycle or machine.bus_bytes, machine.bus_bytes)
    wide = wide if memory == "out" else min(wide, machine.element_bytes(memory))
    return Port(wide, dram.burst_bytes, dram.latency, dram.outstanding)
