"""Buffers and steps of a program in the making, and the places in memory that they get."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nncc.codegen.memory import Lifetime, plan
from nncc.ir import ALIGNMENT, Branch, Call, Extent, Kernels, Loop, Lowered, Program, Ref, Step, TensorSpec, align

__all__ = [
    "REGION",
    "Memory",
    "PendingBranch",
    "PendingCall",
    "PendingLoop",
    "PendingStep",
    "Value",
    "pending_calls",
    "place",
]

REGION = "nncc.region"
"""The name of the function that control flow calls in Relax; its first argument is the name of a `Region`."""


@dataclass(frozen=True)
class Value:
    """What a Relax expression is, once there is no graph: a place, or several."""

    space: str  # input | buffer | weights | dim | tuple | none
    at: int = 0
    offset: int | Extent = 0
    parts: tuple[Value, ...] = ()


@dataclass
class PendingCall:
    """A `nncc.ir.Call` whose buffers have no place yet."""

    kernel: str
    args: list[Value]
    nbytes: int | Extent = 0
    strides: tuple[int, ...] = ()


@dataclass
class PendingBranch:
    """A `nncc.ir.Branch` whose buffers have no place yet."""

    condition: Value
    then: list[PendingStep]
    otherwise: list[PendingStep]


@dataclass
class PendingLoop:
    """A `nncc.ir.Loop` whose buffers have no place yet."""

    trips: int | Value | None
    condition: Value | None
    counter: Value | None
    steps: list[PendingStep]


PendingStep = PendingCall | PendingBranch | PendingLoop


def pending_calls(steps: Sequence[PendingStep]) -> Iterator[PendingCall]:
    """All calls, in the order in which the program's calls are numbered."""
    for step in steps:
        if isinstance(step, PendingCall):
            yield step
        elif isinstance(step, PendingBranch):
            yield from pending_calls([*step.then, *step.otherwise])
        else:
            yield from pending_calls(step.steps)


class Memory:
    """The buffers and constants of a program."""

    def __init__(self, constant_alignment: int = ALIGNMENT) -> None:
        self.constant_alignment = constant_alignment
        self.sizes: list[int] = []
        """Bytes, by number of the buffer."""
        self.inside: dict[int, tuple[int, int | Extent]] = {}
        """By buffer that is part of another: that one, and at which byte of it."""
        self.constants: dict[int, np.ndarray] = {}
        """By the byte of the weights that each begins at."""
        self.weights_bytes = 0
        self._offsets: dict[bytes, int] = {}

    def buffer(self, nbytes: int) -> Value:
        """A new buffer."""
        self.sizes.append(nbytes)
        return Value("buffer", len(self.sizes) - 1)

    def root(self, buffer: int) -> tuple[int, int | Extent]:
        """The buffer that is part of no other and has `buffer` in it, and at which byte."""
        offset: int | Extent = 0
        while buffer in self.inside:
            buffer, more = self.inside[buffer]
            offset += more
        return buffer, offset

    def same(self, one: Value, other: Value) -> bool:
        """Whether two values begin in the same buffer."""
        return one.space == other.space == "buffer" and self.root(one.at)[0] == self.root(other.at)[0]

    def constant(self, array: np.ndarray) -> Value:
        """Append a constant to the weights, once."""
        array = np.ascontiguousarray(array)
        key = hashlib.sha256(array.view(np.uint8).reshape(-1).data if array.size else b"").digest()
        if key not in self._offsets:
            self._offsets[key] = self.weights_bytes
            self.constants[self.weights_bytes] = array
            self.weights_bytes += align(array.nbytes, self.constant_alignment)
        return Value("weights", self._offsets[key])

    def weights(self) -> np.ndarray:
        """The blob of all constants."""
        found = np.zeros(self.weights_bytes, np.uint8)
        for offset, array in self.constants.items():
            found[offset : offset + array.nbytes] = array.reshape(-1).view(np.uint8)
        return found


@dataclass
class _Spans:
    """From which call to which each buffer is alive, calls being numbered as they are written."""

    memory: Memory
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)
    loops: list[tuple[int, int]] = field(default_factory=list)
    """The first and the last call of each."""
    count: int = 0

    def use(self, value: Value | int | None, first: int, last: int | None = None) -> None:
        if isinstance(value, Value) and value.space == "buffer":
            buffer = self.memory.root(value.at)[0]
            span = self.spans.get(buffer, (first, first))
            self.spans[buffer] = min(span[0], first), max(span[1], first if last is None else last)

    def read(self, steps: Sequence[PendingStep]) -> None:
        for step in steps:
            if isinstance(step, PendingCall):
                for value in step.args:
                    self.use(value, self.count)
                self.count += 1
            elif isinstance(step, PendingBranch):
                self.use(step.condition, self.count)
                self.read(step.then)
                self.read(step.otherwise)
            else:
                self.loop(step)

    def loop(self, step: PendingLoop) -> None:
        first = self.count
        self.read(step.steps)
        last = max(first, self.count - 1)
        self.loops.append((first, last))
        self.use(step.trips, first)
        for value in (step.condition, step.counter):
            self.use(value, first, last)
        for call in pending_calls(step.steps):
            for value, stride in zip(call.args, call.strides, strict=False):
                if stride:  # each iteration writes or reads another part
                    self.use(value, first, last)

    def extended(self) -> dict[int, tuple[int, int]]:
        """What is alive at a loop's beginning or end, is so throughout: the next iteration may read it."""
        changed = True
        while changed:
            changed = False
            for first, last in self.loops:
                for buffer, span in self.spans.items():
                    within = first <= span[0] and span[1] <= last
                    apart = span[1] < first or last < span[0]
                    longer = min(span[0], first), max(span[1], last)
                    if not within and not apart and longer != span:
                        self.spans[buffer] = longer
                        changed = True
        return self.spans


def _size(spec: TensorSpec) -> int | Extent:
    return spec.size if spec.extents else spec.nbytes


def place(
    kernels: Kernels,
    memory: Memory,
    steps: Sequence[PendingStep],
    results: Sequence[Value],
    lowered: Lowered,
    shared: Collection[int] = (),
) -> Program:
    """The program: each buffer gets its place in the arena or, where it is one of the `results`, in an output. A result
    may be the output itself.

    The `shared` buffers have to be in the arena.
    """
    for call in pending_calls(steps):
        workspace = lowered.workspace.get(call.kernel, 0)
        if workspace:
            call.args.append(memory.buffer(workspace))
    read = _Spans(memory)
    read.read(steps)
    spans = read.extended()

    pinned: dict[int, int] = {}
    copies: list[tuple[Value, int]] = []
    for output, result in enumerate(results):
        if result == Value("output", output):  # steps have written it
            continue
        buffer, offset = memory.root(result.at) if result.space == "buffer" else (0, 0)
        whole = result.space == "buffer" and offset == 0 and memory.sizes[buffer] == kernels.outputs[output].nbytes
        if whole and buffer not in pinned and buffer not in shared:
            pinned[buffer] = output
        else:
            if result.space == "buffer":  # it is read after the last call
                spans[buffer] = (spans[buffer][0], read.count)
            copies.append((result, output))

    planned = sorted(set(spans) - set(pinned))
    offsets, arena = plan([Lifetime(memory.sizes[b], *spans[b]) for b in planned])
    places = dict(zip(planned, offsets, strict=True))

    def ref(value: Value) -> Ref:
        if value.space == "buffer":
            buffer, offset = memory.root(value.at)
            offset += value.offset
            if buffer in pinned:
                return Ref("output", pinned[buffer], offset)
            start = places[buffer]
            return Ref("arena", start + offset) if isinstance(offset, int) else Ref("arena", start, offset)
        return Ref(value.space, value.at, value.offset)  # type: ignore[arg-type]

    def placed(pending: Sequence[PendingStep]) -> tuple[Step, ...]:
        return tuple(map(step, pending))

    def step(pending: PendingStep) -> Step:
        if isinstance(pending, PendingCall):
            return Call(pending.kernel, tuple(map(ref, pending.args)), pending.nbytes, pending.strides)
        if isinstance(pending, PendingBranch):
            return Branch(ref(pending.condition), placed(pending.then), placed(pending.otherwise))
        trips = ref(pending.trips) if isinstance(pending.trips, Value) else pending.trips
        condition, counter = (None if v is None else ref(v) for v in (pending.condition, pending.counter))
        return Loop(trips, condition, counter, placed(pending.steps))

    ends = [Call("", (ref(value), Ref("output", o)), _size(kernels.outputs[o])) for value, o in copies]
    return Program(
        kernels.name,
        kernels.target,
        kernels.inputs,
        kernels.outputs,
        (*placed(steps), *ends),
        memory.weights(),
        arena,
        max(lowered.scratch.values(), default=0),
        lowered.code,
        kernels.schedules,
        kernels.operations,
        kernels.argument_bytes,
        kernels.sources,
        lowered.launches,
        streams=lowered.streams,
    )
