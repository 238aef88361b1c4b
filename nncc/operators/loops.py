"""Loops that write tensors element by element, for operators that are no expression of one element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import statements

__all__ = ["loop", "strides_of", "when"]

_WORTH_THREADS = 1 << 15
"""Elements: less work than that is done before other threads have begun."""


def loop(extent: int, work: int = 0) -> Any:
    """A loop over 0 .. extent - 1, as a context; over the threads if its steps may be in any order and there is enough
    `work` in all of them, in elements."""
    return statements.parallel(0, extent) if work >= _WORTH_THREADS and extent > 1 else statements.serial(0, extent)


def when(condition: Any) -> Any:
    """What is done only if a condition holds, as two contexts one inside of the other."""
    return _When(condition)


class _When:
    def __init__(self, condition: Any) -> None:
        self.frames = statements.If(condition), statements.Then()

    def __enter__(self) -> None:
        for frame in self.frames:
            frame.__enter__()

    def __exit__(self, *error: Any) -> None:
        for frame in reversed(self.frames):
            frame.__exit__(*error)


def strides_of(shape: Sequence[int]) -> list[int]:
    """How many elements lie between neighbours of each axis."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return strides
