"""Vectors of bytes looked up in tables of 256, by shuffles within 16 bytes.

    t[x]  =  OR_i shuffle(t[16 i : 16 i + 16], sat(x - 16 i + 112))        i = 0 .. 15

The difference is taken modulo 256 and the sum stays below 256, so that from 128 on is what lies outside of the sixteen:
there the shuffle gives 0. The low four bits of the others are those of x. TVM's code generator would look up one by
one.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import structural_map, tirx, tvm

__all__ = ["look_up"]

_SHUFFLES = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}
"""By bytes of a vector."""
_PART = 16
"""Bytes of a table that one shuffle takes from."""
_OUTSIDE = 128


def look_up(most: int) -> Any:
    """The TIR pass; it comes when loops are vectorized and buffers flat. `most` bytes are looked up at once, 0 where
    there are no such shuffles (`nncc.scheduling.lookup_lanes`)."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.LookUp")
    def apply(function: Any, module: Any, context: Any) -> Any:
        return function.with_body(structural_map(function.body, [(tvm.ir.TensorLoad, lambda load: _load(load, most))]))

    return apply


def _load(load: Any, most: int) -> Any:
    source = load.source
    if len(load.indices) != 1 or str(source.dtype) not in ("uint8", "int8"):
        return load
    x = _place(load.indices[0])
    if x is None or [int(d) for d in source.shape if isinstance(d, tirx.IntImm)] != [256]:
        return load
    lanes = int(tvm.DataType(str(x.ty.dtype)).lanes)
    if lanes > most:
        return load
    found = None
    for first in range(0, 256, _PART):
        part = source[tirx.Ramp(first, 1, _PART)]
        order = [tirx.const(at, "int32") for _ in range(lanes // _PART) for at in range(_PART)]
        spread = part if lanes == _PART else tirx.Shuffle([part] * (lanes // _PART), order)
        moved = x - _bytes(first, lanes) if first else x
        outside = _bytes(_OUTSIDE - _PART, lanes)
        index = tirx.call_llvm_pure_intrin(f"uint8x{lanes}", "llvm.uadd.sat", moved, outside)
        arguments = (tirx.reinterpret(f"int8x{lanes}", value) for value in (spread, index))
        value = tirx.call_llvm_pure_intrin(f"int8x{lanes}", _SHUFFLES[lanes], *arguments)
        found = value if found is None else tirx.bitwise_or(found, value)
    return tirx.reinterpret(str(load.ty.dtype), found)


def _place(index: Any) -> Any:
    """The places in a table that a vector of indices stands for, as uint8; None where it is none of bytes."""
    offset = 0
    if isinstance(index, tirx.Add) and isinstance(index.b, tirx.Broadcast) and isinstance(index.b.value, tirx.IntImm):
        index, offset = index.a, int(index.b.value)
    if not isinstance(index, tirx.Cast):
        return None
    kind = tvm.DataType(str(index.value.ty.dtype))
    lanes = int(kind.lanes)
    if lanes not in _SHUFFLES or str(kind).partition("x")[0] != {0: "uint8", 128: "int8"}.get(offset):
        return None
    return tirx.reinterpret(f"uint8x{lanes}", index.value) + _bytes(128, lanes) if offset else index.value


def _bytes(value: int, lanes: int) -> Any:
    return tirx.Broadcast(tirx.const(value, "uint8"), lanes)
