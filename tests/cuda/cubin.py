"""Machine code of GPUs, found in libraries and read as far as the tests need: it is an ELF file."""

from __future__ import annotations

import struct

MACHINE = 190
"""EM_CUDA."""


def cubin_of(library: bytes) -> bytes:
    """The device code in a library, from its ELF header on to the library's end; ValueError where there is none."""
    at = library.find(b"\x7fELF", 4)
    while at > 0 and struct.unpack_from("<H", library, at + 18) != (MACHINE,):
        at = library.find(b"\x7fELF", at + 4)
    if at < 0:
        raise ValueError("there is no device code in the library")
    return library[at:]


def architecture(cubin: bytes) -> str:
    """Of an ELF header's flags, such as ``sm_80``: from CUDA 13 on in the second byte, before that in the first."""
    (flags,) = struct.unpack_from("<I", cubin, 48)
    return f"sm_{flags >> 8 & 0xFF if cubin[7] == 0x41 else flags & 0xFF}"
