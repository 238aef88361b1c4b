"""Plain loops for the reductions that no template placed: along rows, or down columns."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nncc.compat import structural_walk, tirx
from nncc.kernels.choices import Choices
from nncc.scheduling import decompose_reduction, extent, extents, loads, parallel
from nncc.target import Hardware

__all__ = ["reduces_rows", "reduction"]

_ROWS = 8
"""Rows that are added up before the sum goes back to memory."""
_COLUMNS = 64
"""Vectors of sums that lie in the first-level cache while rows are added to them."""


def reduction(sch: Any, block: Any, hardware: Hardware, choose: Choices) -> None:
    """Spatial loops spread over the threads; lanes run along a spatial axis, or along the reduced one by rfactor."""
    lanes = max(1, hardware.vector_bits // 32)
    iterators = sch.get(block).iter_vars
    loops = sch.get_loops(block)
    if len(loops) != len(iterators):
        return
    spatial = [loop for loop, v in zip(loops, iterators, strict=True) if v.iter_type == 0]
    reduced = [loop for loop, v in zip(loops, iterators, strict=True) if v.iter_type == 2]
    if len(spatial) + len(reduced) != len(loops) or not reduced:
        return
    work = prod(extents(sch, block))
    by_rows = reduces_rows(sch, block)
    if by_rows:
        reduced = _side_by_side(sch, block, reduced, 2)
    length = extent(sch, reduced[-1])
    # Without a spatial loop, rfactor fails inside TVM 0.27.
    if spatial and by_rows and lanes > 1 and length >= 2 * lanes and len(sch.get(block).writes) == 1:
        # Several accumulators of one vector each: they hide the latency of an addition, and a long sum in one float32
        # loses digits.
        width = lanes * min(4, length // (2 * lanes))
        steps, lane = sch.split(reduced[-1], [None, width])
        if length % width:
            sch.annotate(steps, "pragma_loop_partition_hint", 1)
        partial = sch.rfactor(lane, len(spatial))
        # compute_at would drop the predicate of a tail (TVM 0.27): the partial sums keep a nest of their own.
        *outer, lane = sch.get_loops(partial)
        first = outer[len(spatial)]
        if width > lanes:
            vectors, vector = sch.split(lane, [None, lanes])
            sch.unroll(vectors)
            sch.vectorize(vector)
        else:
            sch.vectorize(lane)
        parallel(sch, outer[: len(spatial)], work, hardware, choose)
        parallel(sch, sch.get_loops(block)[:-1], work // length, hardware, choose)
        decompose_reduction(sch, partial, first)
        return
    if spatial and not by_rows and len(sch.get(block).writes) == 1:
        spatial = _side_by_side(sch, block, spatial, 0)
        if extent(sch, spatial[-1]) > 2 * lanes:
            _down_columns(sch, block, spatial, reduced, work, hardware, choose)
            return
    if spatial and not by_rows and extent(sch, spatial[-1]) >= min(lanes, 4):
        size = extent(sch, spatial[-1])
        if size % lanes == 0 and size > lanes:
            outer, vector = sch.split(spatial[-1], [None, lanes])
            spatial = [*spatial[:-1], outer, vector]
        if extent(sch, spatial[-1]) <= 2 * lanes:
            sch.reorder(*spatial[:-1], *reduced, spatial[-1])
            sch.vectorize(spatial[-1])
            if len(spatial) > 1:
                parallel(sch, spatial[:-1], work, hardware, choose)
            decompose_reduction(sch, block, reduced[0])
            return
    if spatial:
        sch.reorder(*spatial, *reduced)
        parallel(sch, spatial, work, hardware, choose)


def _side_by_side(sch: Any, block: Any, loops: Sequence[Any], kind: int) -> list[Any]:
    """The loops over axes of one kind, 0 of the result or 2 of what is reduced; the last of them fused as long as all
    tensors have their elements in one row."""
    iterators = [v for v in sch.get(block).iter_vars if v.iter_type == kind]
    tensors = [(region.source, [r.min for r in region.region]) for region in sch.get(block).writes]
    tensors += [(load.source, list(load.indices)) for load in loads(sch, block)]
    count = 1
    while count < len(loops) and all(_in_a_row(iterators[-count - 1 :], *tensor) for tensor in tensors):
        count += 1
    if count == 1:
        return list(loops)
    return [*loops[:-count], sch.fuse(*loops[-count:])]


def _in_a_row(iterators: Sequence[Any], tensor: Any, indices: Sequence[Any]) -> bool:
    """Whether a tensor's innermost axes are those of the iterators, whole, or it is read at one place for all."""
    read = set[Any]()
    for index in indices:
        structural_walk(index, [(tirx.Var, read.add)])
    if not any(v.var in read for v in iterators):
        return True
    inner = list(zip(iterators, tensor.shape[-len(iterators) :], indices[-len(iterators) :], strict=False))
    return len(inner) == len(iterators) and all(
        index.same_as(v.var) and isinstance(size, tirx.IntImm) and int(size) == _size(v) for v, size, index in inner
    )


def _size(iterator: Any) -> int | None:
    """The number of steps of an iterator; None for one of an open dimension."""
    return int(iterator.dom.extent) if isinstance(iterator.dom.extent, tirx.IntImm) else None


def _down_columns(
    sch: Any,
    block: Any,
    spatial: Sequence[Any],
    reduced: Sequence[Any],
    work: int,
    hardware: Hardware,
    choose: Choices,
) -> None:
    """Go through the rows in the order of memory, some at once, and add them to a row of sums in the first-level cache;
    a few vectors of sums stay in registers. Each sum is made in the order of its terms.
    """
    lanes = max(1, hardware.vector_bits // 32)
    *outer, column = spatial
    *reduced, last = reduced
    vectors, rest = divmod(extent(sch, column), lanes)
    if not rest and vectors <= _ROWS:
        column, lane = sch.split(column, [None, lanes])
        sch.reorder(*outer, *reduced, last, column, lane)
        sch.unroll(column)
        sch.vectorize(lane)
        parallel(sch, outer, work, hardware, choose)
        decompose_reduction(sch, block, [*reduced, last][0])
        return
    if not rest:
        together = max(n for n in range(1, _COLUMNS + 1) if vectors % n == 0)
        together = together if together * 8 >= min(vectors, _COLUMNS) else vectors
        pieces, column, lane = sch.split(column, [None, together, lanes])
        outer, inner = [*outer, pieces], [lane]
        sch.vectorize(lane)
    else:
        inner = []  # LLVM makes vectors, and takes care of the rest
    steps = sch.get(last).extent
    several = max(n for n in range(1, _ROWS + 1) if int(steps) % n == 0) if isinstance(steps, tirx.IntImm) else 1
    if several == 1 and isinstance(steps, tirx.IntImm) and int(steps) > _ROWS:
        last, row = sch.split(last, [None, _ROWS])
        sch.annotate(last, "pragma_loop_partition_hint", 1)
    else:
        last, row = sch.split(last, [None, several])
    sch.reorder(*outer, *reduced, last, column, row, *inner)
    sch.unroll(row)
    parallel(sch, outer, work, hardware, choose)
    init = sch.decompose_reduction(block, [*reduced, last][0])
    if inner:
        sch.vectorize(sch.get_loops(init)[-1])


def reduces_rows(sch: Any, block: Any) -> bool:
    """Whether the fastest index of what the block reads runs along a reduced axis."""
    reduced = [v.var for v in sch.get(block).iter_vars if v.iter_type == 2]
    written = [region.source for region in sch.get(block).writes]
    for load in loads(sch, block):
        if not load.indices or any(load.source.same_as(buffer) for buffer in written):
            continue
        found: list[Any] = []
        structural_walk(load.indices[-1], [(tirx.Var, found.append)])
        if any(v.same_as(r) for v in found for r in reduced):
            return True
    return False
