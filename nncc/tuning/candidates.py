"""Candidate libraries: scheduled kernels one after the other in an ordinary library, whose profile is their times.

A candidate so runs as it will in a model: the same runtime, threads and calls. Activations are shared and warm, as in a
model, where the kernel before has just written them. Weights are cold, as in a model, where those of all other kernels
have passed through the caches since: each call has a copy of its own, and one round passes over as many bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nncc.choices import Choices
from nncc.codegen.flatten import in_panels
from nncc.errors import InternalError
from nncc.ir import Call, Program, Ref, TensorSpec, align
from nncc.target import Target
from nncc.templates import Template, schedule_kernel

__all__ = ["Kernel", "build_candidates", "check_inputs"]

NAME = "candidates"
_MOST_CALLS = 256


@dataclass(frozen=True)
class Kernel:
    """An unscheduled TIR function, the arguments of it that are weights, and the decisions to schedule it by."""

    function: Any
    constants: frozenset[int]
    decisions: Mapping[str, Any]


def build_candidates(
    kernels: Sequence[Kernel],
    templates: Mapping[str, Template],
    target: Target,
    folder: Path,
    *,
    weights_bytes: int = 0,
    check: bool = False,
    rpc: bool = False,
) -> Path:
    """Build the library whose calls are `kernels`, in order, as often as it takes to pass over `weights_bytes`.

    Its inputs and outputs are those of the distinct functions, one after the other, without their shapes: the
    activations, and a memory of copies of the weights. To `check` what kernels compute, each has weights and outputs of
    its own. With `rpc`, TVM's RPC server can measure it.

    Raises InternalError where LLVM or the linker fails, TVM's ScheduleError where the decisions do not fit.
    """
    from nncc.backends import backend
    from nncc.codegen.flatten import symbol_prefix

    with target.tvm_target():
        functions = {f"c{n}": _scheduled(kernel, templates, target) for n, kernel in enumerate(kernels)}
    lowered = backend(target).lower(functions, target, symbol_prefix(NAME))
    repeats = 1 if check else _repeats(kernels, weights_bytes)
    memory = _Memory(kernels, repeats, check)
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
        tuple(calls),
        np.zeros(0, np.uint8),
        max(lowered.workspace.values(), default=0),
        max(lowered.scratch.values(), default=0),
        lowered.code,
        launches=lowered.launches,
    )
    return backend(target).build(program, folder, NAME, rpc=rpc).library


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
        if dtype == "float32":
            return random.standard_normal(shape, np.float32)
        return random.integers(-100, 101, shape).astype(dtype) if dtype in _INTEGERS else np.zeros(shape, dtype)

    plain = [made(p) for p in first.params[:-1]]
    arrays = [plain[n] for n in range(len(plain)) if n not in kernels[0].constants]
    with target.tvm_target():
        for kernel in kernels:
            shapes = [_shape(p) for p in _scheduled(kernel, templates, target).params]
            arrays += [in_panels(plain[n], shapes[n]) for n in sorted(kernel.constants)]
    return arrays


class _Memory:
    """Where the arguments of the candidates lie."""

    def __init__(self, kernels: Sequence[Kernel], repeats: int, check: bool) -> None:
        self.kernels = kernels
        self.repeats = repeats
        self.check = check
        self.inputs: list[TensorSpec] = []
        self.outputs: list[TensorSpec] = []
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
        key = ("y", self._function(number), number if self.check else 0)
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
        size = align(_flat("", source).nbytes)
        same = [n for n in range(len(self.kernels)) if self._function(n) == first]
        key = ("w", first, at)
        if key not in self._refs:
            self._refs[key] = Ref("input", len(self.inputs))
            whole = _flat(f"w{len(self.inputs)}", source)
            element = whole.nbytes // max(1, whole.shape[0])
            self.inputs.append(TensorSpec(whole.name, whole.dtype, (len(same) * self.repeats * size // element,)))
        return Ref("input", self._refs[key].at, (again * len(same) + same.index(number)) * size)


def _repeats(kernels: Sequence[Kernel], weights_bytes: int) -> int:
    """How often all candidates are called in a round, so that it passes over so many bytes of weights."""
    once = sum(
        align(_flat("", source).nbytes)
        for kernel in kernels
        for at, source in enumerate(kernel.function.params)
        if at in kernel.constants
    )
    return max(1, min(-(-weights_bytes // once) if once else 1, _MOST_CALLS // len(kernels)))


def _scheduled(kernel: Kernel, templates: Mapping[str, Template], target: Target) -> Any:
    choices = Choices(kernel.decisions)
    function, _ = schedule_kernel(kernel.function, templates, target.hardware, choices)
    if choices.refused:
        raise InternalError(f"tune: the template has no such choice: {', '.join(sorted(choices.refused))}")
    return function


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in parameter.shape)


def _flat(name: str, parameter: Any) -> TensorSpec:
    return TensorSpec(name, str(parameter.dtype), (int(np.prod(_shape(parameter), dtype=np.int64)),))
