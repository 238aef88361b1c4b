"""Register tiles of matrix products: which fit, how long each is predicted to take."""

from __future__ import annotations

from nncc.kernels.dots import Dot
from nncc.target import Hardware

__all__ = ["MOST_TILES", "even_tile", "register_tiles", "tile_cost", "tiled_cost", "unrollings"]

_EFFICIENCY = 0.95
"""Of the peak, that a product reaches whose register tiles wait for nothing."""
MOST_TILES = 24
"""Of the register tiles that fit, so many are worth a try."""


def even_tile(size: int, most: int) -> int:
    """The tile of at most `most` that covers `size` in the fewest, most even steps; a divisor where one is close."""
    steps = -(-size // most)
    for tile in range(min(most, size), max(1, most // 2) - 1, -1):
        if size % tile == 0:
            return tile
    return -(-size // steps)


def register_tiles(
    steps: int,
    blocks: int,
    lanes: int,
    hardware: Hardware,
    *,
    streamed: bool = False,
    held: int = 0,
    dot: Dot | None = None,
    laid: tuple[int, float] | None = None,
) -> list[list[int]]:
    """Rows (or columns) by vectors of the accumulators that a matrix product may keep in registers, the cheapest first.

    `steps` rows and `blocks` vectors of `lanes` floats are to be covered; a number of vectors that does not divide
    `blocks` is not considered. Beside the accumulators, registers hold one step's vectors of weights and one
    activation, or `held` for each row: one at least where activations are lanes of registers, more where several steps
    share them. Of integers, `dot` says what weights take. Their order is that of `tile_cost`, but that tiles of as many
    vectors as weights are `laid` out in come first, if they cost little more.
    """
    steps = max(1, steps)  # of a tensor without elements
    each = max(1, lanes * 32 // hardware.vector_bits)
    found: list[tuple[float, list[int]]] = []
    for vectors in range(1, 9):
        if blocks % vectors:
            continue
        for rows in range(1, min(steps, 32) + 1):
            beside = vectors * each + max(1, rows * max(held, hardware.lane_operand))
            if dot is not None:  # pairs of weights fill halves of registers
                beside += dot.beside + (vectors * each if dot.paired else 0)
            fits = rows * vectors * each + beside <= hardware.vector_registers
            if not fits and (rows, vectors) != (1, 1):
                break
            cost = tile_cost(rows, vectors, steps, lanes, hardware, streamed=streamed)
            found.append((round(cost, 9), [rows, vectors]))
    found.sort(key=lambda entry: entry[0])
    if laid is not None:
        vectors, more = laid
        most = more * found[0][0]
        found.sort(key=lambda entry: entry[1][1] != vectors or entry[0] > most)
    return [tile for _, tile in found][:MOST_TILES]


def tile_cost(rows: int, vectors: int, steps: int, lanes: int, hardware: Hardware, *, streamed: bool = False) -> float:
    """The predicted time of a product by tiles of rows x vectors, as a multiple of its multiply-adds at full speed.

    Counted are rows wasted in the last tile, multiply-adds waiting for each other (8 in flight hide their latency),
    loads, and, where the weights are `streamed` from memory, the first of the passes over a panel waiting for it: that
    pass takes 2 / rows bytes a flop. Loads that broadcast set the pace beyond two thirds of the multiply-adds; where
    activations are lanes of registers, a vector of them serves several steps, most loads come in pairs, and every
    instruction counts.
    """
    each = max(1, lanes * 32 // hardware.vector_bits)
    accumulators = rows * vectors * each
    waste = -(-steps // rows) * rows / steps
    waiting = max(1.0, 8 / accumulators)
    if hardware.lane_operand:
        products = accumulators * hardware.vector_bits // 32
        issue = 1 + (products / rows / 2 + rows / 2 + 4) / products
    else:
        loads = (vectors * each + rows) / accumulators
        issue = max(1.0, 1.5 * loads) * (1 + 0.1 * loads)
    pace = waiting * issue
    first = max(pace, 2 / rows / hardware.bytes_per_flop) if streamed else pace
    return waste * (pace + (first - pace) * min(1.0, rows / steps))


def tiled_cost(steps: int, blocks: int, lanes: int, hardware: Hardware, *, streamed: bool = False) -> float:
    """The predicted time of a product by the tiles that are predicted to be fastest, as a multiple of its multiply-adds
    at the peak; of `streamed` weights, those tiles that wait for them the least."""
    rows, vectors = register_tiles(steps, blocks, lanes, hardware, streamed=streamed)[0]
    return tile_cost(rows, vectors, steps, lanes, hardware, streamed=streamed) / _EFFICIENCY


def unrollings(steps: int, most: int = 16) -> list[int]:
    """How many steps of a reduction's innermost loop may be unrolled: all of them where there are at most `most`."""
    default = steps if steps <= most else 1
    return [default, *(size for size in (1, 2, 4, 8) if steps % size == 0 and size < steps and size != default)]
