"""MatMul of half precision: computed in float32, and rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax

__all__ = ["matmul"]

_HALVES = ("float16", "bfloat16")
"""Types whose sums would lose what float32 keeps."""


def matmul(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """a b, of half precision with sums in float32; other types are TVM's."""
    a, b = inputs[:2]
    dtype = str(a.ty.dtype)
    if dtype not in _HALVES:
        return None
    wide = [builder.emit(relax.op.astype(each, "float32")) for each in (a, b)]
    return relax.op.astype(builder.emit(relax.op.matmul(*wide)), dtype)
