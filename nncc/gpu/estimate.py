"""What bounds each kernel of a program for a GPU: a roofline by the target's facts and the compiler's report.

No figure here is measured. `seconds` is the least time of a call: its arithmetic at the GPU's peak, or its tensors once
from memory, whichever takes longer. What keeps a kernel from it stands beside: blocks that do not fill the last wave,
and how many warps a multiprocessor can hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from nncc.gpu.device_plans import REGISTERS
from nncc.ir import Operations, Program
from nncc.target import Hardware

if TYPE_CHECKING:
    from nncc.codegen.cuda_compiler import Resources

__all__ = ["KernelEstimate", "LaunchEstimate", "estimates"]

_MOST_BLOCKS = 32
"""That may reside on one; 16 on some."""


@dataclass(frozen=True)
class LaunchEstimate:
    """One launch of a call."""

    symbol: str
    blocks: int
    threads: int
    """Of a block."""
    resident: int
    """Blocks that one multiprocessor holds; 0 where the compiler's report is missing."""
    waves: float
    """Blocks, as a multiple of what the whole GPU holds at once; 0 where `resident` is."""
    occupancy: float
    """Threads that reside, of those that could."""


@dataclass(frozen=True)
class KernelEstimate:
    """One kernel of a program, which is called `calls` times."""

    kernel: str
    schedule: str
    calls: int
    flops: int
    """Of a call."""
    nbytes: int
    """That a call reads and writes, each tensor once."""
    arithmetic_seconds: float
    """That its arithmetic takes at least; 0 where the target's peak is not known."""
    seconds: float
    """Least time of a call."""
    bound: str
    """arithmetic | memory"""
    launches: tuple[LaunchEstimate, ...]


def estimates(program: Program, resources: Mapping[str, Resources] | None = None) -> tuple[KernelEstimate, ...]:
    """All kernels, those first whose calls take longest together; `resources` by symbol, as the compiler reports."""
    hardware = program.target.hardware
    calls = Counter(call.kernel for call in program.calls if call.kernel)
    first = {call.kernel: call for call in reversed(program.calls)}
    found = []
    for kernel, count in calls.items():
        schedule = program.schedules.get(kernel, "")
        flops, nbytes = program.operations.get(kernel, Operations()).total, program.call_bytes(first[kernel])
        gflops = _peak_gflops(schedule, hardware)
        arithmetic = flops / (gflops * 1e9) if gflops else 0.0
        memory = nbytes / (hardware.dram_gbps * 1e9) if hardware.dram_gbps else 0.0
        launches = tuple(
            _launch(
                launch.symbol, prod(launch.grid), prod(launch.block), hardware, (resources or {}).get(launch.symbol)
            )
            for launch in program.launches.get(kernel, ())
        )
        bound = "arithmetic" if arithmetic > memory else "memory"
        least = max(arithmetic, memory)
        found.append(KernelEstimate(kernel, schedule, count, flops, nbytes, arithmetic, least, bound, launches))
    return tuple(sorted(found, key=lambda each: -each.calls * each.seconds))


def _peak_gflops(schedule: str, hardware: Hardware) -> float:
    """What a kernel could do: by tensor cores, if its schedule says that it uses them."""
    of_tensors = {
        "TF32": hardware.tensor_tf32_gflops,
        "float16": hardware.tensor_fp16_gflops,
        "int8": hardware.tensor_int8_gops,
    }
    if "depthwise" in schedule:  # plain arithmetic
        return hardware.peak_gflops
    return next((gflops for word, gflops in of_tensors.items() if word in schedule), hardware.peak_gflops)


def _launch(symbol: str, blocks: int, threads: int, hardware: Hardware, used: Resources | None) -> LaunchEstimate:
    if used is None or not hardware.multiprocessors:
        return LaunchEstimate(symbol, blocks, threads, 0, 0.0, 0.0)
    warps = -(-threads // 32) * 32
    registers = -(-max(1, used.registers) // 8) * 8  # given out by eight
    resident = min(_MOST_BLOCKS, hardware.multiprocessor_threads // warps, REGISTERS // (registers * warps))
    if used.shared_bytes:
        # Beside what a block declares, the system takes 1 KiB.
        resident = min(resident, hardware.multiprocessor_shared_kib * 1024 // (used.shared_bytes + 1024))
    waves = blocks / (resident * hardware.multiprocessors) if resident else 0.0
    reside = min(resident, -(-blocks // hardware.multiprocessors)) * warps
    return LaunchEstimate(symbol, blocks, threads, resident, waves, reside / hardware.multiprocessor_threads)
