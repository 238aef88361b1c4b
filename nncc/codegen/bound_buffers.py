"""Buffers of kernels with open dimensions get static shapes: as much of each as is accessed at most.

A tile of rows is as large in a loop of unknown length as in any other; TVM's CompactBufferAllocation does not see that
behind the condition of the last one's rest, and gives it 2^31 - 1 rows.
"""

from __future__ import annotations

from math import prod
from typing import Any

from nncc.compat import Analyzer, structural_map, structural_walk, tirx, tvm
from nncc.errors import InternalError
from nncc.scheduling import DIMS

__all__ = ["bound_buffers"]

_UNKNOWN = 1 << 24
"""Rows: what CompactBufferAllocation does not know is 2^31 - 1, or that divided by some tile."""


def bound_buffers() -> Any:
    """The TIR pass; it comes behind CompactBufferAllocation, when blocks have no iterators left."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.BoundBuffers")
    def apply(function: Any, module: Any, context: Any) -> Any:
        if DIMS not in (function.attrs or {}):
            return function
        bounds = {name: (int(low), int(high)) for name, (_, low, high) in function.attrs[DIMS].items()}
        bounded = _bounded(function.body, _ranges(function, bounds))
        if not bounded:
            return function
        replaced = {
            old: tirx.decl_buffer(shape, str(old.dtype), name=old.name, scope=old.scope())
            for old, shape in bounded.items()
        }
        renamed = structural_map(function.body, [(tirx.Var, lambda variable: replaced.get(variable, variable))])
        return function.with_body(renamed)

    return apply


def _ranges(function: Any, bounds: dict[str, tuple[int, int]]) -> Any:
    """An analyzer that knows the open dimensions and all loops of constant length."""
    known = Analyzer()
    bound: set[str] = set()

    def dimension(variable: Any) -> None:
        if variable.name in bounds and variable.name not in bound:
            low, high = bounds[variable.name]
            dtype = str(variable.ty.dtype)
            known.bind(
                variable, tvm.ir.Range.from_min_extent(tirx.IntImm(dtype, low), tirx.IntImm(dtype, high - low + 1))
            )
            bound.add(variable.name)

    for parameter in function.params:
        for size in parameter.shape:
            structural_walk(size, [(tirx.Var, dimension)])

    def loop(stmt: Any) -> None:
        most = _most(stmt.extent, known)
        if isinstance(stmt.min, tirx.IntImm) and most < _UNKNOWN:
            extent = tirx.IntImm(str(stmt.loop_var.ty.dtype), most)
            known.bind(stmt.loop_var, tvm.ir.Range.from_min_extent(stmt.min, extent))

    structural_walk(function.body, [(tirx.For, loop)], order="pre")
    return known


def _bounded(body: Any, known: Any) -> dict[Any, list[int]]:
    """By buffer that is allocated with an open or unknown shape: a static shape that all accesses stay inside of."""
    open_buffers: list[Any] = []

    def allocations(block: Any) -> None:
        for buffer in block.alloc_buffers:
            if not all(isinstance(d, tirx.IntImm) and int(d) < _UNKNOWN for d in buffer.shape):
                open_buffers.append(buffer)

    structural_walk(body, [(tvm.s_tir.SBlock, allocations)])
    if not open_buffers:
        return {}
    declared = {buffer: [_most(size, known) for size in buffer.shape] for buffer in open_buffers}
    sizes = {buffer: [1] * len(buffer.shape) for buffer in open_buffers}

    def access(buffer: Any, indices: Any) -> None:
        if buffer not in sizes:
            return
        for axis, index in enumerate(indices):
            size = min(declared[buffer][axis], _most(index, known) + 1)
            if size >= _UNKNOWN:
                raise InternalError(f"a kernel accesses `{buffer.name}` at {index}, which has no bounds")
            sizes[buffer][axis] = max(sizes[buffer][axis], size)

    structural_walk(
        body,
        [
            (tvm.ir.TensorLoad, lambda load: access(load.source, load.indices)),
            (tirx.BufferStore, lambda store: access(store.buffer, store.indices)),
        ],
    )
    if any(prod(shape) >= 1 << 31 for shape in sizes.values()):
        raise InternalError("a kernel needs a buffer of 2^31 elements or more")
    return sizes


def _most(size: Any, known: Any) -> int:
    """What an expression is at most, as far as one can tell."""
    return int(known.const_int_bound(known.simplify(size)).max_value)
