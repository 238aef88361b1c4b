"""The words by which people name an accelerator: ``sim``, ``sim:memory=ideal``, or a driver's library and its uri."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nncc.errors import UsageError

__all__ = ["driver_of"]


def driver_of(device: str, description: Mapping[str, Any]) -> str:
    """What a library with this `description` is to be given as its device: a driver's path, a colon, and its uri.

    The simulator is compiled for the machine that the library's programs are for, where it is not there yet. A library
    without an accelerator is left to say so itself. Raises UsageError where `device` names none, ToolError if the
    simulator cannot be compiled.
    """
    kind, colon, uri = device.partition(":")
    if "accelerator" not in description:
        return device
    if kind == "sim":
        from nncc.vta.machine import Machine
        from nncc.vta.simulator import build_simulator

        machine = Machine(**description["accelerator"]["machine"])
        return f"{build_simulator(machine)}:{device}"
    if not Path(kind).is_file():
        raise UsageError(
            f"there is no device `{device}`",
            "`sim` simulates the accelerator; a board has a driver, a shared library: PATH, or PATH:URI",
        )
    return f"{Path(kind).absolute()}{colon}{uri}"
