"""How recurrent layers are cut: parts of the batch, blocks of units, and the register tiles of their sums.

The loops of `schedules/recurrent.py` are made with it, and `nncc.passes.own_recurrent` lays out the weights by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from nncc.operators.cells import GATES
from nncc.operators.recurrence import Recurrence
from nncc.target import Hardware

__all__ = ["Tile", "phases", "tile"]

Phases = tuple[tuple[int, ...], ...]

_LEAST_PART = 60_000
"""Operations of a layer below which it stays on one thread: about the cost of waking another."""
_LEAST_STEP = 1_000_000
"""Operations of a step from which its blocks are spread over threads, which meet twice a step."""


@dataclass(frozen=True)
class Tile:
    """How a layer is cut: `parts` of the batch that share nothing, tiles of `rows` sequences in a part, blocks of
    `vectors` vectors of `lanes` units with all gates."""

    parts: int
    rows: int
    vectors: int
    lanes: int
    panels: tuple[tuple[tuple[int, int], ...], ...]
    """Of each phase of a step, the columns of its register tiles, from and to."""
    unrolled: int
    """Steps of the reduction that follow each other without a jump."""
    by_lanes: bool = False
    """Whether these many numbers of the state are loaded at once, of which multiply-adds take a lane each."""
    parallel: str = ""
    """What is spread over threads: parts | blocks; nothing where it is empty."""

    @property
    def width(self) -> int:
        """Units of a block."""
        return self.vectors * self.lanes


def tile(layer: Recurrence, steps: int, batch: int, hardware: Hardware, bits: int = 32) -> Tile:
    """How a layer (`nncc.operators.recurrence.Recurrence`) is cut, for numbers of `bits`."""
    lanes = max(1, hardware.vector_bits // bits)
    while lanes > 1 and lanes // 2 >= layer.hidden:
        lanes //= 2
    gates, directions = GATES[layer.kind], len(layer.directions)
    step = 2 * gates * layer.hidden**2 * batch
    parts, parallel = 1, ""
    if hardware.cores > 1 and steps * step * directions >= _LEAST_PART:
        parts = max(1, min(batch, hardware.cores // directions))
        parallel = "parts" if parts * directions > 1 else ""
        if 2 * parts * directions <= hardware.cores and step >= _LEAST_STEP * parts:
            parallel = "blocks"
    unrolled = next(size for size in (4, 2, 1) if layer.hidden % size == 0)
    by_lanes = hardware.lane_operand and lanes == unrolled > 1
    rows, vectors, columns = _register_tile(
        phases(layer), -(-batch // parts), -(-layer.hidden // lanes), hardware.vector_registers, by_lanes
    )
    panels = _panels(phases(layer), vectors, columns)
    return Tile(parts, rows, vectors, lanes, panels, unrolled, by_lanes, parallel)


def phases(layer: Recurrence) -> Phases:
    """The gates that are summed up in one go: a GRU may reset the state before another gate's product reads it."""
    two = layer.kind == "GRU" and not layer.linear_before_reset
    return ((0, 1), (2,)) if two else (tuple(range(GATES[layer.kind])),)


def _panels(gates_of: Phases, vectors: int, most: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each phase its columns, in runs of `most` at most that are about as long."""
    found = []
    for gates in gates_of:
        first, count = gates[0] * vectors, len(gates) * vectors
        size = -(-count // -(-count // most))
        found.append(tuple((first + at, first + min(at + size, count)) for at in range(0, count, size)))
    return tuple(found)


def _register_tile(gates_of: Phases, batch: int, units: int, registers: int, by_lanes: bool) -> tuple[int, int, int]:
    """(sequences, vectors of units, columns at most) that take the least time for `batch` sequences and `units` vectors
    of units. Sums take three quarters of the registers at most, and half of them where a sequence is alone: its weights
    are loaded for it. Where the state comes by lanes, it is in a register a sequence beside them."""
    most = registers // 2 if batch == 1 else registers * 3 // 4
    hiding = registers // 4  # sums that hide each other's latency

    def time(rows: int, vectors: int, columns: int) -> tuple[float, int]:
        """In multiply-adds; a load, of which there are two a cycle, is as long where they are more, and a weight comes
        from the second-level cache."""
        tiles = [(rows, batch // rows), (batch % rows, min(1, batch % rows))]
        widths = [end - begin for phase in _panels(gates_of, vectors, columns) for begin, end in phase]
        total = sum(n * (max(r * w, r + w, hiding) + w / 2) for r, n in tiles for w in widths)
        return -(-units // vectors) * total, sum(n for _, n in tiles) * len(widths)

    candidates = {
        (rows, -(-units // -(-units // vectors)), columns)
        for rows in range(1, min(batch, most) + 1)
        for columns in range(1, most // rows + 1)
        if not by_lanes or rows * columns + rows + min(columns, 4) <= registers
        for vectors in range(1, most + 1)
        if vectors <= 2 * columns
    }
    return min(candidates, key=lambda c: (*time(*c), batch % c[0], c))
