"""What the compiler's report and the target's facts say of candidates for a GPU before any is measured.

A candidate is left out where it cannot win: it does not fit, it spills where the default does not, or the least time
that its launch leaves it is more than the default was measured to take. That time is a bound, no guess:

    arithmetic at the peak, on the multiprocessor that has most of the blocks
    of its four schedulers, each of which issues for one warp at a time, those that have a warp
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nncc.gpu.estimate import KernelEstimate, LaunchEstimate
from nncc.target import Hardware

if TYPE_CHECKING:
    from nncc.codegen.cuda_compiler import Resources

__all__ = ["least_seconds", "why_not"]

_SCHEDULERS = 4
"""Of a multiprocessor, on all GPUs since 2012 (CUDA C++ Programming Guide, "Compute Capabilities")."""


def why_not(
    candidate: KernelEstimate,
    default: KernelEstimate,
    resources: Mapping[str, Resources],
    hardware: Hardware,
    default_seconds: float = 0.0,
) -> str:
    """Why a candidate need not be measured; empty where it may win. `default_seconds` is 0 where it is not known."""
    spilled, by_default = (_spilled(each, resources) for each in (candidate, default))
    if spilled > by_default:
        return f"not measured: it spills {spilled} bytes a thread, the default {by_default}"
    for launch in candidate.launches:
        used = resources.get(launch.symbol)
        if used is not None and hardware.multiprocessors and not launch.resident:
            return (
                f"not measured: no multiprocessor holds {launch.threads} threads of {used.registers} registers and "
                f"{used.shared_bytes} bytes of shared memory"
            )
    least = least_seconds(candidate, hardware)
    if default_seconds and least > default_seconds:
        blocks = max((launch.blocks for launch in candidate.launches), default=0)
        return (
            f"not measured: of {blocks} blocks it takes at least {1e6 * least:.3g} us, the default takes "
            f"{1e6 * default_seconds:.3g} us"
        )
    return ""


def least_seconds(kernel: KernelEstimate, hardware: Hardware) -> float:
    """The least time of its arithmetic, as its launches spread that; 0 where the target's facts do not tell."""
    if not hardware.multiprocessors or not kernel.launches:
        return 0.0
    return kernel.arithmetic_seconds * min(_stretched(launch, hardware.multiprocessors) for launch in kernel.launches)


def _stretched(launch: LaunchEstimate, multiprocessors: int) -> float:
    """What the blocks and warps of a launch make of the time that its work takes on a GPU that is full."""
    busiest = -(-launch.blocks // multiprocessors)
    warps = min(launch.resident or busiest, busiest) * -(-launch.threads // 32)
    return busiest * multiprocessors / launch.blocks * max(1.0, _SCHEDULERS / warps)


def _spilled(kernel: KernelEstimate, resources: Mapping[str, Resources]) -> int:
    used = (resources.get(launch.symbol) for launch in kernel.launches)
    return max((each.spilled_bytes for each in used if each is not None), default=0)
