"""Register tiles, however large, as one small buffer a vector.

A tile of registers is one buffer, of which every unrolled access takes one aligned vector, or one lane of one. TVM
moves a buffer of 1024 bytes off the stack, to memory that LLVM cannot make registers of; buffers of one vector each
stay.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

from nncc.compat import structural_map, structural_walk, tirx, tvm

__all__ = ["split_registers"]


def split_registers() -> Any:
    """The TIR pass; it comes when loops are unrolled and buffers flat."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.SplitRegisters")
    def apply(function: Any, module: Any, context: Any) -> Any:
        owners = _owners(function.body)
        tiles = _tiles(function.body, owners)
        return function.with_body(_split(function.body, owners, tiles)) if tiles else function

    return apply


def _owners(body: Any) -> dict[Any, Any]:
    """By local buffer, allocated or a view: the allocated one. Those whose pointer goes elsewhere are left out."""
    owners: dict[Any, Any] = {}
    views: list[Any] = []
    pointers: list[Any] = []

    def pointer(call: Any) -> None:
        if str(getattr(call.op, "name", "")) == "tirx.buffer_data":
            pointers.append(call.args[0])

    structural_walk(
        body,
        [
            (tirx.AllocBuffer, lambda stmt: owners.update({stmt.buffer: stmt.buffer})),
            (tirx.DeclBuffer, views.append),
            (tvm.ir.Call, pointer),
        ],
    )
    taken = Counter(owners[p] for p in pointers if p in owners)
    for stmt in views:
        if isinstance(stmt.data, tvm.ir.Call) and stmt.data.args[0] in owners:
            owners[stmt.buffer] = owners[stmt.data.args[0]]
            taken[owners[stmt.buffer]] -= 1
    return {buffer: owner for buffer, owner in owners.items() if not taken[owner]}


def _tiles(body: Any, owners: dict[Any, Any]) -> dict[Any, int]:
    """The allocated buffers of which all accesses are in aligned vectors at known places, and the vectors' lanes."""
    places: dict[Any, list[tuple[int, int] | None]] = {}

    def access(expr: Any) -> None:
        buffer = _buffer(expr)
        if buffer in owners:
            same = str(buffer.dtype) == str(owners[buffer].dtype)
            places.setdefault(owners[buffer], []).append(_place(expr) if same else None)

    structural_walk(body, [(tvm.ir.TensorLoad, access), (tirx.BufferStore, access)])
    tiles: dict[Any, int] = {}
    for buffer, found in places.items():
        known = [place for place in found if place is not None]
        lanes = max((n for _, n in known), default=1)
        inside = all(n == 1 or (n == lanes and start % lanes == 0) for start, n in known)
        if len(known) == len(found) and inside and _vectors(buffer, lanes) > 1:
            tiles[buffer] = lanes
    return tiles


def _buffer(access: Any) -> Any:
    return access.buffer if isinstance(access, tirx.BufferStore) else access.source


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


def _split(body: Any, owners: dict[Any, Any], tiles: dict[Any, int]) -> Any:
    parts = {
        buffer: [
            tirx.decl_buffer((lanes,), str(buffer.dtype), name=f"{buffer.name}_{i}")
            for i in range(_vectors(buffer, lanes))
        ]
        for buffer, lanes in tiles.items()
    }

    def at(access: Any) -> tuple[Any, Any]:
        owner = owners[_buffer(access)]
        start, count = _place(access) or (0, 1)
        number, lane = divmod(start, tiles[owner])
        return parts[owner][number], tirx.Ramp(0, 1, count) if count > 1 else tirx.const(lane, "int32")

    def split(buffer: Any) -> bool:
        return owners.get(buffer) in parts

    def load(access: Any) -> Any:
        if not split(access.source):
            return access
        buffer, index = at(access)
        return buffer[index]

    def store(access: Any) -> Any:
        if not split(access.buffer):
            return access
        buffer, index = at(access)
        return tirx.BufferStore(buffer, access.value, [index])

    def sequence(seq: Any) -> Any:
        if not any(isinstance(stmt, (tirx.AllocBuffer, tirx.DeclBuffer)) and split(stmt.buffer) for stmt in seq.seq):
            return seq
        statements: list[Any] = []
        for stmt in seq.seq:
            if isinstance(stmt, tirx.AllocBuffer) and split(stmt.buffer):
                statements += map(tirx.AllocBuffer, parts[stmt.buffer])
            elif not (isinstance(stmt, tirx.DeclBuffer) and split(stmt.buffer)):
                statements.append(stmt)
        return tirx.SeqStmt(statements)

    rules = [(tvm.ir.TensorLoad, load), (tirx.BufferStore, store), (tirx.SeqStmt, sequence)]
    return structural_map(body, rules)
