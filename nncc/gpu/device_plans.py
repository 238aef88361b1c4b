"""How products on GPUs are cut: a tile for each thread block, and parts of the depth, which several blocks sum.

`nncc.gpu.device_tiles` and `nncc.gpu.device_units` say which tiles there are and how long one takes; what is here
serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Generic, Protocol, TypeVar

from nncc.kernels.choices import Choices
from nncc.target import Hardware

__all__ = [
    "MOST_OPTIONS",
    "REGISTERS",
    "STAGES",
    "STATIC_SHARED",
    "Plan",
    "choose_plan",
    "fitting",
    "part_of",
    "resident_blocks",
]

STATIC_SHARED = 48 * 1024
"""Bytes of shared memory that a kernel may declare itself, on every GPU."""
REGISTERS = 65536
"""Of a multiprocessor, on all GPUs since 2012 (CUDA C++ Programming Guide, "Technical Specifications")."""
MOST_OPTIONS = 16
"""Of tiles, so many are worth a try."""
STAGES = (4, 3)
"""How many slabs are in flight: rather more."""
_PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class _Tile(Protocol):
    """A frozen dataclass of numbers: sizes of a tile, slabs of `k` of the depth."""

    @property
    def k(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def registers(self) -> int:
        """About what a thread needs."""

    @property
    def shared_bytes(self) -> int: ...


T = TypeVar("T", bound=_Tile)


@dataclass(frozen=True)
class Plan(Generic[T]):
    """A tile; how many parts the depth has; and how deep one is, in what the tile's `k` counts."""

    tile: T
    parts: int
    part: int

    def __str__(self) -> str:
        return f"{self.tile}, {self.parts} parts" if self.parts > 1 else str(self.tile)


def part_of(depth: int, parts: int, k: int) -> int:
    """How deep one part is: whole slabs."""
    each = -(-depth // parts)
    return -(-each // k) * k


def fitting(tiles: Iterable[T]) -> list[T]:
    """The first of the tiles that shared memory has room for; none where it has for no one."""
    return [tile for tile in tiles if tile.shared_bytes <= STATIC_SHARED][:1]


def resident_blocks(tile: _Tile, hardware: Hardware) -> int:
    """How many blocks of a tile a multiprocessor holds by what the tile is thought to need; 0 where none fits."""
    return min(
        (hardware.multiprocessor_threads or 1536) // tile.threads,
        REGISTERS // (tile.registers * tile.threads),
        # Beside what a block declares, the system takes 1 KiB.
        max(1, (hardware.multiprocessor_shared_kib or 64) * 1024 // (tile.shared_bytes + 1024)),
    )


def choose_plan(tiles: Sequence[T], seconds: Callable[[T, int], float], depth: int, choose: Choices) -> Plan[T]:
    """The tile and the parts of a depth that take least by `seconds`, or as `choose` knows better."""

    def possible(tile: T) -> list[tuple[float, int]]:
        found = []
        for parts in _PARTS:
            each = part_of(depth, parts, tile.k)
            if parts == 1 or (each * (parts - 1) < depth and each >= 2 * tile.k):
                found.append((seconds(tile, parts), parts))
        return sorted(found)

    best = sorted(tiles, key=lambda tile: possible(tile)[0][0])[:MOST_OPTIONS]
    options: list[list[Any]] = [list(astuple(tile)) for tile in best]  # type: ignore[call-overload]
    tile = best[options.index(choose("tile", options))]
    parts = choose("parts", [parts for _, parts in possible(tile)[:6]])
    return Plan(tile, parts, part_of(depth, parts, tile.k) if parts > 1 else max(depth, 1))
