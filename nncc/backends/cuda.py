"""NVIDIA GPUs: kernels as CUDA C++ to machine code, which the library holds and loads through the driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nncc.backends.library import Code, make_library
from nncc.codegen.cuda_compiler import DeviceCode, compile_device_code, find_compiler
from nncc.codegen.emit_cuda import emit_source
from nncc.codegen.link import CUDA_FUNCTIONS, PUBLIC_FUNCTIONS, RPC_GPU_FUNCTIONS
from nncc.codegen.toolchains import find_toolchain
from nncc.gpu.estimate import LaunchEstimate, estimates
from nncc.ir import Artifact, Lowered, Program
from nncc.target import Target

__all__ = ["DUMPS", "EXPANDS_WEIGHTS", "build", "check", "lower"]

DUMPS = ("cu", "ptx")
"""Forms of code that can be written beside the library."""

EXPANDS_WEIGHTS = False
"""Constants are uploaded as they are stored."""


def check(target: Target) -> None:
    """Raise ToolError now, rather than after minutes of compilation, if no library for `target` can be made here."""
    find_toolchain(target)
    find_compiler()


def lower(functions: dict[str, Any], target: Target, prefix: str) -> Lowered:
    """Scheduled TIR functions as CUDA C++ and launches; symbols begin with `prefix` and the function's name."""
    from nncc.codegen.device_kernels import lower_device_kernels

    return lower_device_kernels(functions, target.tvm_target(), prefix)


def build(
    program: Program,
    folder: Path,
    stem: str,
    emit: Sequence[str] = ("so",),
    dump_code: Sequence[str] = (),
    rpc: bool = False,
    device: DeviceCode | None = None,
) -> Artifact:
    """Write the library, ``<stem>.h`` and ``<stem>.json`` into `folder`; `dump_code` writes ``<stem>.cu`` or ``.ptx``.

    With `rpc`, the library has what TVM's RPC server needs to measure it (runtime/rpc_shim.c). `device` is the kernels'
    machine code where that has been made already. Raises ToolError where a compiler is lacking, and OutputError.
    """
    arch = str(program.target.tvm["arch"])
    device = device or compile_device_code(program.kernels, arch)
    exports = (*PUBLIC_FUNCTIONS, *CUDA_FUNCTIONS, *(RPC_GPU_FUNCTIONS if rpc else ()))
    forms = {"cu": program.kernels, "ptx": device.ptx.decode()}
    code = Code(
        source=lambda build_hash, compiler: emit_source(program, build_hash, compiler, rpc),
        exports=exports,
        blobs={"nncc_cubin": device.cubin, "nncc_ptx": device.ptx + b"\0"},
        dumps={form: forms[form] for form in dump_code},
        facts=_device_facts(program, device, arch),
    )
    return make_library(program, folder, stem, code, emit)


def _device_facts(program: Program, device: DeviceCode, arch: str) -> dict[str, Any]:
    """What the description says of the device code: by kernel of the program, what it takes and what bounds it."""
    return {
        "device": {
            "architecture": arch,
            "compiler": device.compiler,
            "cubin_bytes": len(device.cubin),
            "ptx_bytes": len(device.ptx),
            "kernels": {
                each.kernel: {
                    "calls": each.calls,
                    "least_us": float(f"{1e6 * each.seconds:.4g}"),
                    "bound": each.bound,
                    "launches": [_launch_facts(launch, device) for launch in each.launches],
                }
                for each in estimates(program, device.resources)
            },
        }
    }


def _launch_facts(launch: LaunchEstimate, device: DeviceCode) -> dict[str, Any]:
    facts: dict[str, Any] = {"blocks": launch.blocks, "threads": launch.threads}
    used = device.resources.get(launch.symbol)
    if used is not None:
        facts |= {"registers": used.registers, "shared_bytes": used.shared_bytes, "spilled_bytes": used.spilled_bytes}
        facts |= {"waves": round(launch.waves, 5), "occupancy": round(launch.occupancy, 3)}
    return facts
