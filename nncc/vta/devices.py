"""The words by which people name an accelerator: ``sim``, ``sim:memory=ideal``, or a driver's library and its uri."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nncc.errors import UsageError

__all__ = ["SIMULATOR", "driver_of", "is_simulator", "simulated"]

SIMULATOR = "sim"
"""The word for a simulated accelerator; behind a colon, its options."""


def driver_of(device: str, description: Mapping[str, Any]) -> str:
    """What a library with this `description` is to be given as its device: a driver's path, a colon, and its uri.

    The simulator is compiled for the machine that the library's programs are for, where it is not there yet. A library
    without an accelerator is left to say so itself. Raises UsageError where `device` names none, ToolError if the
    simulator cannot be compiled.
    """
    kind, colon, uri = device.partition(":")
    if "accelerator" not in description:
        return device
    if is_simulator(device):
        return f"{simulated(description)}:{device}"
    if not Path(kind).is_file():
        raise UsageError(
            f"there is no device `{device}`",
            "`sim` simulates the accelerator; a board has a driver, a shared library: PATH, or PATH:URI",
        )
    return f"{Path(kind).absolute()}{colon}{uri}"


def is_simulator(device: str) -> bool:
    """Whether `device` names the simulator."""
    return device.partition(":")[0] == SIMULATOR


def simulated(description: Mapping[str, Any]) -> Path:
    """The driver that simulates the machine which a library's programs are for. Raises ToolError if it cannot be
    compiled."""
    from nncc.vta.machine import Machine
    from nncc.vta.simulator import build_simulator

    return build_simulator(Machine(**description["accelerator"]["machine"]))
