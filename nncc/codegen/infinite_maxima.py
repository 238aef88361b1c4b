"""Maxima begin at minus infinity and minima at infinity; TVM's begin at the largest finite numbers, which those exceed.

It comes behind the schedules: TVM knows reductions by what they begin with.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import structural_map, tirx, tvm

__all__ = ["infinite_maxima"]


def infinite_maxima(function: Any) -> Any:
    """A scheduled TIR function whose reductions, but for those of templates, begin so."""
    return function.with_body(structural_map(function.body, [(tvm.s_tir.SBlock, _begin)]))


def _begin(block: Any) -> Any:
    if any(key.startswith("nncc.") for key in block.annotations):
        return block
    init, body = block.init, block.body
    if init is not None:
        init = structural_map(init, [(tirx.FloatImm, _infinite)])
    elif str(block.name_hint).endswith("_init"):  # as `decompose_reduction` calls what it takes off
        body = structural_map(body, [(tirx.FloatImm, _infinite)])
    same = body.same_as(block.body) and (init is None or init.same_as(block.init))
    if same:
        return block
    rest = block.alloc_buffers, block.match_buffers, block.annotations
    return tvm.s_tir.SBlock(block.iter_vars, block.reads, block.writes, block.name_hint, body, init, *rest)


def _infinite(number: Any) -> Any:
    dtype, value = str(number.ty.dtype), float(number.value)
    for bound, limit in ((tirx.max_value, float("inf")), (tirx.min_value, float("-inf"))):
        if value == float(bound(dtype).value):
            return tirx.const(limit, dtype)
    return number
