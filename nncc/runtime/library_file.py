"""Which machine a library is for, told from its first bytes: dlopen's own words for it help nobody."""

from __future__ import annotations

import mmap
import os
import platform
import re
import struct
import sys

from nncc.errors import RunError

__all__ = ["check_file", "file_machine", "target_of", "this_machine"]

_ELF_MACHINES = {3: "i686", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_MACH_MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64"}
_PE_MACHINES = {0x014C: "i686", 0x8664: "x86_64", 0xAA64: "aarch64"}
_SYSTEMS = {"linux": "Linux", "darwin": "macOS", "win32": "Windows"}


def this_machine() -> tuple[str, str]:
    """The machine this process runs as, which may be narrower than the kernel's, and the system."""
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    if struct.calcsize("P") == 4:
        machine = {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
    machine = "armv7l" if machine.startswith("arm") else machine
    return machine, _SYSTEMS.get(sys.platform, "Linux")


def file_machine(head: bytes) -> tuple[str, str] | None:
    """The machine and the system of a shared library, or None where `head` does not begin one."""
    if head[:4] == b"\x7fELF" and len(head) >= 20:
        order = "<" if head[5] == 1 else ">"
        kind, machine = struct.unpack_from(order + "HH", head, 16)
        return (_ELF_MACHINES.get(machine, f"ELF machine {machine}"), "Linux") if kind == 3 else None
    if head[:4] == b"\xcf\xfa\xed\xfe" and len(head) >= 8:
        machine = struct.unpack_from("<I", head, 4)[0]
        return _MACH_MACHINES.get(machine, f"Mach-O machine {machine:#x}"), "macOS"
    if head[:2] == b"MZ" and len(head) >= 64:
        at = struct.unpack_from("<I", head, 60)[0]
        if head[at : at + 4] == b"PE\0\0" and len(head) >= at + 6:
            machine = struct.unpack_from("<H", head, at + 4)[0]
            return _PE_MACHINES.get(machine, f"PE machine {machine:#x}"), "Windows"
    return None


def _elf_size(head: bytes) -> int:
    """The least size in bytes of an ELF file, from its program headers; 0 for other files."""
    if head[:4] != b"\x7fELF" or len(head) < 64:
        return 0
    order, wide = "<" if head[5] == 1 else ">", head[4] == 2
    (table,) = struct.unpack_from(order + ("Q" if wide else "I"), head, 32 if wide else 28)
    entry, count = struct.unpack_from(order + "HH", head, 54 if wide else 42)
    word, offset_at, size_at = ("Q", 8, 32) if wide else ("I", 4, 16)
    ends = [0]
    for at in range(table, min(table + entry * count, len(head) - size_at - 8), max(entry, 1)):
        (offset,) = struct.unpack_from(order + word, head, at + offset_at)
        (size,) = struct.unpack_from(order + word, head, at + size_at)
        ends.append(offset + size)
    return max(ends)


def target_of(path: str) -> str | None:
    """The name of the target, which runtime.c leaves in the file after a mark."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
        found = re.search(rb"nncc-target:([^\0]{1,80})\0", contents)
        return found[1].decode(errors="replace") if found else None


def check_file(path: str) -> None:
    """RunError unless `path` is a shared library for this machine."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise RunError(f"{path} does not exist", "compile a model first: `nncc compile model.onnx`") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    found = file_machine(head)
    if found is None:
        raise RunError(f"{path} is not a shared library")
    machine, system = found
    here = this_machine()
    if found != here:
        name = target_of(path)
        there = machine if system == here[1] else f"{machine} {system}"
        raise RunError(
            f"{path} is compiled for {there}{f' ({name})' if name else ''}; "
            f"this machine is {here[0] if system == here[1] else ' '.join(here)}",
            "run it with `nncc run`, which uses an emulator where one is installed, or copy it to the board",
        )
    if size < _elf_size(head):  # dlopen would map pages that are not there, and kill the process by SIGBUS
        raise RunError(f"{path} is cut short: it has {size} bytes of at least {_elf_size(head)}", "copy it again")
