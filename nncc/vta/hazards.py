"""Which operations must be complete before another one may begin, element by element.

The three queues run side by side, each in its order. What an operation reads must have been written, and what it writes
must have been read, as the program says it in one order. Each memory has one queue that writes it: LOADs write INP, WGT
and PAR, the compute queue writes OUT, STOREs write the arena. ACC and UOP belong to the compute queue alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from nncc.vta.machine import MEMORIES, Machine
from nncc.vta.port import port_of
from nncc.vta.stream import Alu, Gemm, Load, Loops, Operation, Store

__all__ = ["COMPUTE", "LOAD", "STORE", "Elements", "Work", "dependences", "works"]

LOAD, COMPUTE, STORE = 0, 1, 2
"""The queues, in the order of their tokens."""

Elements = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Work:
    """An operation as the queues see it."""

    operation: Operation
    """With addresses of the whole chip, and of arguments in DRAM."""
    layer: int
    queue: int
    cycles: int
    """About how long it takes, alone on the machine."""
    reads: Mapping[str, Elements] = field(default_factory=dict)
    """By memory (``inp``, ``wgt``, ``par``, ``out``, ``arena``), which elements; of the arena, blocks of bytes."""
    writes: Mapping[str, Elements] = field(default_factory=dict)


def works(operations: Sequence[Operation], layer: int, addresses: Sequence[int], machine: Machine) -> Iterator[Work]:
    """The operations of a layer whose arguments have these addresses in bytes."""
    sets: dict[object, Elements] = {}
    for operation in operations:
        if isinstance(operation, (Load, Store)):
            yield _move(operation, layer, addresses, machine)
        else:
            yield _computation(operation, layer, machine, sets)


def _move(move: Load | Store, layer: int, addresses: Sequence[int], machine: Machine) -> Work:
    step = move.x_step if isinstance(move, Load) else 1
    name = move.memory if isinstance(move, Load) else "out"
    span = (move.x_size - 1) * step + 1
    moved = _moving(machine, name, move.y_size, span, move.x_stride > span)
    rows, columns = move.y_size, move.x_size
    if isinstance(move, Load):
        rows, columns = rows + sum(move.y_pad), columns + sum(move.x_pad)
    cycles = machine.issue_cycles + MEMORIES[machine.memory].latency + max(moved, rows * columns)
    chip = np.arange(move.sram, move.sram + rows * columns)
    base = machine.description.memory(name).base
    arena: dict[str, Elements] = {}
    if base == "arena":
        first = addresses[move.place.argument] // machine.block + move.place.element
        places = first + np.arange(move.y_size)[:, None] * move.x_stride + np.arange(span)
        arena = {"arena": places.reshape(-1)}
    if isinstance(move, Store):
        return Work(move, layer, STORE, cycles, {"out": chip}, arena)
    if machine.description.memory(name).queue == "compute":
        return Work(move, layer, COMPUTE, cycles, arena)
    return Work(move, layer, LOAD, cycles, arena, {name: chip})


@lru_cache(maxsize=4096)
def _moving(machine: Machine, memory: str, rows: int, row: int, apart: bool) -> int:
    """Cycles of rows of so many elements, which lie apart or side by side in DRAM."""
    return round(float(port_of(machine, memory).cycles(rows, row * machine.element_bytes(memory), apart)))


def _computation(loops: Gemm | Alu, layer: int, machine: Machine, sets: dict[object, Elements]) -> Work:
    iterations = loops.iterations[0] * loops.iterations[1] * len(loops.uops)
    reads: dict[str, Elements] = {}
    writes = {"out": _elements(loops, 0, sets)}
    each = 1
    if isinstance(loops, Gemm):
        if loops.reset:
            writes = {}
        else:
            reads = {"inp": _elements(loops, 1, sets), "wgt": _elements(loops, 2, sets)}
    else:
        operation = machine.description.operation(loops.operation)
        source = "imm" if operation.immediate == "operand" and loops.immediate is not None else "acc"
        source = "inp" if loops.from_inp else "par" if loops.operation == "RQ" else source
        each = dict(operation.cycles)[source]
        if source in ("inp", "par"):
            reads[source] = _elements(loops, 1, sets)
        if loops.operation in ("MAC", "QADD"):
            reads["wgt" if loops.operation == "MAC" else "par"] = _elements(loops, 2, sets)
    cycles = machine.issue_cycles + machine.pipeline_cycles + each * iterations
    return Work(loops, layer, COMPUTE, cycles, reads, writes)


def _elements(loops: Loops, column: int, sets: dict[object, Elements]) -> Elements:
    """The elements that a column of micro-operations goes to; `sets` keeps what was found before."""
    strides = (loops.dst, loops.src, loops.wgt)[column]
    key = (loops.uops[:, column].tobytes(), loops.iterations, strides)
    if key not in sets:
        found = np.unique(loops.uops[:, column])
        for count, stride in zip(loops.iterations, strides, strict=True):
            if stride and count > 1:
                found = np.unique(found[:, None] + np.arange(count) * stride)
        sets[key] = found
    return sets[key]


def dependences(program: Sequence[Work], machine: Machine) -> list[tuple[int, ...]]:
    """For each operation, the last ones of other queues that it must wait for."""
    depths = {"inp": machine.depth("inp"), "wgt": machine.depth("wgt"), "out": machine.depth("acc")}
    depths["par"] = machine.depth("par") if machine.has("requantize") else 0
    depths["arena"] = 1 + max((int(_arena(work).max(initial=0)) for work in program), default=0)
    written = {name: np.full(depth, -1, np.int64) for name, depth in depths.items()}
    read = {(name, queue): np.full(depth, -1, np.int64) for name, depth in depths.items() for queue in _READERS[name]}
    found = []
    for index, work in enumerate(program):
        needed = {int(written[name][elements].max(initial=-1)) for name, elements in work.reads.items()}
        for name, elements in work.writes.items():
            needed |= {int(read[name, queue][elements].max(initial=-1)) for queue in _READERS[name]}
        for name, elements in work.reads.items():
            read[name, work.queue][elements] = index
        for name, elements in work.writes.items():
            written[name][elements] = index
        found.append(tuple(sorted(each for each in needed if each >= 0 and program[each].queue != work.queue)))
    return found


_READERS = {"inp": (COMPUTE,), "wgt": (COMPUTE,), "par": (COMPUTE,), "out": (STORE,), "arena": (LOAD, COMPUTE)}
"""The queues that read a memory."""


def _arena(work: Work) -> Elements:
    empty = np.zeros(0, np.int64)
    return np.concatenate([work.reads.get("arena", empty), work.writes.get("arena", empty)])
