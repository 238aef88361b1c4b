"""Plain loops for the elementwise blocks that no template placed; `reduction_loops` has those of reductions."""

from __future__ import annotations

from math import prod
from typing import Any

from nncc.compat import Analyzer, structural_walk, tirx, tvm
from nncc.kernels.choices import Choices
from nncc.scheduling import cut_at_borders, extent, extents, is_padding, loads, parallel, transcendentals
from nncc.target import Hardware

__all__ = ["elementwise"]

_ALONE = 16384
"""So many elements are one thread's work."""


def _vectorize_last(sch: Any, block: Any, lanes: int) -> list[Any]:
    """Vectorize the innermost loop by `lanes`, peeling its tail; the loops that remain outside of it."""
    *outer, last = sch.get_loops(block)
    while extent(sch, last) == 1 and outer:
        last = sch.fuse(outer.pop(), last)
    size = extent(sch, last)
    if size < lanes:
        if size > 1 and size & (size - 1) == 0:
            sch.vectorize(last)
            return outer
        return [*outer, last]
    if size == lanes:
        sch.vectorize(last)
        return outer
    steps, vector = sch.split(last, [None, lanes])
    sch.vectorize(vector)
    if size % lanes:
        sch.annotate(steps, "pragma_loop_partition_hint", 1)
        return outer
    return [*outer, steps]


def _cut_at_borders(sch: Any, block: Any) -> list[Any] | None:
    """Cut the innermost loop of a block that pads at the borders of what it pads: LLVM makes vectors of the middle,
    which has no condition. The loops that remain outside; None where the innermost axis is not padded.
    """
    loops = sch.get_loops(block)
    at = max((i for i, loop in enumerate(loops) if extent(sch, loop) > 1), default=-1)
    if not is_padding(sch, block) or at < 0 or len(loops) != len(sch.get(block).iter_vars):
        return None
    (load,) = loads(sch, block)
    if not all(isinstance(d, tirx.IntImm) for d in load.source.shape):
        return None
    shape = [int(d) for d in load.source.shape]
    if not shape:
        return None
    inner = max((i for i, d in enumerate(shape) if d > 1), default=-1)
    before = Analyzer().simplify(sch.get(block).iter_vars[at].var - load.indices[inner])
    if not isinstance(before, tirx.IntImm) or shape[inner] == extent(sch, loops[at]):
        return None
    start, end = int(before), int(before) + shape[inner]
    cuts = [start] * (start > 0) + [shape[inner]] * (end < extent(sch, loops[at]))
    if start < 0 or not cuts:
        return None
    sch.loop_partition(loops[at], cuts)
    return list(loops[:at])


def _in_squares(sch: Any, block: Any, lanes: int) -> list[Any] | None:
    """Tile a block that moves channels into blocks of lanes, or out of them, by squares, which are unrolled: their
    elements are gathered by loads of rows (`nncc.codegen.transpose_lanes`). The loops that remain outside; None where a
    block does something else.
    """
    loops, iterators = sch.get_loops(block), sch.get(block).iter_vars
    column_at = {4: 1, 5: 3}.get(len(loops))
    if column_at is None or len(loops) != len(iterators) or _branches(sch, block):
        return None
    gathers = [load for load in loads(sch, block) if _along(load, iterators) == {iterators[column_at].var}]
    if len(gathers) != 1:
        return None
    if str(gathers[0].source.dtype) in ("int8", "uint8"):
        lanes = max(lanes, 16)
    n, c, h, w, *lane = loops
    size = extent(sch, h) * extent(sch, w)
    if size < lanes or extent(sch, lane[0] if lane else c) % lanes or lanes & (lanes - 1) or lanes == 1:
        return None
    pixels = sch.fuse(h, w)
    if lane:  # [N, C/l, H, W, l] of [N, C, H, W]: a column is a pixel
        pixels, column = sch.split(pixels, [None, lanes])
        piece, row = sch.split(lane[0], [None, lanes])
        outer = [n, c, piece, pixels]
    else:  # [N, C, H, W] of [N, C/l, H, W, l]: a column is a channel
        c, column = sch.split(c, [None, lanes])
        pixels, row = sch.split(pixels, [None, lanes])
        outer = [n, c, pixels]
    sch.reorder(*outer, column, row)
    sch.unroll(column)
    sch.vectorize(row)
    if size % lanes:
        sch.annotate(pixels, "pragma_loop_partition_hint", 1)
        outer.pop()
    return outer


def _interleaved(sch: Any, block: Any, lanes: int) -> list[Any] | None:
    """Vectorize a block that puts elements of a few rows in turn, y[.., i] = x[.., i mod C, .., i div C], by vectors of
    each row (`nncc.codegen.shuffle_lanes`). The loops that remain outside; None where a block does something else.
    """
    loops, iterators = sch.get_loops(block), sch.get(block).iter_vars
    at = max((i for i, loop in enumerate(loops) if extent(sch, loop) > 1), default=-1)
    if at < 0 or lanes == 1 or len(loops) != len(iterators) or _branches(sch, block) or len(loads(sch, block)) != 1:
        return None
    (load,), v = loads(sch, block), iterators[at].var
    rows = [index.b for index in load.indices if isinstance(index, tirx.FloorMod) and index.a.same_as(v)]
    if len(rows) != 1 or not isinstance(rows[0], tirx.IntImm) or not 2 <= int(rows[0]) < 8:
        return None
    size = int(rows[0]) * lanes
    rest = extent(sch, loops[at]) % size
    if extent(sch, loops[at]) < size or not isinstance(load.indices[-1], tirx.FloorDiv):
        return None
    columns, column = sch.split(loops[at], [None, size])
    if rest:
        sch.annotate(columns, "pragma_loop_partition_hint", 1)
    sch.vectorize(column)
    return list(loops[:at]) if rest else [*loops[:at], columns]


def _transposed(sch: Any, block: Any, lanes: int) -> list[Any] | None:
    """The same of a block that reads one tensor along another axis than its innermost, where both are whole squares,
    of half the lanes or a quarter if need be. The loops that remain outside; None where a block does something else.
    """
    loops, iterators = sch.get_loops(block), sch.get(block).iter_vars
    if len(loops) < 2 or len(loops) != len(iterators) or _branches(sch, block):
        return None
    inner = iterators[-1].var
    gathers = [
        load
        for load in loads(sch, block)
        if inner not in _along(load, iterators) and any(_reads(index, inner) for index in load.indices)
    ]
    if len(gathers) != 1 or str(gathers[0].source.dtype) != "float32":
        return None
    at = next((i for i, v in enumerate(iterators[:-1]) if gathers[0].indices[-1].same_as(v.var)), None)
    if at is None:
        return None
    sizes = [size for size in (lanes, lanes // 2, lanes // 4) if size >= 4]
    side = next((n for n in sizes if not extent(sch, loops[at]) % n and not extent(sch, loops[-1]) % n), None)
    if side is None:
        return None
    columns, column = sch.split(loops[at], [None, side])
    rows, row = sch.split(loops[-1], [None, side])
    outer = [*loops[:at], columns, *loops[at + 1 : -1], rows]
    sch.reorder(*outer, column, row)
    sch.unroll(column)
    sch.vectorize(row)
    return outer


def _as_one_row(sch: Any, block: Any, lanes: int) -> list[Any] | None:
    """Vectorize a block with too short rows along all of its elements, where it reads each where it writes it, whatever
    the shapes are. The loops that remain outside; None where a block does something else.
    """
    loops, iterators = sch.get_loops(block), sch.get(block).iter_vars
    sizes = [sch.get(loop).extent for loop in loops]
    if len(loops) != len(iterators) or not all(isinstance(size, tirx.IntImm) for size in sizes):
        return None
    total, row = prod(map(int, sizes)), next((int(size) for size in reversed(sizes) if int(size) > 1), 1)
    if row >= lanes or total < 2 * lanes or _branches(sch, block) or (total % lanes and total > _ALONE):
        return None
    known = Analyzer()
    for v in iterators:
        known.bind(v.var, v.dom)
    places = [(region.source.shape, [r.min for r in region.region]) for region in sch.get(block).writes]
    places += [(load.source.shape, load.indices) for load in loads(sch, block)]
    here = _offset(sizes, [v.var for v in iterators])
    for shape, indices in places:
        moves = any(_reads(index, v.var) for index in indices for v in iterators)
        if moves and not known.can_prove_equal(_offset(shape, indices), here):
            return None
    fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
    steps, vector = sch.split(fused, [None, lanes])
    sch.vectorize(vector)
    if total % lanes:
        sch.annotate(steps, "pragma_loop_partition_hint", 1)
        return []
    return [steps]


def _offset(shape: Any, indices: Any) -> Any:
    """Where an element is in memory, counted in elements."""
    place = tirx.IntImm("int32", 0)
    for size, index in zip(shape, indices, strict=True):
        place = place * size + index
    return place


def _along(load: Any, iterators: Any) -> set[Any]:
    """The iterators that move the last index of a load; none move that of a scalar."""
    if not load.indices:
        return set()
    known = Analyzer()
    for v in iterators:
        known.bind(v.var, v.dom)
    found: set[Any] = set()
    structural_walk(known.simplify(load.indices[-1]), [(tirx.Var, found.add)])
    return found


def _reads(index: Any, variable: Any) -> bool:
    found: set[Any] = set()
    structural_walk(index, [(tirx.Var, found.add)])
    return variable in found


def _branches(sch: Any, block: Any) -> bool:
    found: list[Any] = []
    structural_walk(sch.get(block).body, [(tvm.ir.Call, lambda call: found.append(str(getattr(call.op, "name", ""))))])
    return "tirx.if_then_else" in found


def elementwise(sch: Any, block: Any, hardware: Hardware, choose: Choices) -> None:
    """One pass: outer loops fused and spread over the threads, the innermost vectorized."""
    if not sch.get_loops(block):
        return
    work = prod(extents(sch, block)) * (1 + 12 * transcendentals(sch, block))
    loops = sch.get_loops(block)
    if cut_at_borders(sch, block):
        parallel(sch, loops[:-1], work, hardware, choose)
        return
    outer = _cut_at_borders(sch, block)
    if outer is None:
        outer = _in_squares(sch, block, max(1, hardware.vector_bits // 32))
    if outer is None:
        outer = _interleaved(sch, block, max(1, hardware.vector_bits // 32))
    if outer is None:
        outer = _transposed(sch, block, max(1, hardware.vector_bits // 32))
    if outer is None:
        outer = _as_one_row(sch, block, max(1, hardware.vector_bits // 32))
    if outer is None:
        outer = _vectorize_last(sch, block, max(1, hardware.vector_bits // 32))
    if outer:
        parallel(sch, outer, work, hardware, choose)
