"""Where the buffers of a program lie in its arena: a pure function of sizes and lifetimes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nncc.ir import align

__all__ = ["Lifetime", "plan"]


@dataclass(frozen=True)
class Lifetime:
    """A buffer of `nbytes` that is written first by call `first` and read last by call `last`, both inclusive."""

    nbytes: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether both are alive during some call."""
        return self.first <= other.last and other.first <= self.last


def plan(buffers: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets (bytes, 64-aligned) such that no two buffers alive together overlap, and the arena's size.

    Greedy: buffers by falling size (and, as further tries, by falling lifetime and by their order), each at the lowest
    offset that fits between the ones placed before it; and a pool of storages that are used in turn (Pisarchyk & Lee,
    "Efficient Memory Management for Deep Neural Net Inference", 2020). The best of the tries is kept.
    """
    orders = (
        sorted(range(len(buffers)), key=lambda i: (-buffers[i].nbytes, buffers[i].first, i)),
        sorted(range(len(buffers)), key=lambda i: (buffers[i].first - buffers[i].last, -buffers[i].nbytes, i)),
        sorted(range(len(buffers)), key=lambda i: (buffers[i].first, -buffers[i].nbytes, i)),
    )
    tries = [*(_place(buffers, order) for order in orders), _pool(buffers)]
    return min(tries, key=lambda result: result[1])


def _place(buffers: Sequence[Lifetime], order: Sequence[int]) -> tuple[list[int], int]:
    offsets = [0] * len(buffers)
    placed: list[int] = []
    arena = 0
    for index in order:
        size = align(buffers[index].nbytes)
        taken = sorted(
            (offsets[i], offsets[i] + align(buffers[i].nbytes)) for i in placed if buffers[i].overlaps(buffers[index])
        )
        best, tightest, offset = None, None, 0
        for start, end in taken:
            gap = start - offset
            if gap >= size and (tightest is None or gap < tightest):
                best, tightest = offset, gap
            offset = max(offset, end)
        offsets[index] = offset if best is None else best
        arena = max(arena, offsets[index] + size)
        placed.append(index)
    return offsets, arena


def _pool(buffers: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Storages that buffers take in order of their first call and give back after their last.

    The smallest free storage that is large enough is taken; else the largest free one grows; else there is one more.
    TVM's StaticPlanBlockMemory shares storages by this rule among those of 1/16 to 16 times the size.
    """
    sizes: list[int] = []
    free_after: list[int] = []
    chosen = [0] * len(buffers)
    for index in sorted(range(len(buffers)), key=lambda i: (buffers[i].first, i)):
        buffer, size = buffers[index], align(buffers[index].nbytes)
        free = [s for s in range(len(sizes)) if free_after[s] < buffer.first and size <= 16 * sizes[s] <= 256 * size]
        large = [s for s in free if sizes[s] >= size]
        if large:
            storage = min(large, key=lambda s: (sizes[s], s))
        elif free:
            storage = max(free, key=lambda s: (sizes[s], -s))
        else:
            storage = len(sizes)
            sizes.append(0)
            free_after.append(0)
        sizes[storage], free_after[storage] = max(sizes[storage], size), buffer.last
        chosen[index] = storage
    starts = [sum(sizes[:s]) for s in range(len(sizes))]
    return [starts[s] for s in chosen], sum(sizes)
