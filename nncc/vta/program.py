"""A program of the accelerator as bytes: alone in a file, or inside of a library, where its first bytes find it.

All numbers are little-endian:

    bytes 0 to 8     ``NNCC_VTA``
    8 to 12          version of this form
    12 to 16         CRC-32 (as of zlib) of all bytes from 16 on
    16 to 24         size of the whole, in bytes
    24 to 40         how many bytes of text, layers, instructions, micro-operations
    40 to 72         SHA-256 of the instruction set: `Machine.isa_hash`
    72 to 128        zeros

Then come, each part from a multiple of 64 bytes on: the machine as JSON; for each layer its first instruction and the
one behind its last, as two uint32; the instructions, 16 bytes each; the micro-operations, 4 bytes each.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import numpy as np

from nncc.errors import RunError, TargetError
from nncc.vta.machine import Machine

__all__ = ["MAGIC", "Binary", "binary_bytes", "find_binaries", "places_in", "read_binary"]

MAGIC = b"NNCC_VTA"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQIIII32s56x")
_CHECKED_FROM = 16
_MOST_TEXT = 4096
"""Bytes that the text of a machine may have: it is short."""


@dataclass(frozen=True, eq=False)
class Binary:
    """A program, and what it was made for."""

    machine: Machine
    instructions: np.ndarray
    """uint64 [n, 2], the last one FINISH."""
    uops: np.ndarray
    """uint32 [n]: what its LOADs of micro-operations read."""
    layers: tuple[tuple[int, int], ...]
    """For each layer, its first instruction and the one behind its last; those of neighbours may overlap."""


def binary_bytes(binary: Binary) -> bytes:
    """The program as bytes; the same program gives the same ones."""
    text = json.dumps(asdict(binary.machine), sort_keys=True).encode()
    layers = np.array(binary.layers, "<u4").reshape(-1, 2)
    parts = (text, layers.tobytes(), binary.instructions.astype("<u8").tobytes(), binary.uops.astype("<u4").tobytes())
    counts = (len(text), len(layers), len(binary.instructions), len(binary.uops))
    body = b"".join(part.ljust(_aligned(len(part)), b"\0") for part in parts)
    isa_hash = bytes.fromhex(binary.machine.isa_hash)
    size = _HEADER.size + len(body)
    header = _HEADER.pack(MAGIC, _VERSION, 0, size, *counts, isa_hash)
    checksum = zlib.crc32(body, zlib.crc32(header[_CHECKED_FROM:]))
    return _HEADER.pack(MAGIC, _VERSION, checksum, size, *counts, isa_hash) + body


def places_in(data: bytes) -> tuple[int, int]:
    """Where the instructions and the micro-operations of the bytes of `binary_bytes` begin."""
    *_, text, layers, instructions, _, _ = _HEADER.unpack_from(data)
    first = _HEADER.size + _aligned(text) + _aligned(8 * layers)
    return first, first + _aligned(16 * instructions)


def read_binary(data: bytes, where: str) -> Binary:
    """The program that `data` begins with. Raises RunError, which names `where` it is from, if it is truncated,
    damaged, or of another version of nncc or of the instruction set."""
    if len(data) < len(MAGIC) or not data.startswith(MAGIC):
        raise RunError(f"{where} is no program of an accelerator")
    if len(data) < _HEADER.size:
        raise RunError(f"{where} is truncated: it has {len(data)} bytes, its header alone {_HEADER.size}")
    _, version, checksum, size, *counts, isa_hash = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise RunError(f"{where} has version {version} of the form of programs, nncc reads {_VERSION}", _AGAIN)
    sizes = [count * each for count, each in zip(counts, (1, 8, 16, 4), strict=True)]
    if counts[0] > _MOST_TEXT or size != _HEADER.size + sum(map(_aligned, sizes)):
        raise RunError(f"{where} is damaged: its header contradicts itself", _AGAIN)
    if len(data) < size:
        raise RunError(f"{where} is truncated: it has {len(data)} of {size} bytes", _AGAIN)
    if zlib.crc32(memoryview(data)[_CHECKED_FROM:size]) != checksum:
        raise RunError(f"{where} is damaged: its checksum is another one", _AGAIN)
    starts = [_HEADER.size]
    for part in sizes:
        starts.append(starts[-1] + _aligned(part))
    text, layers, instructions, uops = (data[at : at + part] for at, part in zip(starts, sizes, strict=False))
    machine = _machine(text, where)
    if machine.isa_hash != isa_hash.hex():
        message = f"{where} was made for another version of the instruction set `{machine.profile}`"
        raise RunError(message, _AGAIN)
    ranges = tuple((int(first), int(end)) for first, end in np.frombuffer(layers, "<u4").reshape(-1, 2))
    if any(not first <= end <= counts[2] for first, end in ranges):
        raise RunError(f"{where} is damaged: its layers have instructions that it has not", _AGAIN)
    words = np.frombuffer(instructions, "<u8").reshape(-1, 2).astype(np.uint64)
    return Binary(machine, words, np.frombuffer(uops, "<u4").astype(np.uint32), ranges)


def find_binaries(data: bytes, where: str) -> list[Binary]:
    """All programs inside of `data`, the bytes of a program's file or of a library.

    Raises RunError if there is none, or one is damaged; the bytes that begin a program by chance are none.
    """
    found: list[Binary] = []
    problem = RunError(f"{where} has no program of an accelerator in it", "compile for a target with an accelerator")
    end = 0
    for at in _starts(data):
        if at < end:
            continue
        try:
            found.append(read_binary(data[at : at + _size(data, at)], where))
            end = at + _size(data, at)
        except RunError as error:
            problem = error
            if at == 0 or not _is_chance(data, at):
                raise
    if not found:
        raise problem
    return found


_AGAIN = "compile it again with this version of nncc"


def _aligned(size: int) -> int:
    return (size + 63) // 64 * 64


def _starts(data: bytes) -> Iterator[int]:
    at = data.find(MAGIC)
    while at >= 0:
        yield at
        at = data.find(MAGIC, at + 1)


def _size(data: bytes, at: int) -> int:
    """What the header at `at` says of the size of the whole; all that is left where it says more."""
    if len(data) - at < _HEADER.size:
        return len(data) - at
    return min(int(_HEADER.unpack_from(data, at)[3]), len(data) - at)


def _is_chance(data: bytes, at: int) -> bool:
    """Whether the magic is only a text that mentions it: what follows is no version that there ever was."""
    return not 1 <= int.from_bytes(data[at + 8 : at + 12], "little") <= 1 << 16


def _machine(text: bytes, where: str) -> Machine:
    try:
        table = json.loads(text)
        if not isinstance(table, dict) or set(table) != {field.name for field in fields(Machine)}:
            raise ValueError("it has other fields")
        return Machine.from_table(table, where)
    except (ValueError, RecursionError, TargetError) as error:
        raise RunError(f"{where} was made for a machine that nncc does not know: {error}", _AGAIN) from error
