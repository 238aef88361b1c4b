"""Register tiles, however large, as one small buffer a vector.

A tile of registers is one buffer, of which every unrolled access takes one aligned vector, or one lane of one. TVM
moves a buffer of 1024 bytes off the stack, to memory that LLVM cannot make registers of; buffers of one vector each
stay.
"""

from __future__ import annotations

from math import prod
from typing import Any

from nncc.compat import structural_map, structural_walk, tirx, tvm

__all__ = ["split_registers"]


def split_registers() -> Any:
    """The TIR pass; it comes when loops are unrolled and buffers flat."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.SplitRegisters")
    def apply(function: Any, module: Any, context: Any) -> Any:
        tiles = _tiles(function.body)
        return function.with_body(_split(function.body, tiles)) if tiles else function

    return apply


def _tiles(body: Any) -> dict[Any, tuple[Any, int]]:
    """By its pointer: the local buffers of which all accesses are in aligned vectors at known places; lanes."""
    buffers: list[Any] = []
    accesses: list[Any] = []
    structural_walk(
        body,
        [
            (tirx.AllocBuffer, lambda stmt: buffers.append(stmt.buffer)),
            (tvm.ir.TensorLoad, accesses.append),
            (tirx.BufferStore, accesses.append),
        ],
    )
    allocated = {_pointer(buffer): buffer for buffer in buffers}
    places: dict[Any, list[tuple[int, int] | None]] = {}
    for access in accesses:
        buffer = _buffer(access)
        data = _pointer(buffer)
        if data in allocated:
            same = buffer.dtype == allocated[data].dtype
            places.setdefault(data, []).append(_place(access) if same else None)
    tiles: dict[Any, tuple[Any, int]] = {}
    for data, found in places.items():
        known = [place for place in found if place is not None]
        lanes = max((n for _, n in known), default=1)
        inside = all(n == 1 or (n == lanes and start % lanes == 0) for start, n in known)
        if len(known) == len(found) and inside and _vectors(allocated[data], lanes) > 1:
            tiles[data] = allocated[data], lanes
    return tiles


def _buffer(access: Any) -> Any:
    return access.buffer if isinstance(access, tirx.BufferStore) else access.source


def _pointer(buffer: Any) -> Any:
    """What tells allocations apart: views of one have its pointer, a buffer without a variable for it is its own."""
    return buffer.data if isinstance(buffer.data, tirx.Var) else buffer


def _place(access: Any) -> tuple[int, int] | None:
    """(first element, how many) of an access, None where it is not at a constant place."""
    if len(access.indices) != 1:
        return None
    index = access.indices[0]
    if isinstance(index, tirx.IntImm):
        return int(index), 1
    if not isinstance(index, tirx.Ramp) or not isinstance(index.base, tirx.IntImm) or int(index.stride) != 1:
        return None
    return int(index.base), int(index.lanes)


def _vectors(buffer: Any, lanes: int) -> int:
    return -(-prod(int(d) for d in buffer.shape) // lanes)


def _split(body: Any, tiles: dict[Any, tuple[Any, int]]) -> Any:
    parts = {
        data: [
            tirx.decl_buffer((lanes,), str(buffer.dtype), name=f"{buffer.name}_{i}")
            for i in range(_vectors(buffer, lanes))
        ]
        for data, (buffer, lanes) in tiles.items()
    }

    def at(access: Any) -> tuple[Any, Any]:
        start, count = _place(access) or (0, 1)
        data = _pointer(_buffer(access))
        number, lane = divmod(start, tiles[data][1])
        return parts[data][number], tirx.Ramp(0, 1, count) if count > 1 else tirx.const(lane, "int32")

    def load(access: Any) -> Any:
        if _pointer(access.source) not in parts:
            return access
        buffer, index = at(access)
        return buffer[index]

    def store(access: Any) -> Any:
        if _pointer(access.buffer) not in parts:
            return access
        buffer, index = at(access)
        return tirx.BufferStore(buffer, access.value, [index])

    def sequence(seq: Any) -> Any:
        statements: list[Any] = []
        for stmt in seq.seq:
            if isinstance(stmt, tirx.AllocBuffer) and _pointer(stmt.buffer) in parts:
                statements += map(tirx.AllocBuffer, parts[_pointer(stmt.buffer)])
            elif not (isinstance(stmt, tirx.DeclBuffer) and _pointer(stmt.buffer) in parts):
                statements.append(stmt)
        return tirx.SeqStmt(statements) if len(statements) != len(seq.seq) else seq

    rules = [(tvm.ir.TensorLoad, load), (tirx.BufferStore, store), (tirx.SeqStmt, sequence)]
    return structural_map(body, rules)
