"""Calls of exp and its like as the arithmetic that they stand for, so that they run in vectors: libm takes one element
at a time. `nncc.codegen.vector_functions` says what that arithmetic is.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from nncc.codegen.vector_functions import MATH, Steps
from nncc.compat import structural_map, structural_walk, tirx, tvm

__all__ = ["storage", "vector_math"]


def vector_math(interleaved: int = 1) -> Any:
    """The TIR pass; it comes when loops are vectors already and buffers flat.

    Up to `interleaved` stores that follow each other, and do not depend on each other, are computed together, step by
    step: one chain of multiply-adds waits for itself, and the constants are loaded once.
    """

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.VectorMath")
    def apply(function: Any, module: Any, context: Any) -> Any:
        body = function.body
        if interleaved > 1:
            owners = storage(body)
            body = structural_map(body, (tirx.SeqStmt, lambda seq: _interleave(seq, owners, interleaved)))
        return function.with_body(structural_map(body, [(tirx.BufferStore, _expand_store), (tirx.Bind, _expand_bind)]))

    return apply


def storage(body: Any) -> dict[Any, Any]:
    """By buffer that is a view: the buffer whose memory it is."""
    owners: dict[Any, Any] = {}

    def view(stmt: Any) -> None:
        if isinstance(stmt.data, tvm.ir.Call) and len(stmt.data.args):
            owners[stmt.buffer] = owners.get(stmt.data.args[0], stmt.data.args[0])

    structural_walk(body, (tirx.DeclBuffer, view))
    return owners


def _interleave(seq: Any, owners: dict[Any, Any], most: int) -> Any:
    """The sequence with its groups of independent stores computed together."""
    statements: list[Any] = []
    group: list[Any] = []
    written: set[Any] = set()
    read: set[Any] = set()

    def finish() -> None:
        chains = [_expand(store.value) for store in group]
        for steps in zip_longest(*(steps for steps, _ in chains)):
            statements.extend(step for step in steps if step is not None)
        for store, (_, value) in zip(group, chains, strict=True):
            statements.append(tirx.BufferStore(store.buffer, value, store.indices))
        group.clear()
        written.clear()
        read.clear()

    for stmt in _flat(seq):
        reads = _reads(stmt, owners)
        store = isinstance(stmt, tirx.BufferStore) and _computes(stmt.value)
        if store:
            target = owners.get(stmt.buffer, stmt.buffer)
            if len(group) == most or target in read | reads or written & reads:
                finish()
            group.append(stmt)
            written.add(target)
            read |= reads
        else:
            if not isinstance(stmt, tirx.Bind) or _computes(stmt.value) or written & reads:
                finish()
            statements.append(stmt)  # a Bind may go ahead of the stores before it
    finish()
    return tirx.SeqStmt(statements)


def _flat(seq: Any) -> list[Any]:
    return [inner for stmt in seq.seq for inner in (_flat(stmt) if isinstance(stmt, tirx.SeqStmt) else [stmt])]


def _reads(stmt: Any, owners: dict[Any, Any]) -> set[Any]:
    """The memory that a statement reads."""
    found: set[Any] = set()
    structural_walk(stmt, (tvm.ir.TensorLoad, lambda load: found.add(owners.get(load.source, load.source))))
    return found


def _computes(value: Any) -> bool:
    """Whether an expression calls one of our functions."""
    found: list[Any] = []
    structural_walk(value, (tvm.ir.Call, lambda call: found.append(call) if _name(call) in MATH else None))
    return bool(found)


def _name(call: Any) -> str:
    return str(getattr(call.op, "name", "")).rsplit(".", 1)[-1]


def _expand_store(store: Any) -> Any:
    statements, value = _expand(store.value)
    if not statements:
        return store
    return tirx.SeqStmt([*statements, tirx.BufferStore(store.buffer, value, store.indices)])


def _expand_bind(bind: Any) -> Any:
    statements, value = _expand(bind.value)
    return tirx.SeqStmt([*statements, tirx.Bind(bind.var, value)]) if statements else bind


def _expand(value: Any) -> tuple[list[Any], Any]:
    """Statements and the expression that remains of `value`."""
    guarded: list[Any] = []

    def guard(call: Any) -> None:
        if _name(call) == "if_then_else":  # computed ahead, it would read what the condition guards
            structural_walk(call, [(tvm.ir.Call, guarded.append)])

    structural_walk(value, [(tvm.ir.Call, guard)])
    statements: list[Any] = []

    def replace(call: Any) -> Any:
        dtype = str(call.ty.dtype) if hasattr(call.ty, "dtype") else ""
        if _name(call) not in MATH or dtype.split("x")[0] != "float32" or any(call.same_as(g) for g in guarded):
            return call
        steps = Steps(int(dtype.split("x")[1]) if "x" in dtype else 1)
        result = steps.keep(MATH[_name(call)](call.args[0], steps))
        statements.extend(steps.statements)
        return result

    return statements, structural_map(value, (tvm.ir.Call, replace))
