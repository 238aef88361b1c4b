"""A machine of an instruction set: sizes of its memories, its bus, its pipelines; and the DRAM it is put to.

Sizes are checked here: a `Machine` that exists can be encoded for, and each of its memories holds a tile.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property
from typing import Any

from nncc.errors import TargetError, did_you_mean
from nncc.vta.isa import PROFILES, Field, MemoryKind, Profile

__all__ = ["MEMORIES", "Bits", "Machine", "Memory"]


@dataclass(frozen=True)
class Memory:
    """A DRAM as the machine's ports see it, in cycles of the machine."""

    name: str
    latency: int
    """Cycles from a request to its first beat, or from the last beat written to the response."""
    bytes_per_cycle: int
    """0: as many as the machine's bus has."""
    burst_bytes: int
    """The longest burst."""
    outstanding: int
    """Requests in flight, for each client of a port."""
    clock_mhz: int
    """The machine's clock beside such a memory; 0: the machine's own."""
    doc: str


MEMORIES = {
    memory.name: memory
    for memory in (
        Memory("ideal", 0, 0, 128, 2, 0, "no latency, the whole bus"),
        Memory("pynq", 64, 8, 128, 8, 100, "a 64-bit port at 100 MHz, bursts of 16 beats"),
        Memory("ultra96", 110, 16, 256, 8, 333, "a 128-bit port at 333 MHz, bursts of 16 beats"),
    )
}
"""Named memories; a figure in cycles is always told with one of these."""


@dataclass(frozen=True)
class Bits:
    """Where a field lies: bits `offset` to `offset` + `width`, which are in one half of 64 bits."""

    name: str
    offset: int
    width: int
    signed: bool

    @property
    def least(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def most(self) -> int:
        return (1 << (self.width - 1 if self.signed else self.width)) - 1


@dataclass(frozen=True)
class Machine:
    """A configuration. Raises TargetError where one cannot be encoded or cannot hold a tile.

    Its fields are the keys of ``[accelerator]`` in ``targets/*.toml``.
    """

    profile: str = "nv1"
    """The instruction set: a name of `PROFILES`."""
    block: int = 16
    """Lanes: a GEMM multiplies a vector of `block` by a matrix of `block` x `block` in a cycle."""
    inp_kib: int = 32
    wgt_kib: int = 256
    acc_kib: int = 128
    """Sums; the memory of results (OUT) has as many elements of a quarter of the size."""
    uop_kib: int = 0
    """Micro-operations; 0: 32 for ``vta0``, 16 for ``nv1``."""
    par_kib: int = 0
    """Parameters of requantization; 0: 32 for ``nv1``, none for ``vta0``."""
    bus_bytes: int = 8
    """Width of the read port and of the write port."""
    clock_mhz: int = 100
    memory: str = "pynq"
    """The DRAM that is simulated where nothing else is asked for: a name of `MEMORIES`."""
    issue_cycles: int = 4
    """From the start of an instruction to its first iteration or request."""
    pipeline_cycles: int = 8
    """From the last iteration of a GEMM or ALU instruction to its end."""
    queue_depth: int = 32
    """Instructions that wait in each queue."""
    fetch_depth: int = 64
    """Instructions that are requested or wait for their queue."""

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            hint = did_you_mean(self.profile, PROFILES) or f"known: {', '.join(PROFILES)}"
            raise TargetError(f"accelerator: unknown profile `{self.profile}`", hint)
        if self.memory not in MEMORIES:
            hint = did_you_mean(self.memory, MEMORIES) or f"known: {', '.join(MEMORIES)}"
            raise TargetError(f"accelerator: unknown memory `{self.memory}`", hint)
        own = any(memory.name == "par" for memory in self.description.memories)
        object.__setattr__(self, "uop_kib", self.uop_kib or (16 if own else 32))
        object.__setattr__(self, "par_kib", self.par_kib or (32 if own else 0))
        if self.par_kib and not own:
            raise TargetError(f"accelerator: profile `{self.profile}` has no PAR, but par_kib = {self.par_kib}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise TargetError(f"accelerator: {name} = {value} is not between {least} and {most}")
        for name in ("block", "bus_bytes", "inp_kib", "wgt_kib", "acc_kib", "uop_kib", "par_kib"):
            value = getattr(self, name)
            if value & (value - 1):
                raise TargetError(f"accelerator: {name} = {value} is not a power of two")
        for kind in self.description.memories:
            if not kind.held_in and self.depth(kind.name) < 2:
                size = self.sram_bytes(kind.name)
                raise TargetError(
                    f"accelerator: {kind.name.upper()} holds no tile: it has {self._bytes_on_chip(kind)} bytes, two "
                    f"elements of {size} need {2 * size}",
                    "make it larger, or the block smaller",
                )
        self._check_formats()

    @staticmethod
    def from_table(table: Mapping[str, Any], where: str) -> Machine:
        """The machine of a table ``[accelerator]``; `where` is for errors. Raises TargetError."""
        known = {field.name: type(field.default) for field in fields(Machine) if field.default is not MISSING}
        for key, value in table.items():
            if key not in known:
                hint = did_you_mean(key, known) or f"known: {', '.join(known)}"
                raise TargetError(f"{where}: [accelerator] has an unknown key `{key}`", hint)
            if type(value) is not known[key]:
                raise TargetError(
                    f"{where}: [accelerator] {key} = {value!r} is no {'text' if known[key] is str else 'whole number'}"
                )
        return Machine(**table)

    @property
    def description(self) -> Profile:
        return PROFILES[self.profile]

    def has(self, capability: str) -> bool:
        """Whether the instruction set has a capability of `Profile.capabilities`."""
        return capability in self.description.capabilities

    def element_bytes(self, memory: str) -> int:
        """Bytes of an element in DRAM."""
        constant, linear, square = self.description.memory(memory).element
        return constant + linear * self.block + square * self.block**2

    def sram_bytes(self, memory: str) -> int:
        """Bytes of an element on the chip."""
        return self.element_bytes(self.description.memory(memory).held_in or memory)

    def depth(self, memory: str) -> int:
        """Elements that a memory of the chip holds."""
        kind = self.description.memory(memory)
        return self._bytes_on_chip(kind) // self.sram_bytes(memory)

    def _bytes_on_chip(self, kind: MemoryKind) -> int:
        name = kind.held_in or kind.name
        return 1024 * self.acc_kib // 4 if name == "out" else 1024 * int(getattr(self, f"{name}_kib"))

    @cached_property
    def formats(self) -> dict[str, tuple[Bits, ...]]:
        """By kind of instruction (and ``uop``), where each field lies."""
        depths = {kind.name: self.depth(kind.name) for kind in self.description.memories}
        par = depths.get("par", 1)
        widths = {
            "uop": _index_bits(depths["uop"]),
            "dst": _index_bits(depths["acc"]),
            "src": _index_bits(max(depths["acc"], depths["inp"], par)),
            "wgt": _index_bits(max(depths["wgt"], par)),
        }
        return {name: _placed(form, widths) for name, form in self.description.formats.items()}

    def _check_formats(self) -> None:
        hint = "the memories are too deep for the instructions: make them smaller, or the block larger"
        for name, form in self.formats.items():
            limit, used = (32 if name == "uop" else 128), 0
            for bits in form:
                end = bits.offset + bits.width
                mask = (1 << end) - (1 << bits.offset)
                if used & mask or end > limit or bits.offset // 64 != (end - 1) // 64:
                    message = f"accelerator: the fields of `{name}` do not fit: `{bits.name}` would be bits"
                    raise TargetError(f"{message} {bits.offset} to {end - 1}", hint)
                used |= mask
        sram = next(bits for bits in self.formats["load"] if bits.name == "sram")
        for kind in self.description.memories:
            if self.depth(kind.name) - 1 > sram.most:
                message = f"accelerator: {kind.name.upper()} has {self.depth(kind.name)} elements"
                raise TargetError(f"{message}, which the {sram.width} bits of `sram` cannot address", hint)

    @property
    def clock_beside_memory_mhz(self) -> int:
        """The clock that cycles beside its DRAM are told for."""
        return MEMORIES[self.memory].clock_mhz or self.clock_mhz

    @property
    def configuration(self) -> str:
        """What a program depends on besides the profile, as one word: for people and for headers."""
        sizes = "_".join(f"{kind}{getattr(self, f'{kind}_kib')}" for kind in ("inp", "wgt", "acc", "uop", "par"))
        return f"{self.profile}_{self.block}x{self.block}_{sizes}"

    @cached_property
    def isa_hash(self) -> str:
        """SHA-256 of all that gives a program its meaning: a program runs on machines with the same one only."""
        profile = asdict(self.description)
        profile["formats"] = {
            name: [[bits.name, bits.offset, bits.width, bits.signed] for bits in form]
            for name, form in self.formats.items()
        }
        meaning = {"profile": _without_docs(profile), "configuration": self.configuration}
        text = json.dumps(meaning, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


_RANGES = {
    "block": (8, 64),
    "inp_kib": (1, 4096),
    "wgt_kib": (1, 16384),
    "acc_kib": (1, 16384),
    "uop_kib": (1, 1024),
    "par_kib": (0, 1024),
    "bus_bytes": (4, 64),
    "clock_mhz": (1, 10000),
    "issue_cycles": (1, 64),
    "pipeline_cycles": (1, 64),
    "queue_depth": (1, 1024),
    "fetch_depth": (1, 1024),
}


def _index_bits(depth: int) -> int:
    """Bits of an index below `depth`, at least one."""
    return max(1, (depth - 1).bit_length())


def _placed(form: tuple[Field, ...], widths: Mapping[str, int]) -> tuple[Bits, ...]:
    placed, end = [], 0
    for field in form:
        width = sum(widths[word] if word in widths else int(word) for word in field.width.split("+"))
        offset = end if field.at is None else field.at
        placed.append(Bits(field.name, offset, width, field.signed))
        end = offset + width
    return tuple(placed)


def _without_docs(value: Any) -> Any:
    """Words for readers do not change what a program means."""
    if isinstance(value, dict):
        return {key: _without_docs(each) for key, each in value.items() if key not in ("doc", "capabilities")}
    return [_without_docs(each) for each in value] if isinstance(value, (list, tuple)) else value
