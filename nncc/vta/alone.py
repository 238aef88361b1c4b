"""One layer alone in a program, on the simulator: how many cycles it takes by a plan, or what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from nncc.ir import align
from nncc.vta.driver import Driver
from nncc.vta.layer import Layer
from nncc.vta.link import Located, link
from nncc.vta.lower_layer import argument_bytes, lower_layer
from nncc.vta.machine import Machine
from nncc.vta.simulator import build_simulator
from nncc.vta.stream import Plan

__all__ = ["cycles_of", "random_arguments", "result_of"]

_PAGE = 4096
"""What memory is aligned to: bursts end with it."""
_SECONDS = 60.0
"""A program that takes longer on the simulator is stopped."""

Bytes = npt.NDArray[np.uint8]


def cycles_of(layer: Layer, plan: Plan, machine: Machine) -> int:
    """From the start of the program to its FINISH, beside the machine's DRAM; nothing is computed but time.

    Raises InternalError if the machine cannot compute the layer by this plan, ToolError if its simulator cannot be
    compiled, and RunError with the simulator's words if the program is at fault.
    """
    return _run(layer, plan, machine, "arithmetic=off", ())[1]


def result_of(layer: Layer, plan: Plan, machine: Machine, arguments: Sequence[Bytes]) -> Bytes:
    """The bytes of a layer's result, of its other `arguments` as bytes in the order of `Layer`.

    Raises as `cycles_of`; RunError too where the result depends on an order that no token settles.
    """
    return _run(layer, plan, machine, "check=on", arguments)[0]


def random_arguments(layer: Layer, machine: Machine, seed: int) -> list[Bytes]:
    """All arguments but the result: bytes of any value; parameters that make good use of int8."""
    random = np.random.default_rng(seed)
    *sizes, _ = argument_bytes(layer, machine)
    made = [random.integers(0, 256, nbytes, np.uint8) for nbytes in sizes]
    if machine.has("requantize") and layer.kind != "max_pool":
        at = 1 if layer.kind == "add" else 2
        products = prod(layer.kernel) * (layer.input[0] * machine.block if layer.kind == "conv2d" else 1)
        made[at] = _parameters(random, sizes[at] // (8 * machine.block), machine.block, products)
        if layer.residual or layer.kind == "add":
            made[at][-4 * machine.block :][:12] = np.array([0.5, 0.75, -30.0], np.float32).view(np.uint8)
    elif layer.residual:  # the identity behind the weights
        made[1][-(machine.block**2) :] = np.eye(machine.block, dtype=np.uint8).reshape(-1)
    return made


def _parameters(random: np.random.Generator, rows: int, block: int, products: int) -> Bytes:
    """Biases and scales by channel for sums of so many products of two bytes, which have a deviation of 74 each."""
    spread = 74.0 * 74.0 * products**0.5
    made = np.zeros((rows, 2, block), np.int32)
    made[:, 0] = random.normal(0.0, spread / 2, made[:, 0].shape)
    made[:, 1] = (random.uniform(20, 100, made[:, 1].shape) / spread).astype(np.float32).view(np.int32)
    return made.reshape(-1).view(np.uint8)


def _run(layer: Layer, plan: Plan, machine: Machine, options: str, arguments: Sequence[Bytes]) -> tuple[Bytes, int]:
    stream = lower_layer(layer, plan, machine)
    ends = {"arena": 0, "constants": 0}
    constants = _constants(layer, machine)
    places = []
    for number, nbytes in enumerate(stream.arguments):
        space = "constants" if number in constants else "arena"
        places.append((space, ends[space]))
        ends[space] += align(nbytes, _PAGE)
    linked = link([Located(stream, tuple(at for _, at in places))], machine, ends["constants"])
    with _simulator(machine).open(f"sim:{options}") as device:
        uops = linked.uops.view(np.uint8)
        spaces = {"arena": device.alloc(ends["arena"]), "constants": device.alloc(ends["constants"] + len(uops))}
        spaces["constants"].data[ends["constants"] :] = uops
        for (space, at), content in zip(places, arguments, strict=False):
            spaces[space].data[at : at + len(content)] = content
        for region in spaces.values():
            device.flush(region)
        program = device.put(linked.instructions)
        device.run(program, {k.id: spaces[k.base].address for k in machine.description.memories}, _SECONDS)
        device.fetch(spaces["arena"])
        at = places[-1][1]
        return spaces["arena"].data[at : at + stream.arguments[-1]].copy(), device.counters()["cycles"]


@lru_cache(maxsize=8)
def _simulator(machine: Machine) -> Driver:
    return Driver(build_simulator(machine))


def _constants(layer: Layer, machine: Machine) -> range:
    """The numbers of the arguments of a layer that are constants: weights and parameters."""
    if layer.kind in ("conv2d", "depthwise"):
        return range(1, 3)
    return range(1, 2) if layer.kind == "add" and machine.has("requantize") else range(0)
