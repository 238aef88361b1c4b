"""The values that flow through the pipeline: one frozen dataclass per stage boundary.

    Model --portable passes--> Model --specialize--> Network --lower--> Kernels --schedule--> Kernels
      --flatten--> Program --build--> Artifact

`Ref`, `Call`, `Branch` and `Loop` are what a Program is made of, TensorSpecs what the values say of inputs and outputs;
`Region` is how control flow stands beside a graph that only calls it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir
    import tvm

    from nncc.target import Target
    from nncc.vta.stream import Stream

__all__ = [
    "ALIGNMENT",
    "CONCATENATION",
    "COUNT",
    "IN_PLACE",
    "Acceleration",
    "Artifact",
    "Branch",
    "Call",
    "Decision",
    "Dim",
    "Extent",
    "FloatLayer",
    "HostLayer",
    "Kernels",
    "Launch",
    "Loop",
    "Lowered",
    "Model",
    "Network",
    "Packed",
    "Program",
    "Quantization",
    "Quotient",
    "Ref",
    "Region",
    "Step",
    "TensorSpec",
    "Variant",
    "align",
    "calls_of",
    "with_refs",
]

COUNT = "nncc.count"
"""The attribute of TIR functions whose last argument gets how much they selected, an int64: the dimension's name."""
IN_PLACE = "nncc.in_place"
"""The attribute of such functions: whether what is selected lies where it would if all were, not densely packed."""
CONCATENATION = "nncc.concatenation"
"""The attribute of TIR functions that write their arguments one after the other into the last one."""
ALIGNMENT = 64
"""Bytes: every constant and every arena buffer starts at a multiple of this."""

_BITS = {"float": 32, "double": 64, "bool": 8, "bfloat16": 16}


def align(size: int, to: int = ALIGNMENT) -> int:
    """The smallest multiple of `to` that is not less than `size`, in bytes."""
    return -(-size // to) * to


@dataclass(frozen=True)
class Dim:
    """An open dimension: its size is known when the library runs."""

    name: str
    low: int
    """The smallest size."""
    high: int
    """The largest."""
    from_data: bool = False
    """Whether a kernel says the size, not the caller."""


@dataclass(frozen=True)
class Quotient:
    """floor((dim + plus) / over) of an open dimension."""

    dim: str
    plus: int = 0
    over: int = 1

    def at(self, sizes: Mapping[str, int]) -> int:
        """Its value at these sizes, by dimension."""
        return (sizes[self.dim] + self.plus) // self.over

    def __str__(self) -> str:
        inner = f"({self.dim} + {self.plus})" if self.plus else self.dim
        return f"{inner}/{self.over}" if self.over != 1 else inner


@dataclass(frozen=True)
class Extent:
    """A number that depends on open dimensions: `constant` plus each coefficient times the product of its steps."""

    constant: int
    terms: tuple[tuple[int, tuple[Quotient, ...]], ...] = ()

    def at(self, sizes: Mapping[str, int]) -> int:
        """Its value at these sizes, by dimension."""
        return self.constant + sum(c * prod(step.at(sizes) for step in steps) for c, steps in self.terms)

    def __add__(self, other: Extent | int) -> Extent:
        more = other if isinstance(other, Extent) else Extent(other)
        return _collected(self.constant + more.constant, [*self.terms, *more.terms])

    __radd__ = __add__

    def __mul__(self, other: Extent) -> Extent:
        left, right = [(self.constant, ()), *self.terms], [(other.constant, ()), *other.terms]
        products = [(a * b, (*steps, *more)) for a, steps in left for b, more in right]
        return _collected(0, products)

    @property
    def dim(self) -> str | None:
        """The open dimension that this is, as it is; None where it is something else."""
        whole = self.constant == 0 and len(self.terms) == 1 and self.terms[0][0] == 1 and len(self.terms[0][1]) == 1
        step = self.terms[0][1][0] if whole else Quotient("", 1)
        return step.dim if step == Quotient(step.dim) else None

    def __str__(self) -> str:
        words = ["*".join([*([str(c)] if c != 1 else []), *map(str, steps)]) for c, steps in self.terms]
        return " + ".join([*words, *([str(self.constant)] if self.constant or not words else [])])


def _collected(constant: int, terms: Sequence[tuple[int, tuple[Quotient, ...]]]) -> Extent:
    """The sum of all, like terms together."""
    sums: dict[tuple[Quotient, ...], int] = {}
    for coefficient, steps in terms:
        key = tuple(sorted(steps, key=str))
        sums[key] = sums.get(key, 0) + coefficient
    constant += sums.pop((), 0)
    return Extent(constant, tuple((c, steps) for steps, c in sums.items() if c))


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (the word of numpy or ml_dtypes) and shape of an input, an output or a constant.

    `shape` is static, or the largest that there is; `extents` then says, by axis, what the sizes are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    extents: tuple[Extent, ...] = ()
    """Empty where the shape is static."""

    @property
    def nbytes(self) -> int:
        """Size in bytes of the tensor in row-major order, densely packed but that each element has whole bytes."""
        return prod(self.shape) * self._bits // 8

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be it, at some sizes of open dimensions."""
        extents = self.extents or tuple(map(Extent, self.shape))
        return len(shape) == len(extents) and all(
            bool(extent.terms) or extent.constant == size for extent, size in zip(extents, shape, strict=True)
        )

    @property
    def size(self) -> Extent:
        """Size in bytes, as `nbytes`, of the actual tensor."""
        total = Extent(self._bits)
        for extent in self.extents or map(Extent, self.shape):
            total *= extent
        return Extent(total.constant // 8, tuple((c // 8, steps) for c, steps in total.terms))

    @property
    def _bits(self) -> int:
        digits = re.match(r"[a-z]+(\d+)", self.dtype)
        return max(8, _BITS.get(self.dtype) or int(digits[1] if digits else 8))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{'x'.join(map(str, self.extents or self.shape))}]"


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
class HostLayer:
    """Convolutions or matrix products of integers that an accelerator does not compute."""

    text: str
    """The operator and its shapes."""
    reason: str
    count: int
    """How many there are, alike."""


@dataclass(frozen=True)
class Acceleration:
    """What of a model's integers an accelerator computes."""

    layers: int
    """Convolutions and matrix products on it."""
    macs: int
    """Their multiply-adds."""
    host_macs: int
    """Those of the products of integers on the host."""
    host_layers: tuple[HostLayer, ...] = ()


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
    acceleration: Acceleration | None = None
    """None where the target has no accelerator."""
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
    acceleration: Acceleration | None = None
    """The network's."""
    regions: Mapping[str, Region] = field(default_factory=dict)
    """The network's, with bodies that are Kernels."""


_NUMBERED = ("input", "output", "dim")


@dataclass(frozen=True)
class Ref:
    """Where a kernel argument lives: `offset` bytes into input or output number `at`, or behind byte `at` of the arena
    or the weights; or the size of open dimension number `at`, a number."""

    space: Literal["input", "output", "arena", "weights", "dim"]
    at: int
    offset: int | Extent = 0
    """An Extent where it depends on open dimensions."""

    def __str__(self) -> str:
        offset = f"+{self.offset}" if self.offset else ""
        return f"{self.space}[{self.at}]{offset}" if self.space in _NUMBERED else f"{self.space}+{self.at}{offset}"


@dataclass(frozen=True)
class Call:
    """One kernel call. An empty `kernel` is a copy of `nbytes` bytes from the first argument to the second."""

    kernel: str
    args: tuple[Ref, ...]
    nbytes: int | Extent = 0
    """An Extent where it depends on open dimensions."""
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
    streams: dict[str, Stream] = field(default_factory=dict)
    """`Program.streams`."""


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
class Variant:
    """Those steps of a program that are one way to run it: numbers `first` to `stop` - 1."""

    sizes: tuple[int, ...]
    """The sizes of the open dimensions that it is for; empty for one that takes all sizes."""
    first: int
    stop: int

    def __str__(self) -> str:
        return f"steps {self.first} to {self.stop - 1}: {'x'.join(map(str, self.sizes)) or 'all sizes'}"


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
    dims: tuple[Dim, ...] = ()
    """Open dimensions, in the order of the C interface."""
    variants: tuple[Variant, ...] = ()
    """The first that is for the sizes of a run is what runs. Empty without open dimensions: then all steps run."""
    streams: dict[str, Stream] = field(default_factory=dict)
    """The kernels that an accelerator runs; their schedules say by which plans."""

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
        """How many bytes `call` reads and writes, at the largest sizes.

        A tensor that it is given twice counts once, its workspace not.
        """
        if not call.kernel:
            largest = {dim.name: dim.high for dim in self.dims}
            return 2 * (call.nbytes.at(largest) if isinstance(call.nbytes, Extent) else call.nbytes)
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
        lines += [f"  dim    {i} {dim.name} {dim.low}..{dim.high}" for i, dim in enumerate(self.dims)]
        lines += [f"  packed {each}" for each in self.packed]
        lines += [f"  {each}" for each in self.variants]
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
