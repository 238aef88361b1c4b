"""Kernels whose inner loops are a device function of the prelude (``nncc/runtime/device.cuh``).

A thread block computes a tile of what a template's anchor computes: a device function leaves each thread's part of it
in registers, and the elementwise operators that the kernel is fused with finish it from there:

    float sums[8];
    nncc::conv2d<..>(sums, x, w, blockIdx.x, blockIdx.y, blockIdx.z);
    for each place of the part, if it is inside: y[..] = relu(sums[..] + bias[..])

A reduction that gives too few tiles for all multiprocessors is cut in parts: each part's tile goes to a workspace, and
a second launch adds the parts up and finishes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from nncc import scheduling
from nncc.compat import s_tir, structural_map, structural_walk, tirx, tvm

__all__ = ["Grid", "Registers", "in_tile", "on_grid", "places", "sources"]

_GROUP = 4
"""Floats that are moved at once: 128 bits."""


@dataclass(frozen=True)
class Grid:
    """How a kernel is launched: blocks along x, y and z, and threads of a block."""

    x: int
    y: int
    z: int
    threads: int


@dataclass(frozen=True)
class Registers:
    """What a thread's registers hold of the anchor's tensor.

    `place(x, y, z, thread, number)` gives the indices of the anchor's result and the condition (or None) under which
    they are inside, for the number of a group of `vector` elements, which lie side by side along the last axis of the
    result as it is in memory.
    """

    count: int
    vector: int
    finished: int
    """How many of them hold results in the end: the first ones."""
    place: Callable[..., tuple[Sequence[Any], Any]]
    dtype: str = "float32"


def in_tile(tile: Any, at: tuple[Any, Any], thread: Any, element: Any, rows: int, columns: int) -> tuple[Any, Any, Any]:
    """The row and the column of a thread's `element`, in the tile `at` (down, across) of a matrix product, and the
    condition (or None) under which they are among `rows` and `columns`."""
    row, column = tile.place(thread, element)
    m, n = at[0] * tile.m + row, at[1] * tile.n + column
    conditions = [m < rows] if rows % tile.m else []
    conditions += [n < columns] if columns % tile.n else []
    return m, n, tirx.all(*conditions) if conditions else None


def on_grid(
    sch: Any,
    block: Any,
    call: Callable[..., Sequence[Any]],
    grid: Grid,
    registers: Registers,
    parts: int = 1,
) -> list[str]:
    """Replace the loops of `block`, of the template's parts before it and of the elementwise block behind it by one
    kernel; the names of these blocks.

    `call(x, y, z, thread)` gives the device function's name and its arguments behind the registers: tensors, numbers.
    With `parts`, those of a reduction, `grid.z` counts them innermost, and the second launch is made.
    """
    anchor = sch.get(block)
    consumers = sch.get_consumers(block)
    finish = None
    if len(consumers) == 1 and scheduling.is_spatial(sch, consumers[0]):
        spatial = [int(v.dom.extent) for v in anchor.iter_vars if v.iter_type == 0]
        if scheduling.extents(sch, consumers[0]) == spatial and len(sch.get_producers(consumers[0])) == 1:
            finish = sch.get(consumers[0])
    result = anchor.writes[0].source
    shape = [int(d) for d in result.shape]
    target = _Finish(result, finish)
    parts_of = _made_of(sch, block)
    names = {anchor.name_hint, *parts_of, *([finish.name_hint] if finish is not None else [])}
    nests = []
    root_ref = sch.get_sref(sch.get_sblock("root"))
    root = root_ref.stmt
    before, after = _around(root.body, names)
    gone = [*parts_of.values(), *([result] if finish is not None else [])]
    allocated = [b for b in root.alloc_buffers if not any(b.same_as(other) for other in gone)]
    if parts == 1:
        nests.append(_nest(anchor.name_hint, call, grid, registers, target.store))
    else:
        size = prod(shape)
        space = tirx.decl_buffer((parts, size), str(result.dtype), f"{anchor.name_hint}_parts", layout=None)
        allocated.append(space)

        def keep(at: Sequence[Any], value: Any, z: Any) -> Any:
            return tirx.BufferStore(space, value, [z % parts if grid.z > parts else z, _flat(at, shape)])

        nests.append(_nest(anchor.name_hint, call, grid, registers, keep))
        nests.append(_add_parts(anchor.name_hint, space, shape, parts, target))
    body = tirx.SeqStmt([*before, *nests, *after]) if len(before) + len(nests) + len(after) > 1 else nests[0]
    new = s_tir.SBlock([], [], [], "root", body, None, allocated, [], root.annotations)
    sch.state.replace(root_ref, new)
    return sorted(names)


@dataclass(frozen=True)
class _Finish:
    """Stores a value of the anchor's result: as it is, or through the elementwise block behind it."""

    result: Any
    block: Any

    def store(self, at: Sequence[Any], value: Any, _: Any = None) -> Any:
        if self.block is None:
            return tirx.BufferStore(self.result, value, list(at))
        variables = {v.var: _as(index, str(v.var.ty.dtype)) for v, index in zip(self.block.iter_vars, at, strict=True)}
        store = self.block.body

        def known(load: Any) -> Any:
            return value if load.source.same_as(self.result) else load

        def place(variable: Any) -> Any:
            return variables.get(variable, variable)

        replaced = structural_map(store.value, [(tvm.ir.TensorLoad, known), (tirx.Var, place)])
        indices = [structural_map(index, [(tirx.Var, place)]) for index in store.indices]
        return tirx.BufferStore(store.buffer, replaced, indices)


def _as(index: Any, dtype: str) -> Any:
    if isinstance(index, int):
        return tirx.const(index, dtype)
    return index if str(index.ty.dtype) == dtype else tirx.Cast(dtype, index)


def sources(sch: Any, block: Any) -> list[Any]:
    """The tensors that a block reads, in the order in which its expression has them, those that it writes left out."""
    written = [region.source for region in sch.get(block).writes]
    found = [load.source for load in scheduling.loads(sch, block)]
    return [source for source in found if not any(source.same_as(w) for w in written)]


def _made_of(sch: Any, block: Any) -> dict[str, Any]:
    """The parts of a template that `block` is made of: what each writes, by name."""
    found: dict[str, Any] = {}
    for made in sch.get_producers(block):
        node = sch.get(made)
        if scheduling.PART in node.annotations:
            found |= {node.name_hint: node.writes[0].source, **_made_of(sch, made)}
    return found


def _flat(at: Sequence[Any], shape: Sequence[int]) -> Any:
    index: Any = 0
    for i, size in zip(at, shape, strict=True):
        index = index * size + i
    return index


def places(index: Any, shape: Sequence[int]) -> list[Any]:
    """The indices of element number `index`."""
    at: list[Any] = []
    for size in reversed(shape[1:]):
        at.insert(0, index % size)
        index = index // size
    return [index, *at]


def _around(body: Any, names: set[str]) -> tuple[list[Any], list[Any]]:
    """The nests before and behind those of the blocks called `names`."""
    statements = list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]
    owners = []
    for statement in statements:
        found: list[Any] = []
        structural_walk(statement, [(s_tir.SBlock, found.append)])
        owners.append(any(block.name_hint in names for block in found))
    first, last = owners.index(True), len(owners) - owners[::-1].index(True)
    return statements[:first], statements[last:]


def _loop(name: str, extent: int, kind: Any, body: Callable[[Any], Any], tag: str = "") -> Any:
    variable = tirx.Var(name, "int32")
    thread = tirx.IterVar(tvm.ir.Range(0, extent), tirx.Var(tag, "int32"), 1, tag) if tag else None
    return tirx.For(variable, 0, extent, kind, body(variable), thread)


def _bound(tags: Sequence[tuple[str, int]], body: Callable[..., Any], *variables: Any) -> Any:
    """`body` below loops that are bound to thread axes."""
    if not tags:
        return body(*variables)
    (tag, extent), *rest = tags
    kind = tirx.ForKind.THREAD_BINDING
    return _loop(tag.replace(".", "_"), extent, kind, lambda v: _bound(rest, body, *variables, v), tag)


def _nest(name: str, call: Any, grid: Grid, registers: Registers, store: Any) -> Any:
    """One launch: the device function, then the finish of what each thread has."""

    def inside(x: Any, y: Any, z: Any, thread: Any) -> Any:
        sums = tirx.decl_buffer((registers.count,), registers.dtype, "sums", scope="local", layout=None)
        function, *operands = call(x, y, z, thread)
        arguments = [operand.data if hasattr(operand, "data") else operand for operand in operands]
        statements = [tirx.Evaluate(tirx.call_extern("void", function, sums.data, *arguments))]

        def group(number: Any) -> Any:
            at, condition = registers.place(x, y, z, thread, number)

            def element(lane: Any) -> Any:
                *outer, last = at
                value = tirx.BufferLoad(sums, [number * registers.vector + lane])
                return store([*outer, last + lane], value, z)

            if registers.vector > 1:
                stored = _loop("lane", registers.vector, tirx.ForKind.VECTORIZED, element)
            else:
                stored = element(0)
            return stored if condition is None else tirx.IfThenElse(condition, stored, None)

        groups = registers.finished // registers.vector
        statements.append(_loop("group", groups, tirx.ForKind.UNROLLED, group) if groups > 1 else group(0))
        block = s_tir.SBlock([], [], [], name, tirx.SeqStmt(statements), None, [sums])
        return s_tir.SBlockRealize([], True, block)

    tags = [("blockIdx.x", grid.x), ("blockIdx.y", grid.y), ("blockIdx.z", grid.z), ("threadIdx.x", grid.threads)]
    return _bound(tags, inside)


def _add_parts(name: str, space: Any, shape: Sequence[int], parts: int, finish: _Finish) -> Any:
    """The second launch: four elements a thread, or one where rows are no multiples."""
    size, threads = prod(shape), 128
    each = _GROUP if shape[-1] % _GROUP == 0 else 1
    blocks = -(-size // (each * threads))

    def inside(x: Any, thread: Any) -> Any:
        first = (x * threads + thread) * each

        def element(lane: Any) -> Any:
            value: Any = tirx.BufferLoad(space, [0, first + lane])
            for part in range(1, parts):
                value = value + tirx.BufferLoad(space, [part, first + lane])
            *outer, last = places(first, shape)
            return finish.store([*outer, last + lane], value)

        stored = _loop("lane", each, tirx.ForKind.VECTORIZED, element) if each > 1 else element(0)
        if size % (each * threads):
            stored = tirx.IfThenElse(first < size, stored, None)
        block = s_tir.SBlock([], [], [], f"{name}_sum", stored, None, [])
        return s_tir.SBlockRealize([], True, block)

    return _bound([("blockIdx.x", blocks), ("threadIdx.x", threads)], inside)
