"""Run and time compiled libraries: each run in a process of its own, under an emulator where the machine is another.

A library of this machine is run by Python's loader, one of another machine by the generic runner under its emulator.
Either way a crash of the library is an error of this process, and memory is measured where nothing else uses any.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import NnccError, OutputError, RunError, TargetError
from nncc.vta.devices import driver_of, is_simulator
from nncc.worker import never_ended, signal_name, work

if TYPE_CHECKING:
    import numpy as np

    from nncc.ir import TensorSpec
    from nncc.runtime.sizes import OpenDim
    from nncc.target import Target

__all__ = [
    "Measurement",
    "OpenLibrary",
    "Simulation",
    "describe",
    "device_beside",
    "emulate",
    "is_library",
    "open_library",
    "schedules_beside",
    "target_of",
    "write_runner",
]


@dataclass(frozen=True)
class Measurement:
    """Times of a library. Memory is what the process needed beyond what it had before the library was loaded."""

    threads: int
    warmup: int
    seconds: tuple[float, ...]
    """Of each timed inference, in order."""
    load_seconds: float
    create_seconds: float
    peak_bytes: int
    """0 where the system does not tell."""
    call_seconds: tuple[float, ...] = ()
    """Mean of each kernel call; empty unless asked for."""

    @property
    def ordered(self) -> list[float]:
        """The times, the shortest first."""
        return sorted(self.seconds)

    @property
    def p50(self) -> float:
        """The median, between the two in the middle where their number is even."""
        times = self.ordered
        return (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2

    @property
    def p90(self) -> float:
        """By nearest rank."""
        times = self.ordered
        return times[(len(times) * 9 + 9) // 10 - 1]

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return sum(self.seconds) / len(self.seconds)


@dataclass(frozen=True)
class Simulation:
    """An inference on a simulated accelerator."""

    device: str
    """What the simulator says of itself: the machine's configuration, clock and memory."""
    counters: Mapping[str, int]
    cycles: tuple[int, ...]
    """Of each call; 0 for those on the host. A layer's are those from when all before it was complete."""
    seconds: float
    """Those of all, by the clock of the device."""
    host_seconds: tuple[float, ...]
    """Of each call, as they were here; 0 for those on the accelerator."""


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
        with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
            folder = Path(scratch)
            for number, array in enumerate(arrays):
                array.tofile(folder / f"in{number}")
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
        with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
            for number, array in enumerate(arrays):
                array.tofile(Path(scratch) / f"in{number}")
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
        with tempfile.TemporaryDirectory(prefix="nncc-") as scratch:
            for number, array in enumerate(arrays):
                array.tofile(Path(scratch) / f"in{number}")
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
    machine = _foreign_machine(path)
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
    from nncc.codegen.link import emulator

    target = target or target_of(path)
    words = tuple(emulator(target))
    if not words:
        raise TargetError(f"`{path}` is for {machine}, which is not what its target `{target.name}` says")
    description = json.loads(emulate(path, target, words, ["--describe"]))
    return OpenLibrary(path, threads, target, words, description)


def target_of(path: Path) -> Target:
    """The target that a library was compiled for, or one that is like it, for linking and emulating.

    A library for a target of the user's own only has its name: then the machine in the file's header decides.
    """
    from nncc.runtime import library_file
    from nncc.target import available, resolve

    found = _machine(path) if path.is_file() else None
    if found is None:
        library_file.check_file(str(path))
        raise RunError(f"{path} is not a shared library")
    machine, system = found
    try:
        target = resolve(library_file.target_of(str(path)) or "")
        if _same(target, machine, system):
            return target
    except NnccError:
        pass
    processors = [each for each in available() if each.name == each.base and not each.hardware.multiprocessors]
    alike = [target for target in processors if _same(target, machine, system)]
    if not alike:
        raise TargetError(
            f"`{path}` is for {machine} {system}, which is no target of nncc", "`nncc targets` lists them"
        )
    return min(alike, key=lambda each: len(each.hardware.features))


def is_library(path: Path) -> bool:
    """Whether a file begins like a shared library of any machine."""
    try:
        return _machine(path) is not None
    except OSError:
        return False


def describe(path: Path) -> dict[str, Any]:
    """What a library says of itself; where this machine cannot run it, what the .json beside it says. From there too:
    schedules, and of GPUs the device code.

    Raises as :func:`open_library` if there is no such file.
    """
    from nncc.runtime import loader

    try:
        about = loader.describe(path) if _foreign_machine(path) is None else open_library(path).description
        device = device_beside(path, about)
        return about | {"schedules": schedules_beside(path, about)} | ({"device": device} if device else {})
    except NnccError:
        about = _beside(path)
        if not is_library(path) or not about.keys() >= {"build", "calls", "inputs", "outputs", "features"}:
            raise
        if about["build"].encode() not in path.read_bytes():
            raise
        return about | {"calls": [{"name": name, "flops": 0, "bytes": 0} for name in about["calls"]]}


def schedules_beside(path: Path, description: Mapping[str, Any]) -> dict[str, str]:
    """Where each kernel's schedule came from: in the .json beside the library, if it is of the same build."""
    return _beside_of("schedules", path, description)


def device_beside(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a GPU's code: in the .json beside the library, if it is of the same build, under ``device``."""
    return _beside_of("device", path, description)


def _beside_of(key: str, path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    about = _beside(path)
    return dict(about.get(key, {})) if about.get("build") == description["build"] else {}


def _beside(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def write_runner(library: Path, folder: Path) -> Path:
    """Write the bench program for a library's target to `folder`: ``nncc-bench``, for a board without Python.

    Raises RunError if the file is no library, ToolError if the program cannot be compiled, OutputError.
    """
    from nncc.codegen.link import build_runner

    target = target_of(library)
    runner = build_runner(target)
    program = folder / f"nncc-bench{runner.suffix if runner.suffix == '.exe' else ''}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(runner, program)
    except OSError as error:
        raise OutputError(f"cannot write `{program}`: {error.strerror or error}", "choose another folder") from error
    return program


# ---- inside -----------------------------------------------------------------------------------------------------


def _machine(path: Path) -> tuple[str, str] | None:
    from nncc.runtime import library_file

    with path.open("rb") as file:
        return library_file.file_machine(file.read(4096))


def _foreign_machine(path: Path) -> str | None:
    """The machine of a library that is not for this one; RunError if the file is none at all."""
    from nncc.runtime import library_file

    try:
        found = _machine(path)
    except OSError:
        found = None
    if found is None or found == library_file.this_machine():
        return None  # the loader has the words for what is not there or no library
    return f"{found[0]} {found[1]}"


def _same(target: Target, machine: str, system: str) -> bool:
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    there = target.link.machine.lower()
    return (
        names.get(there, there) == machine and {"Darwin": "macOS"}.get(target.link.system, target.link.system) == system
    )


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


def emulate(
    path: Path, target: Target, emulator: Sequence[str], words: Sequence[str], timeout: float | None = None
) -> str:
    """What the generic runner prints for these `words` about a library of another machine.

    Raises RunError where the library fails or crashes, or is killed after `timeout` seconds.
    """
    from nncc.codegen.link import build_runner

    command = [*emulator, str(build_runner(target)), str(path), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise never_ended(path, error.timeout) from None
    if done.returncode == 0:
        return done.stdout
    said = done.stderr.strip().removeprefix("nncc-bench: ")
    name = Path(emulator[0]).name
    if done.returncode < 0 or "uncaught target signal" in said:
        number = -done.returncode if done.returncode < 0 else int(said.split("uncaught target signal")[1].split()[0])
        raise RunError(f"{path} crashed in {name}: {signal_name(number)}", "please report this, with the model")
    raise RunError(f"{path}: {said or f'{name} ended with exit status {done.returncode}'}")
