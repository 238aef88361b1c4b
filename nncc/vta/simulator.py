"""The simulator: compiled for a machine at first use, kept, and opened as a device.

Its sources are in ``nncc/runtime/vta``; what they know of the machine is a header that `nncc.vta.generate` writes. The
uri ``sim:OPTION=VALUE,...`` has these options: ``memory`` (a name of `MEMORIES`), ``latency``, ``burst`` and
``outstanding`` in its place, ``arithmetic=off`` (only cycles are told), ``seed=N`` (an order that tokens allow, at
random; no cycles), ``check=on`` (an error where the result depends on the order, or on what nothing has written; no
cycles).

Its counters are cycles but for ``instructions``, ``gemm_iterations``, ``alu_iterations`` and bytes: ``QUEUE_busy`` from
the start of an instruction to its end, of the compute queue in parts (``compute_gemm``, ``compute_alu`` iterations,
``compute_moves`` loads, ``compute_overhead`` issues and pipelines), ``QUEUE_wait_fetch`` for the next instruction,
``QUEUE_wait_OTHER`` for a token; ``read_port_busy`` and ``write_port_busy`` beats; ``MEMORY_bytes`` what was moved.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from nncc.codegen.toolchains import Toolchain, call_tool, toolchains
from nncc.errors import ToolError
from nncc.host import host
from nncc.resources import runtime_folder
from nncc.target import resolve
from nncc.vta.built import built_once
from nncc.vta.driver import Device, Driver
from nncc.vta.generate import c_header
from nncc.vta.machine import Machine

__all__ = ["build_simulator", "open_simulator"]

_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno")
"""Sums of products of floats are rounded as the description says: nothing may be fused that it does not fuse."""


def open_simulator(machine: Machine, options: str = "") -> Device:
    """A simulated `machine`; `options` as in the module's text. Raises ToolError if it cannot be compiled, RunError
    if there is no such option."""
    return Driver(build_simulator(machine)).open(f"sim:{options}" if options else "sim")


def build_simulator(machine: Machine, folder: Path | None = None, flags: Sequence[str] = ()) -> Path:
    """The library that simulates `machine`, in `folder`: compiled if it is not there yet.

    `folder` is by default the user's cache, or where that cannot be written one of the system's for temporary files.
    `flags` are the compiler's, besides its own. Raises ToolError if there is no C++ compiler, or none can do it.
    """
    runtime = runtime_folder()
    sources = [*sorted((runtime / "vta").iterdir()), runtime / "accelerator.h"]
    sources = [path for path in sources if path.suffix in (".cpp", ".hpp", ".h")]
    header = c_header(machine)
    found = toolchains(resolve("native"))
    if not found:
        raise ToolError("the simulator needs a C++ compiler: there is none", "install g++, or `pip install ziglang`")
    this = host()
    text = b"".join(path.read_bytes() for path in sources) + header.encode()
    told = repr((found, tuple(flags), _FLAGS, this.processor, sorted(this.features)))
    name = f"simulator-{hashlib.sha256(text + told.encode()).hexdigest()[:16]}.so"

    def build(work: Path) -> Path:
        for path in sources:
            shutil.copyfile(path, work / path.name)
        (work / "vta_machine.h").write_text(header)
        _compile(found, work, [path.name for path in sources if path.suffix == ".cpp"], name, flags)
        return work / name

    return built_once(name, folder, build)


def _compile(found: Sequence[Toolchain], work: Path, sources: Sequence[str], name: str, flags: Sequence[str]) -> None:
    """With the first toolchain that can: one for C may lack what C++ needs. Raises ToolError of the first one."""
    problems = []
    for toolchain in found:
        command = list(toolchain.command)
        own: tuple[str, ...] = ("-march=native",) if host().machine == "x86_64" else ()
        libraries: tuple[str, ...] = ("-lc++",) if host().system == "Darwin" else ("-lstdc++", "-lm")
        if toolchain.name == "zig":
            command[command.index("cc")] = "c++"
            own, libraries = (), ()
        try:
            return call_tool([*command, *_FLAGS, *own, *flags, *sources, "-o", name, *libraries], work)
        except ToolError as error:
            problems.append(error)
    problem = problems[0]
    raise ToolError(f"the simulator cannot be compiled: {problem.message}", "install g++, or `pip install ziglang`")
