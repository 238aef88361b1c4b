"""What a program does in turn: calls of kernels, branches and loops, and the places that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from nncc.ir.extents import Extent

__all__ = ["Branch", "Call", "Loop", "Ref", "Step", "calls_of", "lines_of", "times_of", "with_refs"]

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


def times_of(steps: tuple[Step, ...], times: int = 1) -> Iterator[int]:
    """For each of `calls_of`, how often it runs in a run, as far as that is known."""
    for step in steps:
        if isinstance(step, Call):
            yield times
        elif isinstance(step, Branch):
            yield from times_of(step.then + step.otherwise, times)
        else:
            yield from times_of(step.steps, times * step.trips if isinstance(step.trips, int) else times)


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


def lines_of(steps: tuple[Step, ...], first: int = 0, depth: int = 0) -> Iterator[str]:
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
            yield from lines_of(inside, first, depth + 1)
            first += sum(1 for _ in calls_of(inside))
