"""Targets as data: reads ``targets/*.toml``, one level of ``extends``; also a path, JSON, or ``name,key=value``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Hardware", "Link", "Target"]


@dataclass(frozen=True)
class Hardware:
    """Facts that passes, templates and reports may read; the only way know-how asks about a processor."""

    vector_bits: int = 128
    """Width of the vector registers that kernels are compiled for."""
    vector_registers: int = 32
    """Number of architectural vector registers."""
    fma: bool = True
    """Whether multiply and add is one instruction."""
    int8_dot: str = "none"
    """none | sdot | vnni512 | vnni256 | avxvnni"""
    l1_kib: int = 32
    l2_kib: int = 512
    cores: int = 1
    peak_gflops: float = 0.0
    """Float32 peak of one core in GFLOP/s; 0 where not known."""
    dram_gbps: float = 0.0
    """Sustained memory bandwidth in GB/s; 0 where not known."""
    features: tuple[str, ...] = ()
    """Processor features (/proc/cpuinfo words) that kernels need beyond the architecture's baseline."""


@dataclass(frozen=True)
class Link:
    """How a shared library for this target is linked and, on another machine, run."""

    format: str = "elf"
    """elf | coff | macho"""
    zig: str = ""
    """Triple for ``zig cc -target``, with the glibc floor: ``aarch64-linux-gnu.2.28``."""
    gcc: str = ""
    """Name of a cross gcc to use where zig is absent: ``aarch64-linux-gnu-gcc``."""
    emulator: str = ""
    """A user-mode emulator that runs this target's programs here: ``qemu-aarch64``."""
    sysroot: str = ""
    """Where Debian's cross libc lives, for the emulator: ``/usr/aarch64-linux-gnu``."""
    machine: str = ""
    """``platform.machine()`` of a machine that runs it natively: ``x86_64``."""
    system: str = "Linux"
    """``platform.system()`` of such a machine."""
    cflags: tuple[str, ...] = ()
    """Flags for the runtime's C code beside the triple's own: ``-march=armv7-a``."""


@dataclass(frozen=True)
class Target:
    """A machine that code is compiled for. `tvm` is handed to ``tvm.target.Target`` unchanged."""

    name: str
    doc: str
    tvm: dict[str, Any] = field(default_factory=dict)
    hardware: Hardware = field(default_factory=Hardware)
    link: Link = field(default_factory=Link)
