"""Branches and loops as steps: which values are copied where, and when.

Carried values have a buffer each, which an iteration reads and only its last steps write: nothing is computed in place.
Slices of what is scanned are copied into a buffer, slices of what is stacked out of one, further on in each iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nncc.codegen.place import Memory, PendingBranch, PendingCall, PendingLoop, PendingStep, Value
from nncc.ir import Region

__all__ = ["Body", "branch_steps", "loop_steps"]


@dataclass(frozen=True)
class Body:
    """A body once it has been read: its steps and results, and the buffers that it has made."""

    steps: list[PendingStep]
    results: Sequence[Value]
    owned: set[int]


def branch_steps(
    region: Region,
    args: Sequence[Value],
    outputs: Sequence[Value],
    body: Callable[[int, Sequence[Value]], Body],
    memory: Memory,
) -> list[PendingStep]:
    """The steps of a branch: `args` are the condition and what is captured; each side gives the `outputs`.

    A result that the side computes itself is written to the output at once, another one is copied.
    """
    condition, *captured = args
    sides = []
    for number in (0, 1):
        side = body(number, captured)
        steps = list(side.steps)
        for result, output, spec in zip(side.results, outputs, region.outputs, strict=True):
            buffer, start = memory.root(result.at) if result.space == "buffer" else (-1, 0)
            if buffer in side.owned and start == 0 and memory.sizes[buffer] == spec.nbytes:
                memory.inside[buffer] = output.at, 0
            else:
                steps.append(_copy(result, output, spec.nbytes))
        sides.append(steps)
    return [PendingBranch(condition, *sides)]


def loop_steps(
    region: Region,
    args: Sequence[Value],
    outputs: Sequence[Value],
    body: Callable[[int, Sequence[Value]], Body],
    memory: Memory,
) -> list[PendingStep]:
    """The steps of a loop: carried values begin as copies of the `args`, and are the first of the `outputs`."""
    rest = list(args)
    trips: int | Value | None = region.trips
    if region.has_trips:
        trips = rest.pop(0)
    before: list[PendingStep] = []
    condition = None
    if region.has_condition:
        condition = memory.buffer(1)
        before.append(_copy(rest.pop(0), condition, 1))
    sizes = [spec.nbytes for spec in region.outputs]
    carried = outputs[: region.carried]
    before += [_copy(rest.pop(0), value, size) for value, size in zip(carried, sizes, strict=False)]
    scanned, captured = rest[: len(region.scanned)], rest[len(region.scanned) :]

    slices: list[Value] = []
    steps: list[PendingStep] = []
    inside = region.bodies[0]
    count = region.trips or 0
    for number, (source, backwards) in enumerate(zip(scanned, region.scanned, strict=True)):
        nbytes = inside.inputs[1 + region.carried + number].nbytes
        slices.append(memory.buffer(nbytes))
        steps.append(_moving(source, slices[-1], nbytes, count, backwards, of=0))
    counter = memory.buffer(8)
    made = body(0, [counter, *carried, *slices, *captured])
    steps += made.steps
    results = list(made.results)
    following = results.pop(0) if region.has_condition else None
    stacked = list(zip(results[region.carried :], outputs[region.carried :], region.stacked, strict=True))
    for number, (result, output, backwards) in enumerate(stacked):
        nbytes = inside.outputs[region.has_condition + region.carried + number].nbytes
        steps.append(_moving(result, output, nbytes, count, backwards, of=1))
    if following is not None and condition is not None and not memory.same(following, condition):
        steps.append(_copy(following, condition, 1))
    steps += _exchange(results[: region.carried], carried, sizes, memory)
    return [*before, PendingLoop(trips, condition, counter, steps)]


def _exchange(
    results: Sequence[Value], carried: Sequence[Value], sizes: Sequence[int], memory: Memory
) -> list[PendingStep]:
    """Each carried value becomes its result; a result that is another carried value is first copied elsewhere."""
    first, second = [], []
    for result, value, size in zip(results, carried, sizes, strict=False):
        if memory.same(result, value):
            continue
        if any(memory.same(result, other) for other in carried):
            kept = memory.buffer(size)
            first.append(_copy(result, kept, size))
            result = kept
        second.append(_copy(result, value, size))
    return [*first, *second]


def _copy(source: Value, target: Value, nbytes: int) -> PendingCall:
    return PendingCall("", [source, target], nbytes)


def _moving(source: Value, target: Value, nbytes: int, count: int, backwards: bool, *, of: int) -> PendingCall:
    """A copy in a loop of `count` iterations, of which argument `of` is one slice further on each time."""
    ends = [source, target]
    if backwards:
        ends[of] = replace(ends[of], offset=ends[of].offset + max(0, count - 1) * nbytes)
    strides = [0, 0]
    strides[of] = -nbytes if backwards else nbytes
    return PendingCall("", ends, nbytes, tuple(strides))
