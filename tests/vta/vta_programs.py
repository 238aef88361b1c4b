"""Small programs for the accelerator, as lists of instructions and the bytes they find in memory."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from nncc.vta.driver import Device, Driver, Region
from nncc.vta.encoding import encode_all, encode_uops
from nncc.vta.machine import Machine
from nncc.vta.simulator import build_simulator

UOPS = np.array([[0, 0, 0]])


@cache
def driver(machine: Machine) -> Driver:
    """The simulator of a machine."""
    return Driver(build_simulator(machine))


def program(machine: Machine, *instructions: tuple[str, dict[str, Any]]) -> np.ndarray:
    """The instructions as uint64 [n, 2]."""
    return np.concatenate([encode_all(machine, kind, **fields) for kind, fields in instructions])


def bases(machine: Machine, regions: dict[str, Region]) -> dict[int, int]:
    """Base addresses by number, from regions by the name of a memory."""
    return {machine.description.memory(name).id: region.address for name, region in regions.items()}


def place(machine: Machine, device: Device, **arrays: np.ndarray) -> dict[str, Region]:
    """Regions with these arrays; micro-operations [n, 3] become words, and there is one without any."""
    arrays.setdefault("uop", UOPS)
    arrays["uop"] = encode_uops(machine, arrays["uop"])
    return {name: device.put(array) for name, array in arrays.items()}


def ran(
    machine: Machine, instructions: np.ndarray, out: int = 64, options: str = "", seconds: float = 10.0, **arrays: Any
) -> tuple[np.ndarray, dict[str, int]]:
    """What the program stored, int8 [out], and the counters."""
    with driver(machine).open(f"sim:{options}" if options else "sim") as device:
        regions = place(machine, device, **arrays)
        regions["out"] = device.alloc(out)
        device.run(device.put(instructions), bases(machine, regions), seconds)
        return regions["out"].data.view(np.int8).copy(), device.counters()


def product(machine: Machine, **changes: dict[str, int]) -> np.ndarray:
    """Four vectors times a matrix, stored; `changes` are other fields by the name of a step."""
    steps: dict[str, tuple[str, dict[str, Any]]] = {
        "uops": ("load", {"memory": 0, "x_size": 1, "y_size": 1}),
        "vectors": ("load", {"memory": 2, "x_size": 4, "y_size": 1, "x_stride": 4}),
        "matrix": ("load", {"memory": 1, "x_size": 1, "y_size": 1, "push_next": 1}),
        "clear": ("gemm", {"reset": 1, "uop_end": 1, "iter_out": 1, "iter_in": 4, "dst_in": 1}),
        "gemm": (
            "gemm",
            {"uop_end": 1, "iter_out": 1, "iter_in": 4, "dst_in": 1, "src_in": 1, "pop_prev": 1, "push_next": 1},
        ),
        "store": ("store", {"memory": 4, "x_size": 4, "y_size": 1, "x_stride": 4, "pop_prev": 1, "push_prev": 1}),
        "finish": ("finish", {"pop_next": 1}),
    }
    return program(machine, *((kind, fields | changes.get(name, {})) for name, (kind, fields) in steps.items()))
