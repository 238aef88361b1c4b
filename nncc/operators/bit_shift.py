"""BitShift by as many bits as the type has, and more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax, tvm

__all__ = ["bit_shift"]


def bit_shift(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """x shifted by y bits; where y is not below the width or negative, as by the width: 0, or the sign to the right."""
    x, y = inputs[:2]
    dtype = str(x.ty.dtype)
    width, signed = tvm.DataType(dtype).bits, not dtype.startswith("u")
    left = attributes.get("direction", b"LEFT") in (b"LEFT", "LEFT")
    beyond = builder.emit(relax.op.greater_equal(y, relax.const(width, dtype)))
    if signed:
        beyond = builder.emit(relax.op.logical_or(beyond, builder.emit(relax.op.less(y, relax.const(0, dtype)))))
    last = relax.const(width - 1 if signed and not left else 0, dtype)
    inside = builder.emit(relax.op.where(beyond, last, y))
    shifted = builder.emit((relax.op.left_shift if left else relax.op.right_shift)(x, inside))
    if signed and not left:  # by one less than the width there is only the sign left
        return shifted
    return relax.op.where(beyond, relax.const(0, dtype), shifted)
