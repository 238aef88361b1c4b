"""Loops over what repeats are split at the period, when that is a power of two:

    for v in range(n): f(v, v mod m)   =   for o in range(n / m): for i in range(m): f(o m + i, i)

and what n / m leaves follows as a loop of its own. It is not for speed alone: LLVM 22 takes ``v & (m - 1)`` for v where
it vectorizes a loop, and loses the test whether v stays below m.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import structural_map, structural_walk, tirx

__all__ = ["split_periods"]


def split_periods() -> Any:
    """The TIR pass; expressions are to be simplified after it."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.SplitPeriods")
    def apply(function: Any, module: Any, context: Any) -> Any:
        return function.with_body(structural_map(function.body, [(tirx.For, _split)]))

    return apply


def _split(loop: Any) -> Any:
    """The loop, or two nested ones and what is left."""
    if loop.kind != tirx.ForKind.SERIAL or not all(isinstance(n, tirx.IntImm) for n in (loop.min, loop.extent)):
        return loop
    extent, period = int(loop.extent), _period(loop)
    if int(loop.min) or period < 2 or period >= extent:
        return loop
    whole = extent // period
    if extent % period and _allocates(loop.body):  # which can be there once only
        return loop
    outer, inner = (tirx.Var(f"{loop.loop_var.name}_{part}", loop.loop_var.ty) for part in ("o", "i"))
    body = _serial(inner, period, _replaced(loop.body, loop.loop_var, outer * period + inner))
    parts = [_serial(outer, whole, body)]
    if rest := extent % period:
        tail = tirx.Var(f"{loop.loop_var.name}_t", loop.loop_var.ty)
        parts.append(_serial(tail, rest, _replaced(loop.body, loop.loop_var, tail + whole * period)))
    return tirx.SeqStmt(parts) if len(parts) > 1 else parts[0]


def _period(loop: Any) -> int:
    """The largest power of two below the loop's extent by which its variable is divided for a remainder; 1 for none."""
    found = [1]

    def look(node: Any) -> None:
        if isinstance(node.b, tirx.IntImm) and node.a.same_as(loop.loop_var):
            divisor = int(node.b)
            if divisor & (divisor - 1) == 0 and 1 < divisor < int(loop.extent):
                found.append(divisor)

    structural_walk(loop.body, [(tirx.FloorMod, look), (tirx.Mod, look)])
    return max(found)


def _allocates(body: Any) -> bool:
    found: list[Any] = []
    structural_walk(body, [(tirx.AllocBuffer, found.append)])
    return bool(found)


def _serial(variable: Any, extent: int, body: Any) -> Any:
    dtype = str(variable.ty.dtype)
    return tirx.For(variable, tirx.IntImm(dtype, 0), tirx.IntImm(dtype, extent), tirx.ForKind.SERIAL, body)


def _replaced(body: Any, variable: Any, value: Any) -> Any:
    return structural_map(body, [(tirx.Var, lambda var: value if var.same_as(variable) else var)])
