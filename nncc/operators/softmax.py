"""Softmax and LogSoftmax of half precision; other types are TVM's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax
from nncc.operators.operands import cast, dtype_of, shape_of

__all__ = ["log_softmax", "softmax"]


def _of_halves(x: Any, attributes: dict[str, Any]) -> bool:
    """Before opset 13 all axes from `axis` on count: of the last one alone it is the same."""
    rank = len(shape_of(x))
    return dtype_of(x) in ("float16", "bfloat16") and int(attributes.get("axis", -1)) % rank == rank - 1


def softmax(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """e / sum(e) with e = exp(x - max(x)) along the last axis, computed in float32.

    In float16 each step is rounded, as in the standard's definition; in bfloat16 the result alone is: between operators
    of bfloat16 that are fused, kernels hold float32 anyway.
    """
    (x,) = inputs[:1]
    if not _of_halves(x, attributes):
        return None
    dtype = dtype_of(x)
    x = cast(builder, x, "float32")
    if dtype == "bfloat16":
        return cast(builder, builder.emit(relax.op.nn.softmax(x, -1)), dtype)

    def rounded(expr: Any) -> Any:
        return cast(builder, cast(builder, builder.emit(expr), dtype), "float32")

    highest = builder.emit(relax.op.max(x, axis=-1, keepdims=True))
    power = rounded(relax.op.exp(rounded(relax.op.subtract(x, highest))))
    total = rounded(relax.op.sum(power, axis=-1, keepdims=True))
    return cast(builder, builder.emit(relax.op.divide(power, total)), dtype)


def log_softmax(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """x - log(sum(exp(x))) along the last axis, computed in float32 and rounded once."""
    (x,) = inputs[:1]
    if not _of_halves(x, attributes):
        return None
    return cast(builder, builder.emit(relax.op.nn.log_softmax(cast(builder, x, "float32"), -1)), dtype_of(x))
