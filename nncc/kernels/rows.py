"""Reductions along rows, in vectors: compute definitions in tiles, and the loops of kernels that are made of them.

A row of n elements is read in tiles of `width` elements, a power of two. Where n is no multiple, the last tile ends
with the row, and so starts inside of the one before: no element is read alone, and none beyond the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nncc import scheduling
from nncc.compat import te, tirx
from nncc.kernels.choices import Choices
from nncc.target import Hardware

__all__ = [
    "Tiles",
    "fold_greatest",
    "fold_least",
    "fold_max",
    "fold_sum",
    "in_tiles",
    "producers",
    "row_at",
    "row_by_row",
    "row_of",
    "row_tiles",
]


@dataclass(frozen=True)
class Tiles:
    """`steps` tiles of `width` elements that cover a row of `length`, the last with `again` of the one before."""

    length: int
    width: int

    @property
    def steps(self) -> int:
        return -(-self.length // self.width)

    @property
    def again(self) -> int:
        return self.steps * self.width - self.length

    def start(self, step: Any) -> Any:
        """The first element of a tile."""
        if not self.again:
            return step * self.width
        if isinstance(step, int):
            return min(step * self.width, self.length - self.width)
        return tirx.min(step * self.width, self.length - self.width)


def row_tiles(length: int, lanes: int) -> Tiles:
    """The tiles of up to 4 vectors that take the fewest vector operations, but for one in twelve; wide ones first.

    Several vectors are as many chains that do not wait for each other, and sums that keep their digits.
    """
    widths = [1 << k for k in range((4 * lanes).bit_length()) if 1 << k <= min(length, 4 * lanes)]

    def operations(width: int) -> int:
        return Tiles(length, width).steps * max(1, width // lanes)

    fewest = min(map(operations, widths))
    return Tiles(length, max(width for width in widths if operations(width) <= 1.09 * fewest))


def row_of(x: Any) -> Callable[..., Any]:
    """The tensor as a function of (row, element); rows are counted over all axes but the last."""
    batch = [int(d) for d in x.shape[:-1]]

    def element(row: Any, k: Any) -> Any:
        at: list[Any] = []
        for size in reversed(batch):
            at.insert(0, row % size if len(at) < len(batch) - 1 else row)
            row = row // size
        place = (*at, k)
        return x[place]

    return element


def row_at(batch: list[int], at: tuple[Any, ...]) -> Any:
    """The number of the row at a place of the axes before the last."""
    row: Any = 0
    for size, index in zip(batch, at, strict=True):
        row = row * size + index
    return row


def fold_max(rows: Sequence[int], tiles: Tiles, tile: Callable[..., Any], part: dict[str, str]) -> Any:
    """max of tile(*row, step, lane) over a row, [*rows]; elements that come twice do not matter."""
    return _fold_extreme(rows, tiles, tile, "max", part, te.max, tirx.max)


def fold_greatest(rows: Sequence[int], tiles: Tiles, tile: Callable[..., Any], name: str, part: dict[str, str]) -> Any:
    """The greatest tile(*row, step, lane) of each row, [*rows], which minus infinity may be."""
    reducer = _reducer(tirx.max, name, -math.inf, tirx.min_value)
    return _fold_extreme(rows, tiles, tile, name, part, reducer, tirx.max)


def fold_least(rows: Sequence[int], tiles: Tiles, tile: Callable[..., Any], name: str, part: dict[str, str]) -> Any:
    """The smallest one, [*rows], which infinity may be."""
    return _fold_extreme(rows, tiles, tile, name, part, _reducer(tirx.min, name, math.inf, tirx.max_value), tirx.min)


def _reducer(combine: Callable[[Any, Any], Any], name: str, infinite: float, bound: Callable[[str], Any]) -> Any:
    """One that begins with an infinity, or of integers with the `bound` of their type."""

    def first(dtype: str) -> Any:
        return tirx.const(infinite, dtype) if "float" in str(dtype) else bound(str(dtype))

    return te.comm_reducer(lambda a, b: combine(a, b), first, name=name)


def _fold_extreme(
    rows: Sequence[int],
    tiles: Tiles,
    tile: Callable[..., Any],
    name: str,
    part: dict[str, str],
    reducer: Any,
    combine: Callable[[Any, Any], Any],
) -> Any:
    step = te.reduce_axis((0, tiles.steps), name="step")
    lanes = te.compute(
        (*rows, tiles.width),
        lambda *at: reducer(tile(*at[:-1], step, at[-1]), axis=[step]),
        name=f"{name}_of_tiles",
        attrs=part,
    )
    return _fold(lanes, combine, name, part)


def fold_sum(rows: Sequence[int], tiles: Tiles, tile: Callable[..., Any], name: str, part: dict[str, str]) -> Any:
    """sum of tile(*row, step, lane) over a row, [*rows]; of the last tile, only what did not come before."""
    whole = tiles.steps - bool(tiles.again)
    step = te.reduce_axis((0, whole), name="step")
    lanes = te.compute(
        (*rows, tiles.width),
        lambda *at: te.sum(tile(*at[:-1], step, at[-1]), axis=[step]),
        name=f"{name}_of_tiles",
        attrs=part,
    )

    if tiles.again:
        first, zero = lanes, tirx.const(0, lanes.dtype)
        lanes = te.compute(
            (*rows, tiles.width),
            lambda *at: first[at] + tirx.Select(at[-1] >= tiles.again, tile(*at[:-1], whole, at[-1]), zero),
            name=f"{name}_with_last",
            attrs=part,
        )
    return _fold(lanes, lambda a, b: a + b, name, part)


def _fold(lanes: Any, combine: Any, name: str, part: dict[str, str]) -> Any:
    """Combine the lanes by halves, [*rows, width] to [*rows]."""
    *rows, width = (int(d) for d in lanes.shape)

    def halved(whole: Any, width: int) -> Any:
        return te.compute(
            (*rows, width),
            lambda *at: combine(whole(*at), whole(*at[:-1], at[-1] + width)),
            name=f"{name}_{width}",
            attrs=part,
        )

    while width > 1:
        width //= 2
        lanes = halved(lanes, width)
    return te.compute(tuple(rows), lambda *at: lanes(*at, 0), name=name, attrs=part)


def row_by_row(
    sch: Any, block: Any, width: int, work: int, hardware: Hardware, choose: Choices
) -> tuple[list[Any], str]:
    """Compute everything that `block`, [.., n], is made of row by row, in tiles of `width`; see `nncc.scheduling`.

    Short rows come some at a time: their chains of exponentials and halves then wait for each other less.
    """
    consumers = sch.get_consumers(block)
    same = [c for c in consumers if scheduling.extents(sch, c) == scheduling.extents(sch, block)]
    if len(consumers) == len(same) == 1 and scheduling.is_spatial(sch, same[0]):
        sch.compute_inline(block)
        block = same[0]
    lanes = max(1, hardware.vector_bits // 32)
    *batch, length = scheduling.extents(sch, block)
    most = max(1, 4 * lanes // width)
    # Tiles of rows stay inside of one axis: regions of rows that end in the next one are not known exactly.
    possible = [n for n in range(most, 0, -1) if batch[-1] % n == 0 and (n == 1 or n * length <= 4096)]
    together = choose("rows", possible)
    *outer, k = sch.get_loops(block)
    last, _ = sch.split(outer[-1], [None, together])
    row = sch.fuse(*outer[:-1], last) if len(outer) > 1 else last
    steps, lane = sch.split(k, [None, width])
    if length % width:
        sch.annotate(steps, "pragma_loop_partition_hint", 1)
    sch.vectorize(lane)
    placed, sums = [block], []
    for made in producers(sch, sch.get_producers(block)):
        sch.compute_at(made, row, preserve_unit_loops=True)
        reduced = in_tiles(sch, made, len(sch.get_loops(block)) - 3, most // together)
        placed.append(made)
        if reduced is not None:
            sums.append((made, reduced))
    scheduling.parallel(sch, [row], work, hardware, choose)
    for made, reduced in sums:
        scheduling.decompose_reduction(sch, made, reduced)
    return placed, f"{together}x{width}"


def producers(sch: Any, blocks: list[Any]) -> list[Any]:
    """The blocks and all that they are made of, each after those that read it."""
    found: list[Any] = []
    names: set[str] = set()

    def visit(block: Any) -> None:
        name = sch.get(block).name_hint
        if name in names:
            return
        names.add(name)
        for made in sch.get_producers(block):
            visit(made)
        found.append(block)

    for block in blocks:
        visit(block)
    return found[::-1]


def in_tiles(sch: Any, block: Any, outside: int, unrolled: int) -> Any:
    """Lanes innermost, as one vector; around them the rows, and up to `unrolled` of the steps that do not add up.

    `outside` are the loops around those of the rows. The loop that adds up, or None.
    """
    row, *rest = sch.get_loops(block)[outside:]
    variables = sch.get(block).iter_vars
    kinds = [v.iter_type for v in variables[len(variables) - len(rest) :]]
    sch.unroll(row)
    if not rest:
        return None
    spatial = [loop for loop, kind in zip(rest, kinds, strict=True) if kind == 0]
    reduced = [loop for loop, kind in zip(rest, kinds, strict=True) if kind == 2]
    *steps, lane = spatial
    if steps and unrolled > 1 and scheduling.extent(sch, steps[0]) > 1:
        size = scheduling.extent(sch, steps[0])
        outer, inner = sch.split(steps[0], [None, min(size, unrolled)])
        if size % unrolled:
            sch.annotate(outer, "pragma_loop_partition_hint", 1)
        sch.unroll(inner)
        steps = [outer, inner]
    sch.reorder(*steps, *reduced, row, lane)
    sch.vectorize(lane)
    return reduced[0] if reduced else None
