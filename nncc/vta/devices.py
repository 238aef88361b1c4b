"""The words by which people name an accelerator: ``sim``, ``sim:memory=ideal``, ``rtl``, or a driver's library and its
uri."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nncc.errors import UsageError

__all__ = ["CORE", "SIMULATOR", "driver_of", "is_simulator", "simulated"]

SIMULATOR = "sim"
"""The word for a simulated accelerator; behind a colon, its options."""
CORE = "rtl"
"""The word for its core in SystemVerilog, which Verilator runs."""


def driver_of(device: str, description: Mapping[str, Any]) -> str:
    """What a library with this `description` is to be given as its device: a driver's path, a colon, and its uri.

    Simulator and core are compiled for the machine that the library's programs are for, where they are not there yet. A
    library without an accelerator is left to say so itself. Raises UsageError where `device` names none, ToolError if
    it cannot be compiled, and for the core what `build_rtl` raises.
    """
    kind, colon, uri = device.partition(":")
    if "accelerator" not in description:
        return device
    if is_simulator(device):
        return f"{simulated(description, kind)}:{device}"
    if not Path(kind).is_file():
        raise UsageError(
            f"there is no device `{device}`",
            "`sim` simulates the accelerator, `rtl` its core in SystemVerilog; a board has a driver, a shared library: "
            "PATH, or PATH:URI",
        )
    return f"{Path(kind).absolute()}{colon}{uri}"


def is_simulator(device: str) -> bool:
    """Whether `device` names the simulator, or the core, whose time is told in cycles."""
    return device.partition(":")[0] in (SIMULATOR, CORE)


def simulated(description: Mapping[str, Any], word: str = SIMULATOR) -> Path:
    """The driver that simulates the machine which a library's programs are for, or runs its core. Raises ToolError if
    it cannot be compiled."""
    from nncc.vta.machine import Machine

    machine = Machine(**description["accelerator"]["machine"])
    if word == CORE:
        from nncc.vta.rtl import build_rtl

        return build_rtl(machine)
    from nncc.vta.simulator import build_simulator

    return build_simulator(machine)
