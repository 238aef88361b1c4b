"""Loops on GPUs for the blocks that no template placed: elementwise passes and reductions.

An elementwise block has a thread for each element, or for four that lie side by side. A short reduction, or one whose
steps lie apart in memory while its results lie side by side, has a thread for each result; else the threads of a warp,
or of a block, share each row. What these rules do not know goes to TVM's dlight.
"""

from __future__ import annotations

from math import prod
from typing import Any

from nncc.compat import structural_walk, tirx
from nncc.kernels.choices import Choices
from nncc.kernels.reduction_loops import reduces_rows
from nncc.scheduling import extent, extents, is_spatial, loads
from nncc.target import Hardware

__all__ = ["elementwise", "is_bound", "place", "reduction"]

_THREADS = 256
_GROUP = 4
"""Elements that one thread may move at once: 128 bits of float32."""
_SERIAL = 64
"""Steps of a reduction that one thread takes; more are shared by several."""


def is_bound(sch: Any, block: Any) -> bool:
    """Whether a block is inside of loops that are thread axes already, or of code that is."""
    return any(sch.get(loop).thread_binding is not None for loop in sch.get_loops(block))


def place(sch: Any, block: Any, hardware: Hardware, choose: Choices) -> None:
    """Bind the loops of one block, which nothing has placed, to threads.

    TVM's ScheduleError where its loops are none of those that the module knows.
    """
    if is_bound(sch, block):
        return
    if not sch.get_loops(block):
        sch.add_unit_loop(block)
    if is_spatial(sch, block):
        elementwise(sch, block, hardware, choose)
    else:
        reduction(sch, block, hardware, choose)


def elementwise(sch: Any, block: Any, hardware: Hardware, choose: Choices) -> None:
    """A thread an element, or a group of them."""
    loops = sch.get_loops(block)
    size = prod(extent(sch, loop) for loop in loops)
    enough = size >= _GROUP * _THREADS * (hardware.multiprocessors or 1)
    grouped = extent(sch, loops[-1]) % _GROUP == 0 and _moves_groups(sch, block)
    options = [_GROUP, 1] if grouped and enough else [1, _GROUP] if grouped else [1]
    _bind(sch, block, loops, choose(_name("elements", choose), options))


def _name(word: str, choose: Choices) -> str:
    asked = sum(name.startswith(word) for name in choose.options)
    return f"{word} {asked + 1}" if asked else word


def _bind(sch: Any, block: Any, loops: list[Any], group: int = 1) -> None:
    """Fuse loops; the innermost `group` of them in one thread, as a vector."""
    fused = sch.fuse(*loops) if len(loops) > 1 else loops[0]
    size = extent(sch, fused) // group
    threads = min(_THREADS, max(32, 1 << (size - 1).bit_length() if size < _THREADS else _THREADS))
    factors = [None, threads, group] if group > 1 else [None, threads]
    outer, thread, *lanes = sch.split(fused, factors)
    sch.bind(outer, "blockIdx.x")
    sch.bind(thread, "threadIdx.x")
    if lanes:
        sch.vectorize(lanes[0])


def _moves_groups(sch: Any, block: Any) -> bool:
    """Whether elements that lie side by side are made of such, or of one: each load's last index is that of the block
    or does not depend on it, and none of the others does."""
    last = sch.get(block).iter_vars[-1].var
    for load in loads(sch, block):
        *outer, inner = load.indices or [0]
        if any(_depends(index, last) for index in outer):
            return False
        if not getattr(inner, "same_as", lambda _: False)(last) and _depends(inner, last):
            return False
    nbytes = {region.source.dtype for region in (*sch.get(block).reads, *sch.get(block).writes)}
    return all(str(dtype) in ("float32", "int32", "uint8", "int8") for dtype in nbytes)


def _depends(index: Any, variable: Any) -> bool:
    found: list[Any] = []
    if isinstance(index, int):
        return False
    structural_walk(index, [(tirx.Var, found.append)])
    return any(v.same_as(variable) for v in found)


def reduction(sch: Any, block: Any, hardware: Hardware, choose: Choices) -> None:
    """A thread for each result, or several that share its steps."""
    iterators = sch.get(block).iter_vars
    loops = sch.get_loops(block)
    spatial = [loop for loop, v in zip(loops, iterators, strict=True) if v.iter_type == 0]
    reduced = [loop for loop, v in zip(loops, iterators, strict=True) if v.iter_type == 2]
    if not spatial:
        sch.add_unit_loop(block) if not reduced else None
        spatial = [sch.add_unit_loop(loops[0])]
    sch.reorder(*spatial, *reduced)
    results, steps = prod(extent(sch, loop) for loop in spatial), prod(extent(sch, loop) for loop in reduced)
    many = results >= 2 * _THREADS * (hardware.multiprocessors or 1)
    several = [t for t in (32, 64, 128, 256) if t <= max(32, steps // 2)]
    alone = steps <= _SERIAL or (many and not reduces_rows(sch, block)) or len(sch.get(block).writes) > 1
    options = [1] if alone else [several[-1] if results < 4 * (hardware.multiprocessors or 1) else 32, *several, 1]
    threads = choose(_name("threads", choose), list(dict.fromkeys(options)))
    finish = _finish(sch, block)
    if threads == 1:
        if finish is None and (results == 1 or len(sch.get(block).writes) > 1):
            _bind(sch, block, spatial)
            return
        finish = sch.cache_write(block, 0, "local") if finish is None else finish
        _bind(sch, finish, sch.get_loops(finish))
        _compute_in_registers(sch, block, sch.get_loops(finish)[-1])
        return
    rows = max(1, _THREADS // 2 // threads)
    if finish is None:
        fused = sch.fuse(*spatial) if len(spatial) > 1 else spatial[0]
        _bind_rows(sch, fused, rows)
        step = sch.fuse(*reduced) if len(reduced) > 1 else reduced[0]
    else:
        # All threads of a row have its result and store it: the same, to the same place.
        loops = sch.get_loops(finish)
        at = _bind_rows(sch, sch.fuse(*loops) if len(loops) > 1 else loops[0], rows)
        outside = len(sch.get_loops(finish))
        _compute_in_registers(sch, block, at)
        inner = sch.get_loops(block)[outside:]
        step = sch.fuse(*inner) if len(inner) > 1 else inner[0]
    _, lane = sch.split(step, [None, threads])
    sch.bind(lane, "threadIdx.x")


def _bind_rows(sch: Any, loop: Any, rows: int) -> Any:
    """Results over blocks, `rows` of them to each where that divides them; the innermost loop."""
    if rows > 1 and extent(sch, loop) % rows == 0:
        outer, row = sch.split(loop, [None, rows])
        sch.bind(outer, "blockIdx.x")
        sch.bind(row, "threadIdx.y")
        return row
    sch.bind(loop, "blockIdx.x")
    return loop


def _compute_in_registers(sch: Any, block: Any, loop: Any) -> None:
    sch.compute_at(block, loop, preserve_unit_loops=True)
    sch.set_scope(block, 0, "local")


def _finish(sch: Any, block: Any) -> Any:
    """The elementwise block that is all that uses a reduction's results, each for its own element; or None."""
    consumers = sch.get_consumers(block)
    if len(consumers) != 1 or not is_spatial(sch, consumers[0]) or len(sch.get_producers(consumers[0])) != 1:
        return None
    written, *more = sch.get(block).writes
    if more:
        return None
    shape, variables = [int(d) for d in written.source.shape], [v.var for v in sch.get(consumers[0]).iter_vars]
    if extents(sch, consumers[0]) != shape:
        return None
    for load in loads(sch, consumers[0]):
        if load.source.same_as(written.source):
            same = (size == 1 or i.same_as(v) for i, v, size in zip(load.indices, variables, shape, strict=True))
            if not all(same):
                return None
    return consumers[0]
