"""Candidates for an accelerator: each a program of its own, on data in the arena and weights in the constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.ir import Call, Lowered, Program, Ref, TensorSpec, align
from nncc.target import Target
from nncc.vta.layer import Layer

__all__ = ["activations", "layers_program"]

_SEED = 0
"""Of the weights, which are part of the library."""


def layers_program(
    name: str,
    functions: Sequence[Any],
    constants: Sequence[frozenset[int]],
    lowered: Lowered,
    target: Target,
    check: bool,
) -> Program:
    """A program whose calls are the streams ``c0``, ``c1`` .. of `functions`, of which `constants` says which arguments
    are weights.

    To `check` what they compute, its inputs are the activations of the first function, which all share, and its
    outputs those of all, one by one; else it has neither, and computes on what there is.
    """
    from nncc.vta.decisions import layer_of

    random = np.random.default_rng(_SEED)
    machine = target.hardware.accelerator
    assert machine is not None
    unit = max(machine.element_bytes(memory.name) for memory in machine.description.memories)
    places: dict[Any, Ref] = {}
    blobs: list[np.ndarray] = []
    sizes = {"arena": 0, "weights": 0}
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    before: list[Call] = []
    after: list[Call] = []
    calls: list[Call] = []

    def reserve(key: Any, space: Any, nbytes: int) -> tuple[Ref, bool]:
        new = key not in places
        if new:
            places[key] = Ref(space, sizes[space])
            sizes[space] += align(nbytes, unit)
        return places[key], new

    for number, function in enumerate(functions):
        alike = next(n for n, other in enumerate(functions) if other.same_as(function))
        refs = []
        for at, parameter in enumerate(function.params):
            spec = _spec(f"x{at}", parameter)
            last = at == len(function.params) - 1
            if at in constants[number]:
                ref, new = reserve((alike, at), "weights", spec.nbytes)
                if new:
                    data = _weights(spec, random, layer_of(function))
                    blobs.append(np.pad(data, (0, align(data.nbytes, unit) - data.nbytes)))
            else:
                ref, new = reserve((number if last and check else alike, at), "arena", spec.nbytes)
                if new and check and last:
                    after.append(Call("", (ref, Ref("output", len(outputs))), spec.nbytes))
                    outputs.append(_spec(f"y{number}", parameter))
                elif new and check:
                    before.append(Call("", (Ref("input", len(inputs)), ref), spec.nbytes))
                    inputs.append(spec)
            refs.append(ref)
        calls.append(Call(f"c{number}", tuple(refs)))
    weights = np.concatenate(blobs) if blobs else np.zeros(0, np.uint8)
    return Program(
        name,
        target,
        tuple(inputs),
        tuple(outputs),
        (*before, *calls, *after),
        weights,
        sizes["arena"],
        0,
        lowered.code,
        streams=lowered.streams,
        separate=True,
    )


def activations(function: Any, constants: frozenset[int], seed: int) -> list[np.ndarray]:
    """Random inputs for a program to check."""
    random = np.random.default_rng(seed)
    specs = [_spec("", p) for at, p in enumerate(function.params[:-1]) if at not in constants]
    return [random.integers(-128, 128, spec.shape).astype(spec.dtype) for spec in specs]


def _weights(spec: TensorSpec, random: np.random.Generator, layer: Layer | None) -> np.ndarray:
    """Bytes of any value; parameters, which are int32, as biases and the bits of scales that make good use of int8."""
    if spec.dtype != "int32":
        return random.integers(0, 256, spec.nbytes, np.uint8)
    rows = np.zeros((spec.shape[0], 2, spec.shape[1] // 2), np.int32)
    rows[:, 0] = random.integers(-1000, 1000, rows[:, 0].shape)
    rows[:, 1] = random.uniform(1e-4, 1e-2, rows[:, 1].shape).astype(np.float32).view(np.int32)
    if layer is not None and (layer.residual or layer.kind == "add"):
        rows[-1, 1, :3] = np.array([0.5, 0.75, -30.0], np.float32).view(np.int32)
    return rows.reshape(-1).view(np.uint8)


def _spec(name: str, parameter: Any) -> TensorSpec:
    return TensorSpec(name, str(parameter.dtype), tuple(int(d) for d in parameter.shape))
