"""Streams of consecutive layers become one program.

Each layer gets its part of each scratchpad, beside the part of the layer before where both fit, so that what it loads
first can come while that one computes. Micro-operations are loaded where they are needed; dependences are found element
by element, on the chip and in DRAM, across layers as inside of them, and become tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from nncc.errors import InternalError
from nncc.vta.encoding import encode_all, encode_uops
from nncc.vta.hazards import Work, dependences, works
from nncc.vta.issue import Issued, issue
from nncc.vta.machine import Machine
from nncc.vta.stream import OWN_UOPS, Alu, Gemm, Load, Loops, Operation, Place, Store, Stream
from nncc.vta.uop_cache import UopLoad, cached

__all__ = ["Linked", "Located", "link"]


@dataclass(frozen=True)
class Located:
    """A stream, and where its arguments lie."""

    stream: Stream
    addresses: tuple[int, ...]
    """In bytes, of each argument: of weights and parameters in the constants, of all others in the arena."""


@dataclass(frozen=True, eq=False)
class Linked:
    """A program in the form of the machine."""

    instructions: npt.NDArray[np.uint64]
    """[n, 2], the last one FINISH."""
    uops: npt.NDArray[np.uint32]
    """What has to lie in the constants where `link` was told."""
    layers: tuple[tuple[int, int], ...]
    """For each stream, its first instruction and the one behind its last; those of neighbours overlap."""


def link(streams: Sequence[Located], machine: Machine, uops_address: int) -> Linked:
    """One program of layers in order; `uops_address` is where its micro-operations will lie in the constants, in bytes.

    Raises InternalError if an address is not a multiple of what it is counted in.
    """
    bases = _places([located.stream for located in streams], machine)
    program: list[Work] = []
    for index, (located, base) in enumerate(zip(streams, bases, strict=True)):
        _check_addresses(located, machine)
        operations = [_moved(operation, base) for operation in located.stream.operations]
        program += works(operations, index, located.addresses, machine)
    loops = [work for work in program if isinstance(work.operation, Loops)]
    lists = [encode_uops(machine, work.operation.uops) for work in loops if isinstance(work.operation, Loops)]
    cache = cached(lists, [work.layer for work in loops], machine.depth("uop"))
    places = {id(work): place for work, place in zip(loops, cache.places, strict=True)}
    program = _with_loads(program, loops, cache.loads, machine)
    order = issue(program, dependences(program, machine), machine.issue_cycles)
    return Linked(
        _instructions(order, program, places, streams, uops_address, machine),
        cache.image,
        _layers(order, len(streams)),
    )


def _places(streams: Sequence[Stream], machine: Machine) -> list[dict[str, int]]:
    """By memory, where each layer's part begins: where it shares least with the part of the layer before."""
    bases: list[dict[str, int]] = []
    before: dict[str, tuple[int, int]] = {}
    for stream in streams:
        base = {}
        for memory, size in stream.scratchpads.items():
            begin, end = before.get(memory, (0, 0))
            shared = {at: max(0, min(at + size, end) - max(at, begin)) for at in (0, machine.depth(memory) - size)}
            base[memory] = min(shared, key=shared.__getitem__)
            before[memory] = (base[memory], base[memory] + size)
        bases.append(base)
    return bases


def _check_addresses(located: Located, machine: Machine) -> None:
    stream = located.stream
    if len(located.addresses) != len(stream.arguments):
        message = (
            f"{len(located.addresses)} addresses for {len(stream.arguments)} arguments of {stream.layer.to_json()}"
        )
        raise InternalError(f"accelerator: {message}")
    used = {(each.place.argument, each.memory if isinstance(each, Load) else "out")
            for each in stream.operations if isinstance(each, (Load, Store))}  # fmt: skip
    for argument, memory in sorted(used):
        address, size = located.addresses[argument], machine.element_bytes(memory)
        if address < 0 or address % size:
            message = f"argument {argument} of {stream.layer.to_json()} lies at {address}, not at a multiple of {size}"
            raise InternalError(f"accelerator: {message}")


def _moved(operation: Operation, base: dict[str, int]) -> Operation:
    """An operation in the layer's part of the chip."""
    acc = base.get("acc", 0)
    if isinstance(operation, Store):
        return replace(operation, sram=operation.sram + acc)
    if isinstance(operation, Load):
        memory = "acc" if operation.memory == "acc8" else operation.memory
        return replace(operation, sram=operation.sram + base.get(memory, 0))
    source, third = "inp", "wgt"
    if isinstance(operation, Alu):
        source = "inp" if operation.from_inp else "par" if operation.operation == "RQ" else "acc"
        third = "par" if operation.operation == "QADD" else "wgt" if operation.operation == "MAC" else ""
        source = "" if operation.immediate is not None and source == "acc" else source
    elif operation.reset:
        source = third = ""
    offset = np.array([acc, base.get(source, 0), base.get(third, 0)], np.int64)
    return replace(operation, uops=operation.uops + offset)


def _with_loads(program: list[Work], loops: list[Work], loads: Sequence[UopLoad], machine: Machine) -> list[Work]:
    """The program with loads of micro-operations before the instructions that need them."""
    before = {id(loops[load.before]): load for load in loads}
    found: list[Work] = []
    for work in program:
        if load := before.get(id(work)):
            move = Load("uop", Place(OWN_UOPS, load.source), load.target, 1, load.size, load.size)
            found += works([move], work.layer, (), machine)
        found.append(work)
    return found


def _layers(order: Sequence[Issued], count: int) -> tuple[tuple[int, int], ...]:
    first, end = [len(order)] * count, [0] * count
    for index, each in enumerate(order):
        first[each.layer] = min(first[each.layer], index)
        end[each.layer] = index + 1
    return tuple(zip(first, end, strict=True))


def _instructions(
    order: Sequence[Issued],
    program: Sequence[Work],
    places: dict[int, int],
    streams: Sequence[Located],
    uops_address: int,
    machine: Machine,
) -> npt.NDArray[np.uint64]:
    rows: dict[str, list[tuple[int, dict[str, int]]]] = {}
    for index, each in enumerate(order):
        work = None if each.work is None else program[each.work]
        if work is None:
            kind, fields = "load", {"memory": machine.description.memory("uop").id}
        elif isinstance(work.operation, Loops):
            kind, fields = _loops(work.operation, places[id(work)], machine)
        else:
            own = work.operation.place.argument == OWN_UOPS
            kind, fields = _move(work.operation, uops_address if own else _address(work, streams), machine)
        for queue in each.pops:
            fields["pop_prev" if queue < each.queue else "pop_next"] = 1
        for queue in each.pushes:
            fields["push_prev" if queue < each.queue else "push_next"] = 1
        rows.setdefault(kind, []).append((index, fields))
    rows["finish"] = [(len(order), {})]
    found = np.zeros((len(order) + 1, 2), np.uint64)
    for kind, each_row in rows.items():
        names = {name for _, fields in each_row for name in fields}
        columns = {name: [fields.get(name, 0) for _, fields in each_row] for name in sorted(names)}
        found[[index for index, _ in each_row]] = encode_all(machine, kind, **columns)
    return found


def _address(work: Work, streams: Sequence[Located]) -> int:
    assert isinstance(work.operation, (Load, Store))
    return streams[work.layer].addresses[work.operation.place.argument]


def _move(move: Load | Store, address: int, machine: Machine) -> tuple[str, dict[str, int]]:
    kind = machine.description.memory(move.memory if isinstance(move, Load) else "out")
    fields = {
        "memory": kind.id,
        "sram": move.sram,
        "dram": address // machine.element_bytes(kind.name) + move.place.element,
        "y_size": move.y_size,
        "x_size": move.x_size,
        "x_stride": move.x_stride,
    }
    if isinstance(move, Store):
        return "store", fields
    fields |= {"y_pad_0": move.y_pad[0], "y_pad_1": move.y_pad[1], "x_pad_0": move.x_pad[0], "x_pad_1": move.x_pad[1]}
    fields |= {"pad_value": move.pad_value} if move.pad_value else {}
    fields |= {"x_skip": move.x_step - 1} if move.x_step > 1 else {}
    return "load", fields


def _loops(loops: Loops, place: int, machine: Machine) -> tuple[str, dict[str, int]]:
    fields = {
        "uop_bgn": place,
        "uop_end": place + len(loops.uops),
        "iter_out": loops.iterations[0],
        "iter_in": loops.iterations[1],
        "dst_out": loops.dst[0],
        "dst_in": loops.dst[1],
        "src_out": loops.src[0],
        "src_in": loops.src[1],
    }
    if isinstance(loops, Gemm):
        fields |= {"reset": int(loops.reset)}
        fields |= {"overwrite": 1} if loops.overwrite else {}
        return "gemm", fields | {"wgt_out": loops.wgt[0], "wgt_in": loops.wgt[1]}
    assert isinstance(loops, Alu)
    operation = machine.description.operation(loops.operation)
    fields |= {"alu_op": operation.id, "imm": loops.immediate or 0}
    fields |= {"use_imm": 1} if loops.immediate is not None and operation.immediate == "operand" else {}
    fields |= {"overwrite": 1} if loops.overwrite else {}
    fields |= {"from_inp": 1} if loops.from_inp else {}
    return "alu", fields
