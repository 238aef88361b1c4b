"""Programs for GPUs, run call by call on this machine's processor: their kernels by the emulator of `fake_cuda`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from compiled import Net, Stages

from nncc.config import Config
from nncc.ir import Kernels, Model, Program
from nncc.pipeline import plan, run
from nncc.target import Target
from nncc.verify import reference, sample_inputs

needs_compiler = pytest.mark.skipif(fake_cuda.compiler() is None, reason="no g++ or clang++ to emulate a GPU with")


@dataclass(frozen=True)
class Emulated:
    """What one run of a program gave, beside what ONNX Runtime gives."""

    kernels: Kernels
    program: Program
    found: Mapping[str, np.ndarray]
    expected: Mapping[str, np.ndarray]

    def error(self, name: str) -> float:
        """The largest difference of an output, relative to its largest value."""
        found, expected = self.found[name], self.expected[name]
        assert found.shape == expected.shape and not np.isnan(found).any()
        return float(np.abs(found - expected).max() / max(1e-30, np.abs(expected).max()))


def emulate(
    net: Net, folder: Path, target: str = "cuda-sm80", precision: Any = "float32", **given: np.ndarray
) -> Emulated:
    """Compile up to `flatten` for `target`, and run on random inputs, those `given` excepted."""
    folder.mkdir(parents=True, exist_ok=True)
    net.save(folder / "net.onnx")
    stages = Stages()
    config = Config(target=target, until="flatten", verify=False, precision=precision)
    program = run(plan(folder / "net.onnx", config), [stages])
    model: Model = stages.values["import"]
    inputs = sample_inputs(model, 0) | given
    return Emulated(stages.values["schedule"], program, execute(program, inputs), reference(model, inputs))


def computed(
    functions: Mapping[str, Any], target: Target, inputs: Sequence[np.ndarray], empty: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """By name, what each of some scheduled functions of the same arguments writes over a copy of `empty`."""
    from nncc.codegen.device_kernels import lower_device_kernels

    lowered = lower_device_kernels(dict(functions), target.tvm_target(), "k_")
    library = fake_cuda.emulated(lowered.code, "-O1")
    for name in functions:
        result = empty.copy()
        workspace = np.full(4 + lowered.workspace[name], 255, np.uint8)  # NaN: nothing may be read that was not written
        for launch in lowered.launches[name]:
            arrays = [(*inputs, result, workspace)[number] for number, _ in launch.args]
            fake_cuda.launch(library, launch.symbol, launch.grid, launch.block, arrays)
        yield name, result


def execute(program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a program for GPUs."""
    library = fake_cuda.emulated(program.kernels)
    arena = np.full(program.arena_bytes + 256, 255, np.uint8)  # NaN: nothing may be read that was not written
    start = -arena.ctypes.data % 256
    given = [np.ascontiguousarray(inputs[spec.name]) for spec in program.inputs]
    outputs = {spec.name: np.zeros(spec.shape, np.dtype(spec.dtype)) for spec in program.outputs}
    results = list(outputs.values())

    def address(ref: Any) -> int:
        if ref.space in ("input", "output"):
            array = (given if ref.space == "input" else results)[ref.at]
            return int(array.ctypes.data) + ref.offset
        return int(arena.ctypes.data) + start + ref.at if ref.space == "arena" else program.weights.ctypes.data + ref.at

    for call in program.calls:
        places = [address(ref) for ref in call.args]
        if not call.kernel:
            ctypes.memmove(places[1], places[0], call.nbytes)
            continue
        for launch in program.launches[call.kernel]:
            pointers = [_At(places[number] + offset) for number, offset in launch.args]
            fake_cuda.launch(library, launch.symbol, launch.grid, launch.block, pointers, launch.shared_bytes)
    return outputs


class _At:
    """Memory at an address, as `fake_cuda.launch` takes arrays."""

    def __init__(self, address: int) -> None:
        self.ctypes = self
        self.data = address
