"""Object files, read and patched in place: ELF, Mach-O and COFF alike."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nncc.errors import InternalError

__all__ = ["conceal", "rename"]


@dataclass(frozen=True)
class _Symbol:
    at: int
    """Where in the file its record begins."""
    name_at: int
    """Where in the file its name begins; -1 for a name inside the record (COFF, at most 8 bytes)."""
    name: bytes
    exported: bool
    """Defined here and visible to the linker."""


def conceal(data: bytes) -> bytes:
    """The object file with what it defines hidden: seen by the linker, never exported from a library.

    TVM gives every kernel default visibility; on COFF it says ``-export`` in the section ``.drectve``.
    """
    out = bytearray(data)
    form = _format(data)
    if form == "coff":
        for place, size in _drectve(data):
            out[place : place + size] = b" " * size
        return bytes(out)
    for symbol in _SYMBOLS[form](data):
        if symbol.exported and form == "macho":
            out[symbol.at + 4] |= 0x10  # n_type: N_PEXT
        elif symbol.exported:
            other = symbol.at + (5 if data[4] == 2 else 13)  # st_other
            out[other] = out[other] & ~3 | 2  # STV_HIDDEN
    return bytes(out)


def rename(data: bytes, names: dict[str, str]) -> bytes:
    """The object file with symbols renamed in place; each new name is as long as the old one."""
    out = bytearray(data)
    form = _format(data)
    lead = b"_" if form == "macho" else b""
    wanted = {lead + old.encode(): lead + new.encode() for old, new in names.items()}
    for symbol in _SYMBOLS[form](data):
        new = wanted.get(symbol.name)
        if new is None:
            continue
        # A string table may hold a name once more as the tail of a longer one.
        if len(new) != len(symbol.name) or symbol.name_at < 0 or data[symbol.name_at - 1] not in (0, None):
            raise InternalError(f"link: the kernel object's symbol `{symbol.name.decode()}` cannot be renamed in place")
        out[symbol.name_at : symbol.name_at + len(new)] = new
    return bytes(out)


def _format(data: bytes) -> str:
    if data[:4] == b"\x7fELF" and data[5] == 1:
        return "elf"
    if data[:4] == b"\xcf\xfa\xed\xfe":
        return "macho"
    if data[:2] in (b"\x64\x86", b"\x64\xaa", b"\x4c\x01"):
        return "coff"
    raise InternalError(f"link: the kernel object begins with {data[:8]!r}: neither ELF, Mach-O nor COFF")


def _text_at(data: bytes, at: int) -> bytes:
    return data[at : data.index(b"\0", at)]


def _elf_symbols(data: bytes) -> Iterator[_Symbol]:
    wide = data[4] == 2
    table, size, count = (
        (*struct.unpack_from("<Q", data, 0x28), *struct.unpack_from("<HH", data, 0x3A))
        if wide
        else (*struct.unpack_from("<I", data, 0x20), *struct.unpack_from("<HH", data, 0x2E))
    )
    if count == 0:  # more than 65279 sections: the number is in the first section's sh_size
        (count,) = struct.unpack_from("<Q" if wide else "<I", data, table + (0x20 if wide else 0x14))
    # type, offset, size and link of every section
    heads = [
        (
            *struct.unpack_from("<I", data, table + i * size + 4),
            *struct.unpack_from("<QQI" if wide else "<III", data, table + i * size + (0x18 if wide else 0x10)),
        )
        for i in range(count)
    ]
    for kind, offset, length, strings in heads:
        if kind != 2:  # SHT_SYMTAB
            continue
        for at in range(offset, offset + length, 24 if wide else 16):
            (name,) = struct.unpack_from("<I", data, at)
            info = data[at + (4 if wide else 12)]
            (section,) = struct.unpack_from("<H", data, at + (6 if wide else 14))
            name_at = heads[strings][1] + name
            yield _Symbol(at, name_at, _text_at(data, name_at), info >> 4 in (1, 2) and section != 0)


def _macho_symbols(data: bytes) -> Iterator[_Symbol]:
    at = 32
    for _ in range(struct.unpack_from("<I", data, 16)[0]):
        command, size = struct.unpack_from("<II", data, at)
        if command == 2:  # LC_SYMTAB
            symbols, count, strings, _ = struct.unpack_from("<IIII", data, at + 8)
            for record in range(symbols, symbols + 16 * count, 16):
                name, kind = struct.unpack_from("<IB", data, record)
                exported = bool(kind & 1) and kind & 0x0E != 0 and not kind & 0xE0  # N_EXT, defined, not N_STAB
                yield _Symbol(record, strings + name, _text_at(data, strings + name), exported)
        at += size


def _coff_symbols(data: bytes) -> Iterator[_Symbol]:
    table, count = struct.unpack_from("<II", data, 8)
    strings, index = table + 18 * count, 0
    while index < count:
        at = table + 18 * index
        zeros, offset = struct.unpack_from("<II", data, at)
        (section,) = struct.unpack_from("<h", data, at + 12)
        name_at = strings + offset if zeros == 0 else -1
        name = _text_at(data, name_at) if zeros == 0 else data[at : at + 8].rstrip(b"\0")
        yield _Symbol(at, name_at, name, data[at + 16] == 2 and section > 0)
        index += 1 + data[at + 17]


def _drectve(data: bytes) -> Iterator[tuple[int, int]]:
    """Place and size of the linker directives of a COFF object."""
    sections, optional = struct.unpack_from("<H", data, 2)[0], struct.unpack_from("<H", data, 16)[0]
    for at in range(20 + optional, 20 + optional + 40 * sections, 40):
        if data[at : at + 8] == b".drectve":
            size, place = struct.unpack_from("<II", data, at + 16)
            yield place, size


_SYMBOLS: dict[str, Callable[[bytes], Iterator[_Symbol]]] = {
    "elf": _elf_symbols,
    "macho": _macho_symbols,
    "coff": _coff_symbols,
}
