"""Candidate libraries: scheduled kernels one after the other in an ordinary library, whose profile is their times.

A candidate so runs as it will in a model: the same runtime, threads and calls. Activations are shared and warm, as in a
model, where the kernel before has just written them. Weights are cold, as in a model, where those of all other kernels
have passed through the caches since: each call has a copy of its own, and one round passes over as many bytes.

Of a GPU, these copies are made in its memory, by the calls before the first candidate's, of one input for all: so what
the candidates compute, each into an output of its own, can be compared too. Those that the compiler's report says
cannot win are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nncc.codegen.flatten import in_panels
from nncc.errors import InternalError
from nncc.ir import Call, Program, Ref, TensorSpec, align
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import Template
from nncc.operation_counts import count_bytes, count_operations
from nncc.target import Target

__all__ = ["Candidates", "Kernel", "build_candidates", "check_inputs"]

NAME = "candidates"
_MOST_CALLS = 256


@dataclass(frozen=True)
class Kernel:
    """An unscheduled TIR function, the arguments of it that are weights, and the decisions to schedule it by."""

    function: Any
    constants: frozenset[int]
    decisions: Mapping[str, Any]


@dataclass(frozen=True)
class Candidates:
    """A library of candidates."""

    library: Path | None
    """None where all but the first would have been left out."""
    refused: tuple[str, ...]
    """For each kernel, why the library does not have it; empty where it does."""
    before: int = 0
    """The calls before the first one's."""


def build_candidates(
    kernels: Sequence[Kernel],
    templates: Mapping[str, Template],
    target: Target,
    folder: Path,
    *,
    weights_bytes: int = 0,
    check: bool = False,
    rpc: bool = False,
    default_seconds: float = 0.0,
) -> Candidates:
    """Build the library whose calls are `kernels`, in order, as often as it takes to pass over `weights_bytes`.

    Its inputs and outputs are those of the distinct functions, one after the other, without their shapes: the
    activations, and a memory of copies of the weights. To `check` what kernels compute, each has weights and outputs of
    its own. With `rpc`, TVM's RPC server can measure it. The first kernel is the default, which is known to take
    `default_seconds`, or 0.

    Raises InternalError where LLVM or the linker fails, TVM's ScheduleError where the decisions do not fit.
    """
    from nncc.backends import backend
    from nncc.ir import symbol_prefix

    with target.tvm_target():
        scheduled = {f"c{n}": _scheduled(kernel, templates, target) for n, kernel in enumerate(kernels)}
    functions = {name: function for name, (function, _) in scheduled.items()}
    lowered = backend(target).lower(functions, target, symbol_prefix(NAME))
    everyone = ("",) * len(kernels)
    repeats = 1 if check else _repeats(kernels, weights_bytes)
    workspace = max(lowered.workspace.values(), default=0)
    memory = _Memory(kernels, repeats, check, align(workspace) if lowered.launches and not check else None)
    calls = []
    for again in range(repeats):
        for number in range(len(kernels)):
            args = memory.arguments(number, again)
            if lowered.workspace[f"c{number}"]:
                args.append(Ref("arena", 0))
            calls.append(Call(f"c{number}", tuple(args)))
    program = Program(
        NAME,
        target,
        tuple(memory.inputs),
        tuple(memory.outputs),
        (*memory.copies, *calls),
        np.zeros(0, np.uint8),
        max(workspace, memory.arena_bytes),
        max(lowered.scratch.values(), default=0),
        lowered.code,
        launches=lowered.launches,
        schedules={name: origin for name, (_, origin) in scheduled.items()},
        operations={f"c{n}": count_operations(kernel.function, functions=False) for n, kernel in enumerate(kernels)},
        argument_bytes={f"c{n}": count_bytes(kernel.function) for n, kernel in enumerate(kernels)},
    )
    if not lowered.launches:
        return Candidates(backend(target).build(program, folder, NAME, rpc=rpc).library, everyone)
    return _for_gpu(program, folder, rpc, len(kernels), None if check else default_seconds)


def _for_gpu(program: Program, folder: Path, rpc: bool, count: int, default_seconds: float | None) -> Candidates:
    """The library of the candidates that the compiler's report leaves; of all, where `default_seconds` is None."""
    from nncc.backends.cuda import build
    from nncc.codegen.cuda_compiler import compile_device_code
    from nncc.gpu.estimate import estimates
    from nncc.tuning.static_cost import why_not

    device = compile_device_code(program.kernels, str(program.target.tvm["arch"]), later=False)
    refused = [""] * count
    if default_seconds is not None:
        found = {each.kernel: each for each in estimates(program, device.resources)}
        facts = device.resources, program.target.hardware, default_seconds
        refused[1:] = [why_not(found[f"c{n}"], found["c0"], *facts) for n in range(1, count)]
        if count > 1 and all(refused[1:]):
            return Candidates(None, tuple(refused))
    out = {f"c{n}" for n, reason in enumerate(refused) if reason}
    left = tuple(call for call in program.calls if call.kernel not in out)
    library = build(replace(program, steps=left), folder, NAME, rpc=rpc, device=device).library
    return Candidates(library, tuple(refused), sum(not call.kernel for call in left))


_FLOATS = ("float32", "float16", "bfloat16")
_INTEGERS = ("int8", "uint8", "int16", "int32")
"""Whose values are numbers; 64-bit integers are indices."""


def check_inputs(
    kernels: Sequence[Kernel], templates: Mapping[str, Template], target: Target, seed: int
) -> list[np.ndarray]:
    """Inputs for a library to check: the same random values for all kernels, weights in each one's own layout."""
    first = kernels[0].function
    random = np.random.default_rng(seed)

    def made(parameter: Any) -> np.ndarray:
        shape, dtype = _shape(parameter), str(parameter.dtype)
        if dtype in _FLOATS:
            return random.standard_normal(shape, np.float32).astype(dtype)
        return random.integers(-100, 101, shape).astype(dtype) if dtype in _INTEGERS else np.zeros(shape, dtype)

    plain = [made(p) for p in first.params[:-1]]
    arrays = [plain[n] for n in range(len(plain)) if n not in kernels[0].constants]
    with target.tvm_target():
        for kernel in kernels:
            shapes = [_shape(p) for p in _scheduled(kernel, templates, target)[0].params]
            arrays += [in_panels(plain[n], shapes[n]) for n in sorted(kernel.constants)]
    return arrays


class _Memory:
    """Where the arguments of the candidates lie."""

    def __init__(self, kernels: Sequence[Kernel], repeats: int, check: bool, copies_at: int | None) -> None:
        """`copies_at` is where in the arena copies of the weights begin; None where they are in inputs."""
        self.kernels = kernels
        self.repeats = repeats
        self.check = check
        self.inputs: list[TensorSpec] = []
        self.outputs: list[TensorSpec] = []
        self.arena_bytes = copies_at or 0
        self.copies: list[Call] = []
        """Calls that make the copies."""
        self._in_arena = copies_at is not None
        self._refs: dict[Any, Ref] = {}
        if check:  # activations first, then each one's weights
            for number in range(len(kernels)):
                self._activations(number)

    def arguments(self, number: int, again: int) -> list[Ref]:
        """The arguments of a candidate's call in one of the repeats."""
        kernel = self.kernels[number]
        *sources, result = kernel.function.params
        activations = self._activations(number)
        refs = [
            self._weights(number, again, at, source) if at in kernel.constants else activations[at]
            for at, source in enumerate(sources)
        ]
        key = ("y", self._function(number), number if self.check or self._in_arena else 0)
        if key not in self._refs:
            self._refs[key] = Ref("output", len(self.outputs))
            self.outputs.append(_flat(f"y{len(self.outputs)}", result))
        return [*refs, self._refs[key]]

    def _function(self, number: int) -> int:
        """The number of the first candidate of the same function."""
        function = self.kernels[number].function
        return next(n for n, other in enumerate(self.kernels) if other.function.same_as(function))

    def _activations(self, number: int) -> dict[int, Ref]:
        first = self._function(number)
        found = {}
        for at, source in enumerate(self.kernels[first].function.params[:-1]):
            if at in self.kernels[first].constants:
                continue
            key = ("x", first, at)
            if key not in self._refs:
                self._refs[key] = Ref("input", len(self.inputs))
                self.inputs.append(_flat(f"x{len(self.inputs)}", source))
            found[at] = self._refs[key]
        return found

    def _weights(self, number: int, again: int, at: int, source: Any) -> Ref:
        first = self._function(number)
        if self.check:
            self.inputs.append(_flat(f"w{len(self.inputs)}", source))
            return Ref("input", len(self.inputs) - 1)
        whole = _flat("", source)
        size = align(whole.nbytes)
        same = [n for n in range(len(self.kernels)) if self._function(n) == first]
        copies = len(same) * self.repeats
        key = ("w", first, at)
        if key not in self._refs:
            self._refs[key] = Ref("input", len(self.inputs))
            count = size // (whole.nbytes // max(1, whole.shape[0])) * (1 if self._in_arena else copies)
            self.inputs.append(TensorSpec(f"w{len(self.inputs)}", whole.dtype, (count,)))
            if self._in_arena:
                self._refs[key, "copies"] = Ref("arena", self.arena_bytes)
                self.arena_bytes += copies * size
        place = (again * len(same) + same.index(number)) * size
        if not self._in_arena:
            return Ref("input", self._refs[key].at, place)
        copy = Ref("arena", self._refs[key, "copies"].at + place)
        self.copies.append(Call("", (self._refs[key], copy), size))
        return copy


def _repeats(kernels: Sequence[Kernel], weights_bytes: int) -> int:
    """How often all candidates are called in a round, so that it passes over so many bytes of weights."""
    once = sum(
        align(_flat("", source).nbytes)
        for kernel in kernels
        for at, source in enumerate(kernel.function.params)
        if at in kernel.constants
    )
    return max(1, min(-(-weights_bytes // once) if once else 1, _MOST_CALLS // len(kernels)))


def _scheduled(kernel: Kernel, templates: Mapping[str, Template], target: Target) -> tuple[Any, str]:
    """The scheduled function, and what its template says."""
    choices = Choices(kernel.decisions)
    found = schedule_kernel(kernel.function, templates, target.hardware, choices)
    if choices.refused:
        raise InternalError(f"tune: the template has no such choice: {', '.join(sorted(choices.refused))}")
    return found


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in parameter.shape)


def _flat(name: str, parameter: Any) -> TensorSpec:
    return TensorSpec(name, str(parameter.dtype), (int(np.prod(_shape(parameter), dtype=np.int64)),))
