"""What a layer takes at least: cycles of its instructions, and bytes that they move."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from nncc.vta.machine import Machine
from nncc.vta.stream import Alu, Load, Loops, Store, Stream

__all__ = ["Totals", "totals"]


@dataclass(frozen=True)
class Totals:
    """Of one stream; micro-operations, which the linker loads, are not counted."""

    gemm: int
    """Cycles of products."""
    alu: int
    """Cycles of the ALU."""
    issue: int
    """Cycles that the instructions of both begin and end in."""
    read_bytes: int
    written_bytes: int


def totals(stream: Stream, machine: Machine) -> Totals:
    """The sums over a stream's operations."""
    gemm = alu = count = read = written = 0
    for operation in stream.operations:
        if isinstance(operation, Loops):
            iterations = prod(operation.iterations) * len(operation.uops)
            count += 1
            if isinstance(operation, Alu):
                alu += iterations * _cycles(operation, machine)
            else:
                gemm += iterations
        elif isinstance(operation, Load):
            # What the DMA drops of a row, it has read.
            span = (operation.x_size - 1) * operation.x_step + 1 if operation.x_size else 0
            read += operation.y_size * span * machine.element_bytes(operation.memory)
        elif isinstance(operation, Store):
            written += operation.y_size * operation.x_size * machine.element_bytes("out")
    return Totals(gemm, alu, count * (machine.issue_cycles + machine.pipeline_cycles), read, written)


def _cycles(operation: Alu, machine: Machine) -> int:
    """Of one iteration."""
    description = machine.description.operation(operation.operation)
    by_source = dict(description.cycles)
    if operation.immediate is not None and description.immediate == "operand":
        return by_source["imm"]
    return by_source["par" if "par" in by_source else "inp" if operation.from_inp else "acc"]
