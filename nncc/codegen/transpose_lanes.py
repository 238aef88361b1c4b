"""A square of elements, gathered column by column from rows that lie apart, as loads of the rows and a transposition.

    y_p = f(x[s + p], x[s + p + d], .. x[s + p + (l-1) d])   for p = 0 .. l-1

becomes loads of the l rows x[s + i d : s + i d + l], and log2 l times the interleaving of the first half of all rows
with the other: what unpck and zip do. What is read is the same. TVM's code generator would load element by element.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import Analyzer, structural_map, structural_walk, tirx, tvm

__all__ = ["transpose_lanes"]


def transpose_lanes() -> Any:
    """The TIR pass; it comes when loops are vectorized and unrolled and buffers flat."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.TransposeLanes")
    def apply(function: Any, module: Any, context: Any) -> Any:
        return function.with_body(structural_map(function.body, [(tirx.SeqStmt, _sequence)]))

    return apply


def _sequence(seq: Any) -> Any:
    statements, found, at = list(seq.seq), [], 0
    changed = False
    while at < len(statements):
        square = _square(statements, at)
        if square is None:
            found.append(statements[at])
            at += 1
            continue
        found += _transposed(*square)
        at += len(square[0])
        changed = True
    return tirx.SeqStmt(found) if changed else seq


def _square(statements: list[Any], first: int) -> tuple[list[Any], list[Any]] | None:
    """As many stores as a vector has lanes, from `first` on, and of each the load that takes its column."""
    load = _column(statements[first])
    if load is None:
        return None
    lanes = int(load.indices[0].lanes)
    stores = statements[first : first + lanes]
    columns = [_column(store) for store in stores]
    if len(stores) < lanes or lanes & (lanes - 1) or any(column is None for column in columns):
        return None
    start, stride = load.indices[0].base, int(load.indices[0].stride)
    for number, column in enumerate(columns):
        ramp = column.indices[0]
        same = column.source.same_as(load.source) and int(ramp.lanes) == lanes and int(ramp.stride) == stride
        distance = Analyzer().simplify(ramp.base - start) if same else None
        if not isinstance(distance, tirx.IntImm) or int(distance) != number:
            return None
    if any(store.buffer.same_as(load.source) for store in stores):
        return None
    return stores, columns


def _column(store: Any) -> Any:
    """The one load of a store that gathers with a constant stride; None where there is not one."""
    if not isinstance(store, tirx.BufferStore):
        return None
    found: list[Any] = []

    def note(load: Any) -> None:
        (index, *others) = load.indices
        if not others and isinstance(index, tirx.Ramp) and isinstance(index.stride, tirx.IntImm) and index.stride > 1:
            found.append(load)

    structural_walk(store.value, [(tvm.ir.TensorLoad, note)])
    return found[0] if len(found) == 1 else None


def _transposed(stores: list[Any], columns: list[Any]) -> list[Any]:
    lanes, source = len(stores), columns[0].source
    start, stride = columns[0].indices[0].base, int(columns[0].indices[0].stride)
    dtype = f"{source.dtype}x{lanes}"
    statements: list[Any] = []

    def bound(value: Any) -> Any:
        variable = tirx.Var("row", dtype)
        statements.append(tirx.Bind(variable, value))
        return variable

    rows = [bound(source[tirx.Ramp(start + i * stride, 1, lanes)]) for i in range(lanes)]
    halves = [[(lane + half * lanes) // 2 + lane % 2 * lanes for lane in range(lanes)] for half in (0, 1)]
    width = 1
    while width < lanes:
        pairs = list(zip(rows[: lanes // 2], rows[lanes // 2 :], strict=True))
        rows = [
            bound(tirx.Shuffle(list(pair), [tirx.const(lane, "int32") for lane in half]))
            for pair in pairs
            for half in halves
        ]
        width *= 2
    for store, column, row in zip(stores, columns, rows, strict=True):

        def taken(load: Any, column: Any = column, row: Any = row) -> Any:
            return row if load.same_as(column) else load

        value = structural_map(store.value, [(tvm.ir.TensorLoad, taken)])
        statements.append(tirx.BufferStore(store.buffer, value, list(store.indices)))
    return statements
