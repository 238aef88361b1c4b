"""Instructions as numbers and back: one at a time, or columns of fields as arrays.

An instruction is two uint64, the lower one first; a program is an array [n, 2]. What `decode` gives is checked for
form only (the opcode, bits that belong to no field); what a machine does with it, the simulator and the interpreter
check.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.errors import InternalError, RunError
from nncc.vta.isa import OPCODES
from nncc.vta.machine import Bits, Machine

__all__ = [
    "Instruction",
    "decode",
    "decode_all",
    "decode_uops",
    "encode",
    "encode_all",
    "encode_uops",
    "words_of",
]

_KINDS = {number: kind for kind, number in OPCODES.items()}


@dataclass(frozen=True)
class Instruction:
    """A decoded instruction: its kind, a key of `OPCODES`, and its fields."""

    kind: str
    fields: dict[str, int]


def encode(machine: Machine, kind: str, **values: int) -> int:
    """The instruction of `kind` with these fields, all others 0, as a number of 128 bits.

    Raises InternalError if there is no such field or a value does not fit: whoever makes instructions has to know.
    """
    low, high = encode_all(machine, kind, **{name: np.array([value]) for name, value in values.items()})[0]
    return int(low) | int(high) << 64


def encode_all(machine: Machine, kind: str, **columns: Any) -> np.ndarray:
    """As many instructions of `kind` as the longest column has values: uint64 [n, 2]; single numbers are for all.

    Raises InternalError as `encode`.
    """
    form = {bits.name: bits for bits in machine.formats[kind]}
    arrays = {name: np.atleast_1d(np.asarray(column, np.int64)) for name, column in columns.items()}
    count = max((len(array) for array in arrays.values()), default=1)
    words = np.zeros((count, 2), np.uint64)
    words[:, 0] = OPCODES[kind]
    for name, array in arrays.items():
        if name == "opcode" or name not in form:
            raise InternalError(f"accelerator: a `{kind}` of {machine.profile} has no field `{name}`")
        words[:, form[name].offset // 64] |= _placed(form[name], array, kind, form[name].offset % 64)
    return words


def encode_uops(machine: Machine, uops: np.ndarray) -> np.ndarray:
    """Micro-operations as uint32 [n], from integers [n, 3]: dst, src, wgt. Raises InternalError as `encode`."""
    words = np.zeros(len(uops), np.uint64)
    for column, bits in enumerate(machine.formats["uop"]):
        words |= _placed(bits, np.asarray(uops[:, column], np.int64), "uop", bits.offset)
    return words.astype(np.uint32)


def decode(machine: Machine, word: int) -> Instruction:
    """The instruction that a number of 128 bits is.

    Raises RunError if there is none: an unknown opcode, or a bit is set that belongs to no field.
    """
    kind = _KINDS.get(word & 7)
    if kind is None:
        raise RunError(f"no instruction has the opcode {word & 7}")
    fields, used = {}, 0
    for bits in machine.formats[kind]:
        raw = word >> bits.offset & ((1 << bits.width) - 1)
        used |= raw << bits.offset
        fields[bits.name] = raw - (1 << bits.width) if bits.signed and raw >> (bits.width - 1) else raw
    if word != used:
        raise RunError(
            f"a `{kind}` has bit {((word ^ used) & -(word ^ used)).bit_length() - 1} set, which is no field's"
        )
    return Instruction(kind, fields)


def decode_all(machine: Machine, words: np.ndarray) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """By kind, the indices of its instructions in a program uint64 [n, 2], and their fields as columns of int64.

    Instructions with an unknown opcode are in none; bits that belong to no field are not looked at.
    """
    opcodes = words[:, 0] & np.uint64(7)
    found: dict[str, tuple[np.ndarray, dict[str, np.ndarray]]] = {}
    for kind, number in OPCODES.items():
        at = np.flatnonzero(opcodes == number)
        found[kind] = at, {bits.name: _taken(bits, words[at, bits.offset // 64]) for bits in machine.formats[kind]}
    return found


def decode_uops(machine: Machine, words: np.ndarray) -> np.ndarray:
    """Integers [n, 3]: dst, src, wgt, from uint32 [n]."""
    wide = np.asarray(words).astype(np.uint64)
    return np.stack([_taken(bits, wide) for bits in machine.formats["uop"]], axis=1)


def words_of(program: np.ndarray) -> list[int]:
    """A program uint64 [n, 2] as numbers of 128 bits."""
    return [int(low) | int(high) << 64 for low, high in program]


def _placed(bits: Bits, values: np.ndarray, kind: str, shift: int) -> np.ndarray:
    wrong = (values < bits.least) | (values > bits.most)
    if wrong.any():
        value = int(np.broadcast_to(values, wrong.shape)[wrong][0])
        message = f"accelerator: {bits.name} = {value} of a `{kind}` is not between {bits.least} and {bits.most}"
        raise InternalError(message)
    return (values.astype(np.uint64) & np.uint64((1 << bits.width) - 1)) << np.uint64(shift)


def _taken(bits: Bits, words: np.ndarray) -> np.ndarray:
    raw = (words >> np.uint64(bits.offset % 64) & np.uint64((1 << bits.width) - 1)).astype(np.int64)
    return np.where(raw > bits.most, raw - (1 << bits.width), raw) if bits.signed else raw
