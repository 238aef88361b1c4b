"""Tiles of matrix products on GPUs: which a thread block makes, and into how many parts the depth is cut.

What a kernel takes is predicted from facts of `Hardware` only; tuning may choose another. The model counts, for the
multiprocessor that has the most blocks: multiply-adds, at the pace of arithmetic or of shared memory; little overlap
where few warps reside; the start of a block, whose first slices come from memory; and, of parts, the second launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nncc.gpu.device_plans import STAGES, Plan, choose_plan, fitting, part_of, resident_blocks
from nncc.kernels.choices import Choices
from nncc.target import Hardware

__all__ = ["SIZES", "TENSOR_SIZES", "TensorTile", "Tile", "choose_tile", "seconds"]


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
    def count(self) -> int:
        """How many sums a thread has."""
        return self.tm * self.tn

    @property
    def run(self) -> int:
        """How many of them lie side by side."""
        return 4

    @property
    def sums(self) -> int:
        """How many of them it has in the end."""
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
class TensorTile:
    """`m` x `n` outputs from slabs of `k`, `stages` of them in flight, by warps that have `wm` x `wn` each: tensor
    cores, on float32 that is rounded to TF32."""

    m: int
    n: int
    k: int
    wm: int
    wn: int
    stages: int

    @property
    def threads(self) -> int:
        return self.m // self.wm * (self.n // self.wn) * 32

    @property
    def count(self) -> int:
        return self.wm * self.wn // 32

    sums = count

    @property
    def run(self) -> int:
        """How many of a thread's sums lie side by side."""
        return 2

    @property
    def shared_bytes(self) -> int:
        return 4 * self.stages * self.k * (self.m + self.n + 16)

    @property
    def registers(self) -> int:
        return self.count + self.wm // 4 + self.wn // 4 + 48

    def words(self) -> str:
        sizes = (self.m, self.n, self.k, self.wm, self.wn, self.stages)
        return f"nncc::TensorTile<{', '.join(map(str, sizes))}>"

    def place(self, thread: Any, number: Any) -> tuple[Any, Any]:
        """Row and column, in the tile, of a thread's sum; see `TensorTile` of the prelude."""
        lane, warp = thread % 32, thread // 32
        fragment, i = number // 4, number % 4
        row = warp // (self.n // self.wn) * self.wm + fragment // (self.wn // 8) * 16 + i // 2 * 8 + lane // 4
        column = warp % (self.n // self.wn) * self.wn + fragment % (self.wn // 8) * 8 + lane % 4 * 2 + i % 2
        return row, column

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k} by warps of {self.wm}x{self.wn}, TF32"


SIZES = (
    (128, 128, 8, 8, 1), (128, 64, 8, 8, 1), (64, 128, 8, 8, 1), (64, 64, 8, 8, 1), (64, 64, 8, 8, 2),
    (64, 64, 8, 4, 1),
    (64, 64, 4, 4, 1), (32, 128, 8, 8, 1), (32, 128, 8, 8, 2), (32, 64, 8, 8, 2), (32, 64, 8, 8, 4), (64, 32, 8, 8, 2),
    (64, 32, 8, 8, 4), (32, 64, 4, 4, 1), (64, 32, 4, 4, 1), (32, 32, 8, 4, 2), (32, 32, 8, 4, 4), (32, 32, 4, 4, 1),
    (16, 64, 8, 4, 4), (64, 16, 8, 4, 4), (16, 64, 4, 4, 1), (64, 16, 4, 4, 1), (16, 128, 8, 8, 4), (8, 128, 4, 4, 2),
    (4, 128, 4, 4, 2), (4, 128, 4, 4, 4), (8, 128, 4, 4, 4),
)  # fmt: skip
"""M, N, TM, TN and slices of the tiles that are considered."""
TENSOR_SIZES = (
    (128, 128, 64, 32), (128, 64, 32, 32), (64, 128, 32, 32), (64, 64, 32, 32), (64, 64, 32, 16), (64, 32, 32, 16),
    (32, 64, 16, 32), (32, 32, 16, 16), (64, 16, 16, 16), (16, 64, 16, 16), (16, 128, 16, 32), (32, 128, 32, 32),
)  # fmt: skip
"""M, N, WM and WN of the tiles for tensor cores."""
_DEPTHS = (8, 16, 32)
_LAUNCH = 1.8e-6
"""Seconds that a second launch adds: its own, and the end of the first, whose blocks do not end together."""
_START = 1.4e-6
"""Seconds until a block's first slice is there and its last sum is stored: a few latencies of memory."""
_STEP = 4e-9
"""Seconds of a slice that no arithmetic hides: a barrier and the first loads from shared memory."""
_SCHEDULERS = 4
"""Of a multiprocessor; each issues one warp's instruction a cycle."""
_FILLED = 0.67
"""Of the peak, what a loop of multiply-adds reaches that waits for nothing."""
_LATENCY = 150
"""Multiply-adds of one scheduler that hide the latency of shared memory."""
_TENSOR_LATENCY = 32
"""The same for tensor cores, in multiply-adds of float32: their own latency and that of shared memory."""
_CACHE = 0.9
"""Bandwidth of the second-level cache, as a multiple of the memory's."""


def _tiles() -> list[Tile]:
    return [
        tile
        for m, n, tm, tn, slices in SIZES
        for k in _DEPTHS
        if k // slices >= 4
        for tile in fitting(Tile(m, n, k, tm, tn, stages, slices) for stages in STAGES)
    ]


def _tensor_tiles() -> list[TensorTile]:
    return [
        tile
        for m, n, wm, wn in TENSOR_SIZES
        for k in _DEPTHS
        for tile in fitting(TensorTile(m, n, k, wm, wn, stages) for stages in STAGES)
    ]


def seconds(
    tile: Tile | TensorTile,
    parts: int,
    rows: int,
    columns: int,
    depth: int,
    batch: int,
    hardware: Hardware,
    steps_of: int = 0,
) -> float:
    """The predicted time of `batch` products of [rows, depth] and [depth, columns]."""
    each = part_of(depth, parts, tile.k)
    blocks = -(-rows // tile.m) * -(-columns // tile.n) * batch * parts
    processors = hardware.multiprocessors or 1
    resident = resident_blocks(tile, hardware)
    busiest = -(-blocks // processors)
    together = min(busiest, max(1, resident))
    warps = together * tile.threads / 32 / _SCHEDULERS
    # A thread's multiply-adds for one depth, against four cycles of shared memory for each 128-bit load of a warp, and
    # against the instructions that load and copy; the gather of a convolution divides where slabs cut its taps.
    peak = (hardware.peak_gflops or 10_000.0) * 1e9
    copies = (tile.m / 4 + tile.n) * (6 if steps_of % tile.k else 4)
    products: float
    if isinstance(tile, Tile):
        products = tile.tm * tile.tn
        loads = (tile.tm + tile.tn) / 4
        pace = max(1.0, 4 * loads * _SCHEDULERS / products, 1 + (loads + copies / tile.group) / products)
        hidden = _FILLED * min(1.0, warps * products / _LATENCY) ** 0.5
    else:
        # What one float32 pipeline does in the time: a load of 32 bits takes a cycle of shared memory, a rounding and
        # what copies take an instruction of a scheduler.
        faster = hardware.tensor_tf32_gflops / (hardware.peak_gflops or 1.0)
        products = tile.wm * tile.wn / 32
        fragments = (tile.wm + tile.wn) / 32
        share = copies / (tile.threads / 32) / 32
        issued = (2 * fragments + share) / products
        pace = max(1 / faster, _SCHEDULERS * fragments / products, issued)
        hidden = _FILLED * min(1.0, warps * products * pace / _TENSOR_LATENCY) ** 0.5
    arithmetic = busiest * tile.m * tile.n * each * 2 * processors / peak * pace / hidden
    rounds = -(-busiest // max(1, resident))
    steps = -(-each // tile.k)
    started = rounds * (_START + steps * _STEP)
    bandwidth = (hardware.dram_gbps or 300.0) * 1e9
    cached = busiest * processors * (tile.m + tile.n) * each * 4 / (_CACHE * bandwidth)
    moved = 4 * batch * (rows * depth + depth * columns + rows * columns) / bandwidth
    second = _LAUNCH + 4 * (parts + 1) * batch * rows * columns / (_CACHE * bandwidth) if parts > 1 else 0.0
    return max(arithmetic, moved, cached) + started + second


def choose_tile(
    rows: int,
    columns: int,
    depth: int,
    batch: int,
    hardware: Hardware,
    choose: Choices,
    *,
    steps_of: int = 0,
    tf32: bool = False,
) -> Plan[Tile | TensorTile]:
    """The tile and the parts of `batch` products [rows, depth] x [depth, columns].

    With `tf32`, tensor cores take float32 rounded to TF32. `steps_of` is what a slab should divide for its right-hand
    side to be gathered cheaply, 0 where it does not matter.
    """

    def predicted(tile: Tile | TensorTile, parts: int) -> float:
        return seconds(tile, parts, rows, columns, depth, batch, hardware, steps_of)

    tiles: list[Tile | TensorTile] = [*(_tensor_tiles() if tf32 else _tiles())]
    return choose_plan(tiles, predicted, depth, choose)
