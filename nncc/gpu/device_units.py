"""Products on tensor cores from 16 bytes of the depth at once (``nncc/runtime/device_units.cuh``): which numbers there
are, which tile a thread block makes, and into how many parts the depth is cut.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

from nncc.gpu.device_plans import STAGES, Plan, choose_plan, fitting, part_of, resident_blocks
from nncc.kernels.choices import Choices
from nncc.target import Hardware

__all__ = ["KIND", "KINDS", "SIZES", "Kind", "UnitTile", "choose_unit_tile", "decoded", "seconds"]


@dataclass(frozen=True)
class Kind:
    """Numbers that tensor cores multiply: the prelude's word, how many there are in 16 bytes, and the dtype of
    sums."""

    word: str
    each: int
    sum: str


KIND = "nncc.kind"
"""The annotation of the blocks that multiply them, a word of `KINDS`."""
KINDS = {
    "uint8": Kind("nncc::Bytes<false>", 16, "int32"),
    "int8": Kind("nncc::Bytes<true>", 16, "int32"),
    "float16": Kind("nncc::Half", 8, "float32"),
    "bfloat16": Kind("nncc::Bfloat", 8, "float32"),
}
"""By the dtype of activations. Weights of floats are of the same, those of integers int8."""


def decoded(value: Any, kind: str) -> Any:
    """A stored number as one of its sums' dtype, as an expression."""
    return value.astype(KINDS[kind].sum)


@dataclass(frozen=True)
class UnitTile:
    """`m` x `n` outputs from slabs of `k` units, `stages` of them in flight, by warps that have `wm` x `wn` each."""

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
        """How many sums a thread has."""
        return self.wm * self.wn // 32

    @property
    def run(self) -> int:
        """How many of them lie side by side."""
        return self.wn // 4

    @property
    def shared_bytes(self) -> int:
        return 16 * self.stages * self.k * (self.m + 8 // self.k + self.n)

    @property
    def registers(self) -> int:
        """About what a thread needs: its sums, fragments, addresses."""
        return self.count + self.wm // 4 + self.wn // 4 + 56

    def words(self, kind: Kind) -> str:
        """As the prelude writes it."""
        return f"nncc::UnitTile<{kind.word}, {', '.join(map(str, astuple(self)))}>"

    def place(self, thread: Any, number: Any) -> tuple[Any, Any]:
        """Row and column, in the tile, of a thread's sum; see `UnitTile` of the prelude."""
        lane, warp = thread % 32, thread // 32
        half, at = number // self.run, number % self.run
        row = warp // (self.n // self.wn) * self.wm + half * 8 + lane // 4
        return row, warp % (self.n // self.wn) * self.wn + lane % 4 * self.run + at

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k} by warps of {self.wm}x{self.wn}"


SIZES = (
    (128, 128, 64, 32), (128, 64, 32, 32), (64, 128, 32, 32), (64, 64, 32, 32), (64, 64, 32, 16), (64, 32, 32, 16),
    (32, 64, 16, 32), (32, 32, 16, 16), (64, 16, 16, 16), (16, 64, 16, 16), (128, 32, 32, 32), (128, 16, 32, 16),
    (32, 128, 32, 32), (16, 128, 16, 32),
)  # fmt: skip
"""M, N, WM and WN of the tiles that are considered."""
_DEPTHS = (2, 4, 8)
_LAUNCH = 2.0e-6
"""Seconds that a second launch adds."""
_START = 1.5e-6
"""Seconds until a block's first slab is there and its last sum is stored: a few latencies of memory."""
_STEP = 60e-9
"""Seconds of a slab that no arithmetic hides: a barrier and the first loads from shared memory."""
_FILLED = 0.7
"""Of the peak, what a loop of fragments from shared memory reaches."""
_CACHE = 2.0
"""Bandwidth of the second-level cache, as a multiple of the memory's."""


def _tiles() -> list[UnitTile]:
    return [
        tile
        for m, n, wm, wn in SIZES
        for k in _DEPTHS
        for tile in fitting(UnitTile(m, n, k, wm, wn, stages) for stages in STAGES)
    ]


def seconds(
    tile: UnitTile, parts: int, rows: int, columns: int, units: int, kind: Kind, hardware: Hardware, batch: int = 1
) -> float:
    """The predicted time of `batch` products of [rows, units] and [units, columns]."""
    each = part_of(units, parts, tile.k)
    blocks = -(-rows // tile.m) * -(-columns // tile.n) * parts * batch
    processors = hardware.multiprocessors or 1
    resident = resident_blocks(tile, hardware)
    busiest = -(-blocks // processors)
    together = min(busiest, max(1, resident))
    peak = (hardware.tensor_int8_gops if kind.each == 16 else hardware.tensor_fp16_gflops) or 10_000.0
    of_one = peak * 1e9 / processors / 2 / kind.each * _FILLED
    bandwidth = (hardware.dram_gbps or 300.0) * 1e9
    # Loads of fragments, 16 bytes a cycle and multiprocessor's quarter, keep up with the tensor cores where a warp's
    # part is 32x32 or more.
    fragments = max(1.0, 16 * (1 / tile.wm + 1 / tile.wn))
    warps = min(1.0, together * tile.threads / 32 / 8)
    arithmetic = busiest * tile.m * tile.n * each / of_one * fragments / warps
    cached = busiest * processors * (tile.m + tile.n) * each * 16 / (_CACHE * bandwidth)
    moved = batch * (16 * units * (rows + columns) + rows * columns) / bandwidth
    rounds = -(-busiest // max(1, resident))
    started = rounds * (_START + -(-each // tile.k) * _STEP)
    second = _LAUNCH + 4 * (parts + 1) * batch * rows * columns / (_CACHE * bandwidth) if parts > 1 else 0.0
    return max(arithmetic, moved, cached) + started + second


def choose_unit_tile(
    rows: int, columns: int, units: int, kind: Kind, hardware: Hardware, choose: Choices, batch: int = 1
) -> Plan[UnitTile]:
    """The tile and the parts of `batch` products of [rows, units] and [units, columns]."""

    def predicted(tile: UnitTile, parts: int) -> float:
        return seconds(tile, parts, rows, columns, units, kind, hardware, batch)

    return choose_plan(_tiles(), predicted, units, choose)
