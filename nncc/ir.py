"""The values that flow through the pipeline: one frozen dataclass per stage boundary.

    Model --portable passes--> Model --specialize--> Network --lower--> Kernels --schedule--> Kernels
      --flatten--> Program --build--> Artifact

`Ref`, `Call`, `Branch` and `Loop` are what a Program is made of, TensorSpecs what the values say of inputs and outputs;
`Region` is how control flow stands beside a graph that only calls it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir
    import tvm

    from nncc.target import Target

__all__ = [
    "ALIGNMENT",
    "CONCATENATION",
    "Artifact",
    "Branch",
    "Call",
    "Decision",
    "FloatLayer",
    "Kernels",
    "Launch",
    "Loop",
    "Lowered",
    "Model",
    "Network",
    "Packed",
    "Program",
    "Quantization",
    "Ref",
    "Region",
    "Step",
    "TensorSpec",
    "align",
    "calls_of",
    "with_refs",
]

CONCATENATION = "nncc.concatenation"
"""The attribute of TIR functions that write their arguments one after the other into the last one."""
ALIGNMENT = 64
"""Bytes: every constant and every arena buffer starts at a multiple of this."""

_BITS = {"float": 32, "double": 64, "bool": 8, "bfloat16": 16}


def align(size: int, to: int = ALIGNMENT) -> int:
    """The smallest multiple of `to` that is not less than `size`, in bytes."""
    return -(-size // to) * to


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (numpy's word, or ``bfloat16``) and static shape of an input, an output or a constant."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes of the tensor, densely packed in row-major order."""
        digits = self.dtype.lstrip("abcdefghijklmnopqrstuvwxyz")
        bits = _BITS.get(self.dtype) or int(digits)
        return prod(self.shape) * bits // 8

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{'x'.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Decision:
    """What was chosen for a task, which is a kernel or a choice that changes the graph."""

    task: str
    """Its hash."""
    kind: str
    """kernel | algorithm | layout"""
    text: str
    """For people."""
    taken: Mapping[str, Any]
    source: str
    """``default``, or the record that says so."""

    @property
    def tuned(self) -> bool:
        """Whether a record or a lock decided."""
        return not self.source.startswith("default")


@dataclass(frozen=True)
class FloatLayer:
    """Convolutions or matrix products with a quantized input or weights that are computed in float32."""

    text: str
    """The operator and its shapes: ``conv2d 1x64x56x56*64x64x3x3``."""
    reason: str
    count: int
    """How many there are, alike."""


@dataclass(frozen=True)
class Quantization:
    """What runs on integers in a model that has quantized tensors."""

    integer_macs: int
    """Multiply-adds of convolutions and matrix products on integers."""
    macs: int
    """All multiply-adds of convolutions and matrix products."""
    float_layers: tuple[FloatLayer, ...] = ()


@dataclass(frozen=True)
class Model:
    """An ONNX graph, valid at every step: what the portable stages read and return."""

    graph: onnx_ir.Model
    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Region:
    """Control flow that a graph calls like a function: its bodies run under a condition, or again and again.

    A branch is called with the condition and what the bodies capture; both bodies, then and else, take all of that and
    give the outputs. A loop is called with its number of iterations and its condition (where it has them), then the
    carried values, those that are scanned, and the captured ones. Its body takes the iteration's number (int64) in
    front of carried values, slices and captured ones, and gives the next condition (where it has one), the carried
    values and slices of what is stacked; the outputs are the carried values, then all slices of each kind.
    """

    kind: Literal["branch", "loop"]
    bodies: tuple[Any, ...]
    """A Model each, later a Network, then Kernels."""
    outputs: tuple[TensorSpec, ...]
    trips: int | None = None
    """Iterations of a loop, where they are known; else an argument says, or only the condition does."""
    has_trips: bool = False
    """Whether the first argument is the most iterations, an int64."""
    has_condition: bool = False
    """Whether there is a condition, a byte, which is looked at before each iteration."""
    carried: int = 0
    scanned: tuple[bool, ...] = ()
    """For each scanned argument, whether its slices along the first axis are taken from the end."""
    stacked: tuple[bool, ...] = ()
    """For each stacked output, whether its slices are put from the end."""


@dataclass(frozen=True)
class Network:
    """A Relax function ``main`` for one target, its constants inside."""

    module: tvm.IRModule
    name: str
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decisions: tuple[Decision, ...] = ()
    """Where there were several ways."""
    quantization: Quantization | None = None
    """None where nothing is quantized."""
    regions: Mapping[str, Region] = field(default_factory=dict)
    """By the name under which ``main`` calls it; the bodies are Networks."""


@dataclass(frozen=True)
class Kernels:
    """A Relax function ``main`` that only calls TIR kernels, and the kernels.

    The schedule stage fills in, for each kernel, where its schedule came from (``conv2d tile 6x2``), how many
    floating-point operations one call performs and how many bytes of each argument it reads or writes.
    """

    module: tvm.IRModule
    name: str
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    schedules: dict[str, str] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    argument_bytes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    """The network's, and those of the kernels that had a choice, in the order of the kernels."""
    sources: dict[str, str] = field(default_factory=dict)
    """By kernel, the source of its decision."""
    quantization: Quantization | None = None
    """The network's."""
    regions: Mapping[str, Region] = field(default_factory=dict)
    """The network's, with bodies that are Kernels."""


@dataclass(frozen=True)
class Ref:
    """Where a kernel argument lives: `offset` bytes into input or output number `at`, or behind byte `at` of the arena
    or the weights."""

    space: Literal["input", "output", "arena", "weights"]
    at: int
    offset: int = 0

    def __str__(self) -> str:
        place = f"{self.space}[{self.at}]" if self.space in ("input", "output") else f"{self.space}+{self.at}"
        return place + (f"+{self.offset}" if self.offset else "")


@dataclass(frozen=True)
class Call:
    """One kernel call. An empty `kernel` is a copy of `nbytes` bytes from the first argument to the second."""

    kernel: str
    args: tuple[Ref, ...]
    nbytes: int = 0
    strides: tuple[int, ...] = ()
    """Of a copy in a loop: by how many bytes each argument lies further on in each iteration. Empty: by none."""

    def __str__(self) -> str:
        strides = self.strides or (0,) * len(self.args)
        moved = [f"{ref}{f'{n:+}i' if n else ''}" for ref, n in zip(self.args, strides, strict=True)]
        return f"{self.kernel or f'copy {self.nbytes} bytes'}({', '.join(moved)})"


@dataclass(frozen=True)
class Branch:
    """Steps that are taken if the byte at `condition` is not 0, and others that are taken if it is."""

    condition: Ref
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


@dataclass(frozen=True)
class Loop:
    """Steps that are taken `trips` times, or as often as the int64 at it says, or without end where it is None; but
    only as long as the byte at `condition`, if there is one, is not 0 before an iteration.
    """

    trips: int | Ref | None
    condition: Ref | None
    counter: Ref | None
    """Where the number of the iteration, from 0 on, is written as an int64."""
    steps: tuple[Step, ...]


Step = Call | Branch | Loop
"""What a program does in turn."""


def calls_of(steps: tuple[Step, ...]) -> Iterator[Call]:
    """All calls, also those within branches and loops, in the order in which they are written."""
    for step in steps:
        if isinstance(step, Call):
            yield step
        elif isinstance(step, Branch):
            yield from calls_of(step.then + step.otherwise)
        else:
            yield from calls_of(step.steps)


def _times(steps: tuple[Step, ...], times: int = 1) -> Iterator[int]:
    """For each of `calls_of`, how often it runs in a run, as far as that is known."""
    for step in steps:
        if isinstance(step, Call):
            yield times
        elif isinstance(step, Branch):
            yield from _times(step.then + step.otherwise, times)
        else:
            yield from _times(step.steps, times * step.trips if isinstance(step.trips, int) else times)


def with_refs(steps: tuple[Step, ...], moved: Callable[[Ref], Ref]) -> tuple[Step, ...]:
    """The same steps with every place replaced by what `moved` says of it."""

    def of(step: Step) -> Step:
        if isinstance(step, Call):
            return replace(step, args=tuple(map(moved, step.args)))
        if isinstance(step, Branch):
            return Branch(moved(step.condition), with_refs(step.then, moved), with_refs(step.otherwise, moved))
        trips, condition, counter = (
            moved(r) if isinstance(r, Ref) else r for r in (step.trips, step.condition, step.counter)
        )
        return Loop(trips, condition, counter, with_refs(step.steps, moved))  # type: ignore[arg-type]

    return tuple(map(of, steps))


def _lines(steps: tuple[Step, ...], first: int = 0, depth: int = 0) -> Iterator[str]:
    """A line a call, with its number, and one where a branch or a loop begins; their steps stand further in."""
    indent = "  " * depth
    for step in steps:
        if isinstance(step, Call):
            yield f"  {indent}{first:3} {step}"
            first += 1
            continue
        if isinstance(step, Branch):
            parts = {f"if {step.condition}": step.then, "else": step.otherwise}
        else:
            times = "" if step.trips is None else f" {step.trips} times"
            while_ = f" while {step.condition}" if step.condition else ""
            counter = f" counted at {step.counter}" if step.counter else ""
            parts = {f"loop{times}{while_}{counter}": step.steps}
        for word, inside in parts.items():
            yield f"  {indent}    {word}"
            yield from _lines(inside, first, depth + 1)
            first += sum(1 for _ in calls_of(inside))


@dataclass(frozen=True)
class Launch:
    """One launch of a device kernel: what a call of a program for a GPU is made of.

    `args` are the kernel's parameters, all pointers, in their order: the number of the call's argument that each points
    into, and at which byte of it.
    """

    symbol: str
    """Name of the kernel in the device code."""
    grid: tuple[int, int, int]
    """Blocks along x, y and z."""
    block: tuple[int, int, int]
    """Threads of a block along x, y and z."""
    args: tuple[tuple[int, int], ...]
    shared_bytes: int = 0
    """Dynamic shared memory of a block, beside what the kernel declares itself."""


@dataclass(frozen=True)
class Lowered:
    """What a backend makes of scheduled TIR functions, which it is given by name."""

    code: Any
    """`Program.kernels`."""
    workspace: dict[str, int]
    """Bytes by function: where not 0, a call has one argument more."""
    scratch: dict[str, int] = field(default_factory=dict)
    """Bytes by function that each thread needs besides."""
    launches: dict[str, tuple[Launch, ...]] = field(default_factory=dict)
    """`Program.launches`."""


@dataclass(frozen=True)
class Packed:
    """A constant that is stored without its zeros, and expanded into the arena: `nbytes` bytes of the weights from `at`
    on become `elements` elements of `width` bytes at byte `to` of the arena."""

    at: int
    nbytes: int
    to: int
    elements: int
    width: int

    def __str__(self) -> str:
        what = f"{self.elements} elements of {self.width} bytes"
        return f"arena+{self.to} = {what}, {self.nbytes} bytes at weights+{self.at}"


@dataclass(frozen=True)
class Program:
    """Steps in order, arena offsets, constants: no graph left. Printable on a page, hashable to the byte.

    `weights` is the constant blob; `arena_bytes` what one context needs for activations, kernel workspaces and the
    constants that are `packed`, which stay there; `scratch_bytes` what each of its threads needs besides. `kernels` is
    backend-specific: for LLVM an IRModule of lowered functions with bare-pointer signatures, for GPUs the source of the
    device kernels.
    """

    name: str
    target: Target
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    weights: np.ndarray
    arena_bytes: int
    scratch_bytes: int
    kernels: Any
    schedules: dict[str, str] = field(default_factory=dict)
    flops: dict[str, int] = field(default_factory=dict)
    argument_bytes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    launches: dict[str, tuple[Launch, ...]] = field(default_factory=dict)
    """For a GPU, what each kernel of `calls` launches, in order."""
    packed: tuple[Packed, ...] = ()

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls, in the order in which profiles and errors number them."""
        return tuple(calls_of(self.steps))

    @property
    def times(self) -> tuple[int, ...]:
        """For each of `calls`, how often it runs in a run; iterations that are not known count as one, and each branch
        as if it were taken."""
        return tuple(_times(self.steps))

    def call_bytes(self, call: Call) -> int:
        """How many bytes `call` reads and writes: a tensor that it is given twice counts once, its workspace not."""
        if not call.kernel:
            return 2 * call.nbytes
        sizes: dict[Ref, int] = {}
        for ref, nbytes in zip(call.args, self.argument_bytes.get(call.kernel, ()), strict=False):
            sizes[ref] = max(nbytes, sizes.get(ref, 0))
        return sum(sizes.values())

    def text(self) -> str:
        """The whole program, one line an input, output or call."""
        lines = [f"program {self.name} for {self.target.name}"]
        lines += [f"  input  {i} {spec}" for i, spec in enumerate(self.inputs)]
        lines += [f"  output {i} {spec}" for i, spec in enumerate(self.outputs)]
        lines += [f"  weights {self.weights.nbytes} arena {self.arena_bytes} scratch {self.scratch_bytes}"]
        lines += [f"  packed {each}" for each in self.packed]
        lines += _lines(self.steps)
        return "\n".join(lines) + "\n"

    def digest(self) -> str:
        """SHA-256 of the text, the kernels and the weights, in hexadecimal: equal digests, equal programs."""
        digest = hashlib.sha256(self.text().encode())
        digest.update(str(self.kernels).encode())
        digest.update(str(sorted(self.launches.items())).encode() if self.launches else b"")
        digest.update(self.weights.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Artifact:
    """The files of a compiled model. `description` is what ``model.json`` holds."""

    library: Path
    header: Path
    json: Path
    description: dict[str, Any]
    extras: tuple[Path, ...] = ()
