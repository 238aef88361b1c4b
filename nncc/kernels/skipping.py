"""Weights of which blocks are zero, as lists of those that are not; and register tiles of kernels that walk such lists.

A block is some output channels by four input channels at one place of the window. Each block of outputs has a list, all
lists are as long as the longest. A matrix [K, N] is a kernel [N, K, 1, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nncc.kernels.dots import Dot
from nncc.target import Hardware

__all__ = ["MOST_OUTPUTS", "WORD", "Lists", "best_lists", "density", "list_tiles", "lists_of", "pack", "tile_cost"]

WORD = 4
"""Input channels of a block."""
MOST_OUTPUTS = 16
"""Output channels of a block, at most."""
_EFFICIENCY = 0.93
"""Of what `tile_cost` says, that is reached: measured on a Zen 4 core at 70 % of zeros, of the processor's peak."""
_MOST_TILES = 24
"""Of the register tiles that fit, so many are worth a try."""
_DECODE = 8
"""Instructions that a step of a list takes beside its products: its place becomes an address."""


class Lists(NamedTuple):
    """How zeros are skipped."""

    vectors: int
    """Vectors of output channels that share a list."""
    density: float
    """The length of the longest list over the number of blocks."""
    cost: float
    """Predicted time, as a multiple of that of a dense product at the processor's peak."""

    def __str__(self) -> str:
        return "skipping zeros"


def lists_of(kernel: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """[O, I, KH, KW] -> its weights by blocks of `outputs`, [ceil(O/outputs), outputs, ceil(I/4), 4, KH, KW], and
    whether each block is not zero, [ceil(O/outputs), ceil(I/4), KH, KW]."""
    out_channels, in_channels, height, width = kernel.shape
    missing = (0, -out_channels % outputs), (0, -in_channels % WORD), (0, 0), (0, 0)
    padded = np.pad(kernel, missing)
    split = padded.reshape(-1, outputs, padded.shape[1] // WORD, WORD, height, width)
    return split, (split != 0).any(axis=(1, 3))


def density(kernel: np.ndarray, outputs: int) -> float:
    """The length of the longest list over the number of blocks."""
    _, found = lists_of(kernel, outputs)
    counts = found.reshape(len(found), -1)
    return float(counts.sum(axis=1).max() / counts.shape[1])


def pack(kernel: np.ndarray, lanes: int, vectors: int, dot: Dot | None = None) -> tuple[np.ndarray, np.ndarray]:
    """[O, I, KH, KW] -> weights [O/(l g), E, 4, g, l], by words where there is a `dot`, and where they stand, int32
    [O/(l g), E, 3]: a number of four input channels, kh, kw. Lists that are shorter end in zeros."""
    split, found = lists_of(kernel, lanes * vectors)
    length = max(1, int(found.reshape(len(found), -1).sum(axis=1).max(initial=0)))
    weights = np.zeros((len(found), length, WORD, lanes * vectors), kernel.dtype)
    places = np.zeros((len(found), length, 3), np.int32)
    for number, each in enumerate(found):
        at = np.argwhere(each)
        c, kh, kw = at.T
        weights[number, : len(at)] = split[number][:, c, :, kh, kw].transpose(0, 2, 1)
        places[number, : len(at)] = at
    weights = weights.reshape(len(found), length, WORD, vectors, lanes)
    return weights if dot is None else dot.words(weights, 2), places


def best_lists(kernel: np.ndarray, lanes: int, steps: int, hardware: Hardware, dot: Dot | None = None) -> Lists | None:
    """What is predicted to be fastest for vectors of `lanes` outputs and `steps` rows or columns of them; None where
    there is nothing to skip."""
    blocks = -(-kernel.shape[0] // lanes)
    found = []
    for vectors in range(1, max(1, MOST_OUTPUTS // lanes) + 1):
        if blocks % vectors == 0:
            (rows, lists), *_ = list_tiles(steps, blocks // vectors, vectors, lanes, hardware, dot=dot)
            dense = density(kernel, lanes * vectors)
            cost = dense * tile_cost(rows, lists, vectors, steps, lanes, hardware, dot) / _EFFICIENCY
            found.append(Lists(vectors, dense, cost))
    best = min(found, key=lambda each: each.cost)
    return best if best.density < 1 else None


def list_tiles(
    steps: int, lists: int, vectors: int, lanes: int, hardware: Hardware, *, dot: Dot | None = None
) -> list[list[int]]:
    """Rows (or columns) by lists of the accumulators that may be kept in registers, the cheapest first.

    `steps` rows and `lists` are to be covered; each list is shared by `vectors` of `lanes`. Beside the accumulators,
    registers hold the weights of one step of a list, an activation, and a product on its way.
    """
    each = max(1, lanes * 32 // hardware.vector_bits)
    beside = vectors * each + 2
    if dot is not None:  # pairs of weights fill halves of registers
        beside += dot.beside + (vectors * each + 2 if dot.paired else 0)
    found: list[tuple[float, list[int]]] = []
    for together in (n for n in range(1, 9) if lists % n == 0):
        for rows in range(1, min(max(1, steps), 32) + 1):
            held = rows if hardware.lane_operand and dot is None else 0  # four activations in one register
            taken = rows * together * vectors * each + beside + held
            if taken > hardware.vector_registers and (rows, together) != (1, 1):
                break
            cost = tile_cost(rows, together, vectors, steps, lanes, hardware, dot)
            found.append((round(cost, 9), [rows, together]))
    return [tile for _, tile in sorted(found, key=lambda entry: entry[0])][:_MOST_TILES]


def tile_cost(
    rows: int, lists: int, vectors: int, steps: int, lanes: int, hardware: Hardware, dot: Dot | None = None
) -> float:
    """The predicted time of products by tiles of `rows` and `lists`, as a multiple of its multiply-adds at full speed.

    Counted are rows wasted in the last tile, multiply-adds waiting for each other (8 in flight hide their latency),
    loads, of which there are no more at once than multiply-adds, and what it takes to find the next activations; where
    activations are lanes of registers, every instruction, as in `scheduling.tile_cost`.
    """
    each = max(1, lanes * 32 // hardware.vector_bits)
    accumulators = rows * lists * vectors * each
    waste = -(-steps // rows) * rows / max(1, steps)
    waiting = max(1.0, 8 / accumulators)
    words = WORD if dot is None else WORD // dot.size
    products = words * rows * vectors * each
    if hardware.lane_operand:  # four float32 come by one load, a word by an addition and a load
        beside = words * vectors * each / 2 + rows * (1 if dot is None else 2 * words) + _DECODE
        return waste * waiting * (1 + beside / products)
    loads = (vectors * each + rows) / (rows * vectors * each)
    return waste * waiting * max(1.0, loads) * (1 + 0.1 * loads + 0.25 * _DECODE / products)
