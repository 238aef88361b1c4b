"""Tiles of matrix products on GPUs: which a thread block makes, and into how many parts the depth is cut.

What a kernel takes is predicted from facts of `Hardware` only; tuning may choose another. The model counts, for the
multiprocessor that has the most blocks: multiply-adds, at the pace of arithmetic or of shared memory; little overlap
where few warps reside; the start of a block, whose first slices come from memory; and, of parts, the second launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nncc.choices import Choices
from nncc.target import Hardware

__all__ = ["SIZES", "Plan", "Tile", "choose_tile", "seconds"]


@dataclass(frozen=True)
class Tile:
    """`m` x `n` outputs from slabs of `k`, `stages` of them in flight, by threads that sum `tm` x `tn` each.

    Of a slab, `slices` groups of threads take a part each, and add up in the end.
    """

    m: int
    n: int
    k: int
    tm: int
    tn: int
    stages: int
    slices: int

    @property
    def group(self) -> int:
        return self.m // self.tm * (self.n // self.tn)

    @property
    def threads(self) -> int:
        return self.group * self.slices

    @property
    def sums(self) -> int:
        """How many sums a thread has in the end."""
        return self.tm * self.tn // self.slices

    @property
    def shared_bytes(self) -> int:
        slabs = self.stages * self.k * (self.m + self.n + 8)
        return 4 * max(slabs, self.threads * self.tm * self.tn if self.slices > 1 else 0)

    @property
    def registers(self) -> int:
        """About what a thread needs: its sums, what one step multiplies, and addresses."""
        return self.tm * self.tn * 3 // 2 + 2 * (self.tm + self.tn) + 40

    def words(self) -> str:
        """As the prelude writes it."""
        sizes = (self.m, self.n, self.k, self.tm, self.tn, self.stages, self.slices)
        return f"nncc::Tile<{', '.join(map(str, sizes))}>"

    def place(self, thread: Any, number: Any) -> tuple[Any, Any]:
        """Row and column, in the tile, of a thread's sum; see `Tile` of the prelude."""
        rows, columns = self.m // self.tm, self.n // self.tn
        member, slice_ = (thread % self.group, thread // self.group) if self.slices > 1 else (thread, 0)
        i, j = slice_ * (self.tm // self.slices) + number // self.tn, number % self.tn
        row = i // 4 * (rows * 4) + member // columns * 4 + i % 4
        column = j // 4 * (columns * 4) + member % columns * 4 + j % 4
        return row, column

    def __str__(self) -> str:
        sliced = f", {self.slices} slices" if self.slices > 1 else ""
        return f"{self.m}x{self.n}x{self.k} by {self.tm}x{self.tn}{sliced}"


@dataclass(frozen=True)
class Plan:
    """A tile; how many parts the depth has; and how deep one is."""

    tile: Tile
    parts: int
    part: int

    def __str__(self) -> str:
        return f"{self.tile}, {self.parts} parts" if self.parts > 1 else str(self.tile)


SIZES = (
    (128, 128, 8, 8, 1), (128, 64, 8, 8, 1), (64, 128, 8, 8, 1), (64, 64, 8, 8, 1), (64, 64, 8, 8, 2),
    (64, 64, 8, 4, 1),
    (64, 64, 4, 4, 1), (32, 128, 8, 8, 1), (32, 128, 8, 8, 2), (32, 64, 8, 8, 2), (32, 64, 8, 8, 4), (64, 32, 8, 8, 2),
    (64, 32, 8, 8, 4), (32, 64, 4, 4, 1), (64, 32, 4, 4, 1), (32, 32, 8, 4, 2), (32, 32, 8, 4, 4), (32, 32, 4, 4, 1),
    (16, 64, 8, 4, 4), (64, 16, 8, 4, 4), (16, 64, 4, 4, 1), (64, 16, 4, 4, 1), (16, 128, 8, 8, 4), (8, 128, 4, 4, 2),
    (4, 128, 4, 4, 2), (4, 128, 4, 4, 4), (8, 128, 4, 4, 4),
)  # fmt: skip
"""M, N, TM, TN and slices of the tiles that are considered."""
_DEPTHS = (8, 16, 32)
_PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_STATIC_SHARED = 48 * 1024
"""Bytes of shared memory that a kernel may declare itself, on every GPU."""
_REGISTERS = 65536
"""Of a multiprocessor, on all GPUs since 2012."""
_LAUNCH = 2.0e-6
"""Seconds that a second launch adds: its own, and the end of the first, whose blocks do not end together."""
_START = 1.5e-6
"""Seconds until a block's first slice is there and its last sum is stored: a few latencies of memory."""
_STEP = 60e-9
"""Seconds of a slice that no arithmetic hides: a barrier and the first loads from shared memory."""
_SCHEDULERS = 4
"""Of a multiprocessor; each issues one warp's instruction a cycle."""
_FILLED = 0.9
"""Of the peak, what a loop of multiply-adds reaches that waits for nothing."""
_LATENCY = 96
"""Multiply-adds of one scheduler that hide the latency of shared memory."""
_CACHE = 2.0
"""Bandwidth of the second-level cache, as a multiple of the memory's."""
MOST_OPTIONS = 16
"""Of tiles, so many are worth a try."""


def _tiles() -> list[Tile]:
    found = []
    for m, n, tm, tn, slices in SIZES:
        for k in _DEPTHS:
            for stages in (4, 3):
                tile = Tile(m, n, k, tm, tn, stages, slices)
                if k // slices >= 4 and tile.shared_bytes <= _STATIC_SHARED:
                    found.append(tile)
                    break
    return found


def seconds(
    tile: Tile, parts: int, rows: int, columns: int, depth: int, batch: int, hardware: Hardware, steps_of: int = 0
) -> float:
    """The predicted time of `batch` products of [rows, depth] and [depth, columns]."""
    each = _part(depth, parts, tile.k)
    blocks = -(-rows // tile.m) * -(-columns // tile.n) * batch * parts
    processors = hardware.multiprocessors or 1
    resident = min(
        (hardware.multiprocessor_threads or 1536) // tile.threads,
        _REGISTERS // (tile.registers * tile.threads),
        max(1, (hardware.multiprocessor_shared_kib or 64) * 1024 // (tile.shared_bytes + 1024)),
    )
    busiest = -(-blocks // processors)
    together = min(busiest, max(1, resident))
    warps = together * tile.threads / 32 / _SCHEDULERS
    # A thread's multiply-adds for one depth, against four cycles of shared memory for each 128-bit load of a warp, and
    # against the instructions that load and copy; the gather of a convolution divides where slabs cut its taps.
    products, loads = tile.tm * tile.tn, (tile.tm + tile.tn) / 4
    copies = (tile.m / 4 + tile.n) / 32 * (6 if steps_of % tile.k else 4) / tile.group * 32
    pace = max(1.0, 4 * loads * _SCHEDULERS / products, 1 + (loads + copies) / products)
    hidden = _FILLED * min(1.0, warps * products / _LATENCY) ** 0.5
    peak = (hardware.peak_gflops or 10_000.0) * 1e9
    arithmetic = busiest * tile.m * tile.n * each * 2 * processors / peak * pace / hidden
    rounds = -(-busiest // max(1, resident))
    steps = -(-each // tile.k)
    started = rounds * (_START + steps * _STEP)
    bandwidth = (hardware.dram_gbps or 300.0) * 1e9
    cached = busiest * processors * (tile.m + tile.n) * each * 4 / (_CACHE * bandwidth)
    moved = 4 * batch * (rows * depth + depth * columns + rows * columns) / bandwidth
    second = _LAUNCH + 4 * (parts + 1) * batch * rows * columns / (_CACHE * bandwidth) if parts > 1 else 0.0
    return max(arithmetic, moved, cached) + started + second


def _part(depth: int, parts: int, k: int) -> int:
    """Depths of one part: whole slices."""
    each = -(-depth // parts)
    return -(-each // k) * k


def choose_tile(
    rows: int, columns: int, depth: int, batch: int, hardware: Hardware, choose: Choices, *, steps_of: int = 0
) -> Plan:
    """The tile and the parts of `batch` products [rows, depth] x [depth, columns].

    `steps_of` is what a slab should divide for its right-hand side to be gathered cheaply, 0 where it does not matter.
    """

    def possible(tile: Tile) -> list[tuple[float, int]]:
        found = []
        for parts in _PARTS:
            each = _part(depth, parts, tile.k)
            if parts == 1 or (each * (parts - 1) < depth and each >= 2 * tile.k):
                found.append((seconds(tile, parts, rows, columns, depth, batch, hardware, steps_of), parts))
        return sorted(found)

    tiles = sorted(((possible(tile)[0][0], number, tile) for number, tile in enumerate(_tiles())), key=lambda e: e[:2])
    options = [[t.m, t.n, t.k, t.tm, t.tn, t.stages, t.slices] for _, _, t in tiles[:MOST_OPTIONS]]
    tile = Tile(*choose("tile", options))
    parts = choose("parts", [parts for _, parts in possible(tile)[:6]])
    return Plan(tile, parts, _part(depth, parts, tile.k) if parts > 1 else max(depth, 1))
