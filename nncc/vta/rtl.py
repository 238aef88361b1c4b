"""The core in SystemVerilog: compiled by Verilator for a machine at first use, kept, and opened as a device.

Its sources are in ``nncc/vta/rtl``; what they know of the machine is a package that `nncc.vta.systemverilog` writes.
The device is one like the simulator's (`nncc.vta.simulator`), with the same memories: ``rtl:memory=NAME``, and
``latency``, ``burst`` and ``outstanding`` in its place. Its cycles are those that the core takes.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from nncc.codegen.toolchains import call_tool
from nncc.errors import TargetError, ToolError
from nncc.resources import runtime_folder
from nncc.vta.built import built_once
from nncc.vta.driver import Device, Driver
from nncc.vta.generate import c_header
from nncc.vta.machine import Machine
from nncc.vta.systemverilog import systemverilog_package

__all__ = ["build_rtl", "core_sources", "open_rtl"]

_PIPELINE_STAGES = 8
"""Of GEMM and ALU in the core, the one in which a place is looked up first and one after the last write."""
_INSTRUCTION_BYTES = 16
_PACKAGES = ("float.sv",)
"""Besides the one that is made, what is imported by others and so comes first."""
_SHARED = ("decode.cpp", "execute.cpp", "order.cpp", "driver.cpp", "machine.hpp")
"""Of the simulator, what is not its model of time."""
_COMMAND = (
    *("verilator", "--cc", "--exe", "--build", "--top-module", "vta_core", "--Mdir", "made", "-Wno-fatal"),
    *("-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert"),
    # One file instead of a dozen is compiled in half the time.
    *("--output-split", "1000000", "-MAKEFLAGS", "OPT_FAST=-O1 OPT_SLOW=-O0 OPT_GLOBAL=-O1"),
    *("-CFLAGS", "-std=c++17 -fPIC -fvisibility=hidden -I..", "-LDFLAGS", "-shared"),
)


def open_rtl(machine: Machine, options: str = "") -> Device:
    """The core of `machine` as a device; `options` as in the module's text.

    Raises TargetError if the core cannot be such a machine, ToolError if it cannot be compiled, RunError if there is
    no such option.
    """
    return Driver(build_rtl(machine)).open(f"rtl:{options}" if options else "rtl")


def core_sources() -> tuple[Path, ...]:
    """The core's files in SystemVerilog, in an order in which they can be compiled; the machine's package comes
    before them."""
    files = sorted((Path(__file__).parent / "rtl").glob("*.sv"))
    return tuple(sorted(files, key=lambda path: path.name not in _PACKAGES))


def build_rtl(machine: Machine, folder: Path | None = None) -> Path:
    """The library that runs the core of `machine`, in `folder`: compiled if it is not there yet, which takes half a
    minute.

    `folder` is by default the user's cache, or where that cannot be written one of the system's for temporary files.
    Raises TargetError if the core cannot be such a machine, ToolError if there is no Verilator, or it cannot do it.
    """
    _check(machine)
    core, runtime = core_sources(), runtime_folder()
    program = [
        Path(__file__).parent / "rtl" / "run_core.cpp",
        *(runtime / "vta" / name for name in _SHARED),
        runtime / "accelerator.h",
    ]
    made = {"vta_machine.sv": systemverilog_package(machine), "vta_machine.h": c_header(machine)}
    text = b"".join([*(path.read_bytes() for path in [*core, *program]), *(each.encode() for each in made.values())])
    name = f"rtl-{hashlib.sha256(text + repr(_COMMAND).encode()).hexdigest()[:16]}.so"
    if shutil.which("verilator") is None:
        raise ToolError(
            "the core in SystemVerilog needs Verilator: there is no `verilator`",
            "install it, as `apt-get install verilator` does",
        )

    def build(work: Path) -> Path:
        for path in [*core, *program]:
            shutil.copyfile(path, work / path.name)
        for file, content in made.items():
            (work / file).write_text(content)
        sources = ["vta_machine.sv", *(path.name for path in core), *(p.name for p in program if p.suffix == ".cpp")]
        call_tool([*_COMMAND, "-o", name, *sources], work)
        return work / "made" / name

    return built_once(name, folder, build)


def _check(machine: Machine) -> None:
    """Raises TargetError where the core cannot be what the machine is."""
    element = machine.sram_bytes("out")
    if machine.bus_bytes > min(element, _INSTRUCTION_BYTES):
        least = f"an element of OUT ({element} bytes) and an instruction ({_INSTRUCTION_BYTES})"
        raise TargetError(f"accelerator: the core's ports are no wider than {least}: bus_bytes = {machine.bus_bytes}")
    if machine.pipeline_cycles < _PIPELINE_STAGES:
        message = f"accelerator: the core's pipelines have {_PIPELINE_STAGES} stages"
        raise TargetError(f"{message}: pipeline_cycles = {machine.pipeline_cycles}")
    if machine.issue_cycles < 2:
        raise TargetError(f"accelerator: the core issues in 2 cycles at least: issue_cycles = {machine.issue_cycles}")
