"""Run and time compiled libraries: each run in a process of its own, under an emulator where the machine is another.

A library of this machine is run by Python's loader, one of another machine by the generic runner under its emulator.
Either way a crash of the library is an error of this process, and memory is measured where nothing else uses any.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.emulation import emulate, emulator
from nncc.errors import NnccError, RunError, TargetError
from nncc.library_facts import (
    description_beside,
    device_beside,
    foreign_machine,
    is_library,
    schedules_beside,
    target_of,
)
from nncc.measurement import Measurement, Simulation
from nncc.vta.devices import driver_of, is_simulator
from nncc.worker import work

if TYPE_CHECKING:
    import numpy as np

    from nncc.ir import TensorSpec
    from nncc.runtime.sizes import OpenDim
    from nncc.target import Target

__all__ = ["OpenLibrary", "describe", "open_library"]


@dataclass(frozen=True)
class OpenLibrary:
    """A compiled library that this machine can run."""

    path: Path
    threads: int
    target: Target | None
    """None where the library is for this very machine."""
    emulator: tuple[str, ...]
    """The words before the runner's; empty where the library is for this very machine."""
    description: dict[str, Any]
    device: str = ""
    """Of a library for an accelerator, the driver and what it opens."""
    simulated: bool = False
    """Whether that is the simulator, which has cycles but takes its time."""

    @property
    def emulated_by(self) -> str:
        """The emulator's name; empty where there is none."""
        return Path(self.emulator[0]).name if self.emulator else ""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """In the order of the C interface."""
        return _specs(self.description["inputs"], self.description.get("dims", []))

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """In the order of the C interface."""
        return _specs(self.description["outputs"], self.description.get("dims", []))

    @property
    def dims(self) -> tuple[OpenDim, ...]:
        """The open dimensions."""
        from nncc.runtime.sizes import OpenDim

        return tuple(OpenDim(**each) for each in self.description.get("dims", []))

    def inputs_at(self, sizes: Mapping[str, int]) -> tuple[TensorSpec, ...]:
        """The inputs, whose `shape` is that at these sizes of open dimensions, the highest of those that are not named.

        Raises RunError where there is no such dimension, or a size is outside of its range.
        """
        known = {dim.name: dim for dim in self.dims if not dim.from_data}
        for name, size in sizes.items():
            if name not in known:
                listed = ", ".join(f"`{n}`" for n in known) or "none"
                raise RunError(f"{self.path} has no open dimension `{name}`", f"its open dimensions: {listed}")
            dim = known[name]
            if not dim.low <= size <= dim.high:
                raise RunError(f"`{name}` is {size}, expected {dim.low} to {dim.high}")
        chosen = {dim.name: sizes.get(dim.name, dim.high) for dim in self.dims}
        return tuple(
            replace(spec, shape=tuple(extent.at(chosen) for extent in spec.extents)) if spec.extents else spec
            for spec in self.inputs
        )

    def describe(self) -> dict[str, Any]:
        """What the library says of itself: see ``nncc.load(...).description``."""
        return self.description

    def run(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """One inference: every input by name, every output by name.

        Raises RunError, with all that is wrong with the inputs, or what the library said, or that it crashed.
        """
        sizes, arrays = self._checked(inputs)
        shapes = [tensor["shape"] for tensor in self.description["outputs"]]
        with _written(arrays) as scratch:
            folder = Path(scratch)
            if self.target is not None:
                words = ["--threads", str(self.threads), "--warmup", "0", "--repeat", "1", "--json"]
                for dim, size in zip(self.dims, sizes, strict=True):
                    words += ["--size", f"{dim.name}={size}"]
                for number, spec in enumerate(self.inputs):
                    words += ["--input", f"{spec.name}={folder / f'in{number}'}"]
                for number, spec in enumerate(self.outputs):
                    words += ["--output", f"{spec.name}={folder / f'out{number}'}"]
                said = emulate(self.path, self.target, self.emulator, words)
                shapes = json.loads(said)["shapes"]
            else:
                order = {"task": "run", "threads": self.threads, "folder": scratch, "sizes": sizes}
                done = work(self.path, order | {"device": self.device})
                shapes = [shape for _, shape, _ in done["outputs"]]
            return {
                tensor["name"]: _array(folder / f"out{number}", tensor, shape)
                for number, (tensor, shape) in enumerate(zip(self.description["outputs"], shapes, strict=True))
            }

    def _checked(self, inputs: Mapping[str, Any]) -> tuple[tuple[int, ...], list[np.ndarray]]:
        """The sizes of the open dimensions, and the inputs in order; or one RunError with everything that is wrong, in
        the loader's own words."""
        import numpy as np

        from nncc.runtime.arrays import checked_inputs
        from nncc.runtime.sizes import at_sizes, sizes_of

        tensors = [_info(tensor) for tensor in self.description["inputs"]]
        sizes = sizes_of(tensors, self.dims, inputs, [dim.high for dim in self.dims])
        taken = at_sizes(tensors, sizes)
        return sizes, [np.ascontiguousarray(array) for array in checked_inputs(taken, inputs)]

    def benchmark(
        self,
        inputs: Mapping[str, Any],
        *,
        repeat: int | None = None,
        seconds: float = 2.0,
        warmup: int = 3,
        profile: bool = False,
    ) -> Measurement:
        """Time `repeat` inferences, or as many as take about `seconds` (5 to 10,000), after `warmup` untimed ones.

        Raises RunError as `run`, and where the library is emulated: such times say nothing about the device.
        """
        if self.emulator:
            hint = "`--runner FOLDER` writes the bench program for the board: copy both there"
            raise RunError(f"emulated by {self.emulated_by}: times say nothing about the device", hint)
        sizes, arrays = self._checked(inputs)
        with _written(arrays) as scratch:
            order = {"task": "bench", "threads": self.threads, "folder": scratch, "repeat": repeat, "sizes": sizes}
            order |= {"device": self.device}
            found = work(self.path, order | {"seconds": seconds, "warmup": warmup, "profile": profile})
        return Measurement(
            threads=self.threads,
            warmup=warmup,
            seconds=tuple(found["seconds"]),
            load_seconds=found["load_seconds"],
            create_seconds=found["create_seconds"],
            peak_bytes=found["peak_bytes"],
            call_seconds=tuple(found["call_seconds"]),
        )

    def simulate(self, inputs: Mapping[str, Any]) -> Simulation:
        """One inference on a simulated accelerator, counted. Raises RunError as `run`."""
        _, arrays = self._checked(inputs)
        with _written(arrays) as scratch:
            order = {"task": "simulate", "threads": self.threads, "folder": scratch, "device": self.device}
            found = work(self.path, order)
        cycles, host_seconds = tuple(found["cycles"]), tuple(found["host_seconds"])
        return Simulation(found["device"], found["counters"], cycles, found["seconds"], host_seconds)


def open_library(path: str | Path, threads: int = 1, target: Target | None = None, device: str = "") -> OpenLibrary:
    """Find out what a library is and how this machine can run it.

    `threads` is the number of threads of each run, 0 for one per processor. `target` is what it was compiled for,
    where the caller knows; else the file tells. `device` is the accelerator of a library for one, in the words of
    `nncc.vta.devices`. Raises RunError if the file is no library, or the device is none of its, TargetError if this
    machine cannot run it, ToolError if the runner for its emulator or the simulator cannot be compiled.
    """
    from nncc.runtime import loader

    path = Path(path)
    if threads < 0:
        raise RunError(f"the number of threads is {threads}", "0 means one for each processor")
    machine = foreign_machine(path)
    if machine is None:
        simulated = is_simulator(device)
        if device:
            device = driver_of(device, loader.describe(path))
        with loader.load(path, 1, device) as module:
            return OpenLibrary(path, threads, None, (), module.description, device, simulated)
    if device:
        raise RunError(
            f"{path} is for {machine}: only a machine of its own has its accelerator", "leave the device out"
        )
    target = target or target_of(path)
    words = tuple(emulator(target))
    if not words:
        raise TargetError(f"`{path}` is for {machine}, which is not what its target `{target.name}` says")
    description = json.loads(emulate(path, target, words, ["--describe"]))
    return OpenLibrary(path, threads, target, words, description)


def describe(path: Path) -> dict[str, Any]:
    """What a library says of itself; where this machine cannot run it, what the .json beside it says. From there too:
    schedules, and of GPUs the device code.

    Raises as :func:`open_library` if there is no such file.
    """
    from nncc.runtime import loader
    from nncc.runtime.c_interface import COUNTS

    try:
        about = loader.describe(path) if foreign_machine(path) is None else open_library(path).description
        device = device_beside(path, about)
        return about | {"schedules": schedules_beside(path, about)} | ({"device": device} if device else {})
    except NnccError:
        about = description_beside(path)
        if not is_library(path) or not about.keys() >= {"build", "calls", "inputs", "outputs", "features"}:
            raise
        if about["build"].encode() not in path.read_bytes():
            raise
        return about | {"calls": [{"name": name} | dict.fromkeys(COUNTS, 0) for name in about["calls"]]}


@contextmanager
def _written(arrays: Sequence[np.ndarray]) -> Iterator[str]:
    """A folder with the arrays as files ``in0``, ``in1`` ..., as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
        for number, array in enumerate(arrays):
            array.tofile(Path(scratch) / f"in{number}")
        yield scratch


def _specs(tensors: Sequence[Mapping[str, Any]], dims: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    from nncc.ir import Extent, Quotient, TensorSpec

    def extents(tensor: Mapping[str, Any]) -> tuple[Extent, ...]:
        axes = zip(tensor.get("dims", ()), tensor["shape"], strict=False)
        return tuple(Extent(size) if n < 0 else Extent(0, ((1, (Quotient(dims[n]["name"]),)),)) for n, size in axes)

    return tuple(TensorSpec(each["name"], each["dtype"], tuple(each["shape"]), extents(each)) for each in tensors)


def _info(tensor: Mapping[str, Any]) -> Any:
    from nncc.runtime.arrays import TensorInfo

    dims = tuple(tensor.get("dims", ()))
    return TensorInfo(tensor["name"], tensor["dtype"], tuple(tensor["shape"]), tensor["nbytes"], dims)


def _array(path: Path, tensor: Mapping[str, Any], shape: Sequence[int]) -> np.ndarray:
    import numpy as np

    return np.fromfile(path, dtype=_info(tensor).numpy_dtype).reshape(shape)
