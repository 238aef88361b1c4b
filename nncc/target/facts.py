"""A target as values: what TVM is told, facts about the hardware, how to link and emulate."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nncc.errors import TargetError, did_you_mean

if TYPE_CHECKING:
    from tvm.target import Target as TvmTarget

    from nncc.vta.machine import Machine

__all__ = ["Hardware", "Link", "Target"]


@dataclass(frozen=True)
class Hardware:
    """Facts that passes, templates and reports may read; the only way know-how asks about a processor."""

    vector_bits: int = 128
    """Width of the vector registers that kernels are compiled for; 32, one float, where there are none."""
    vector_registers: int = 32
    """Number of architectural vector registers."""
    fma: bool = True
    """Whether multiply and add is one instruction."""
    lane_operand: bool = False
    """Whether a multiply-add takes one lane of a register as its factor (Arm), rather than a broadcast from memory."""
    int8_dot: str = "none"
    """How int8 is multiplied: none | sdot | smull | vnni512 | vnni256 | avxvnni | pmaddwd; see `nncc.kernels.dots`."""
    l1_kib: int = 32
    l2_kib: int = 512
    cores: int = 1
    """Number of cores; where a description leaves it out, the ``num-cores`` of its ``[tvm]``."""
    peak_gflops: float = 0.0
    """Float32 peak of one core in GFLOP/s; 0 where not known."""
    dram_gbps: float = 0.0
    """Sustained memory bandwidth in GB/s; 0 where not known."""
    features: tuple[str, ...] = ()
    """Processor features (/proc/cpuinfo words) that kernels need beyond the architecture's baseline."""
    multiprocessors: int = 0
    """Of a GPU, its streaming multiprocessors; 0 on a processor. `peak_gflops` is then that of the whole GPU."""
    shared_kib: int = 0
    """Shared memory that one block may have, opted in, in KiB."""
    multiprocessor_shared_kib: int = 0
    """Shared memory of one multiprocessor, which its resident blocks share."""
    multiprocessor_threads: int = 0
    """Threads that may reside on one multiprocessor."""
    tensor_tf32_gflops: float = 0.0
    """Dense peak of the tensor cores on float32 rounded to TF32; 0 where they do not take it."""
    tensor_fp16_gflops: float = 0.0
    """Dense peak of the tensor cores on float16, accumulated in float32; 0 where there are none."""
    tensor_int8_gops: float = 0.0
    """Dense peak of the tensor cores on int8, in 10^9 operations a second."""
    accelerator: Machine | None = None
    """The accelerator beside the processor: the table ``[accelerator]`` of a description."""
    golden: bool = False
    """Whether the layers of the accelerator are compiled for the processor, by their definition: slow, and exact; to
    find out who errs."""

    @property
    def drives_accelerator(self) -> bool:
        """Whether libraries have programs for an accelerator."""
        return self.accelerator is not None and not self.golden

    @property
    def bytes_per_flop(self) -> float:
        """What one core reads from memory while it could do one float32 operation; where not known, 0.2, which is
        between servers with one busy core (0.06 to 0.25) and boards (0.4)."""
        return self.dram_gbps / self.peak_gflops if self.dram_gbps and self.peak_gflops else 0.2


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
    packages: str = ""
    """Debian packages that bring the emulator and the sysroot: ``qemu-user libc6-arm64-cross``."""
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
    """What :func:`resolve` makes this target from, unless it came from a file outside ``targets/``."""
    doc: str
    tvm: dict[str, Any] = field(default_factory=dict)
    hardware: Hardware = field(default_factory=Hardware)
    link: Link = field(default_factory=Link)
    base: str = ""
    """Name of the file that describes it, without overrides: where its tuning records are."""

    def tvm_target(self) -> TvmTarget:
        """The target as TVM wants it.

        Raises TargetError if TVM does not take the keys, or LLVM does not know the processor (TVM would go on
        with the architecture's baseline without a word).
        """
        import tvm
        from tvm.target import codegen

        try:
            target = tvm.target.Target(self.tvm)
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).strip().split(" Target creation from config dict failed")[0]
            raise TargetError(f"target `{self.name}`: TVM does not take {json.dumps(self.tvm)}: {reason}") from error
        mcpu, mtriple = self.tvm.get("mcpu"), self.tvm.get("mtriple")
        if target.kind.name == "llvm" and mcpu and not codegen.llvm_is_valid_cpu(mcpu, mtriple):
            known = (str(cpu) for cpu in codegen.llvm_get_cpu_archlist(target))
            hint = did_you_mean(mcpu, known) or f"`mcpu` is a name of LLVM for the triple `{mtriple}`"
            raise TargetError(f"target `{self.name}`: LLVM knows no processor `{mcpu}` for `{mtriple}`", hint)
        return target
