"""Softmax and LogSoftmax of half precision; other types are TVM's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nncc.compat import relax

__all__ = ["log_softmax", "softmax"]


def _in_single(function: Any) -> Callable[[Any, Sequence[Any], dict[str, Any]], Any]:
    def converter(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
        """exp(x) / sum(exp(x)) along `axis`, or its logarithm, computed in float32 and rounded once."""
        (x,) = inputs[:1]
        dtype, axis = str(x.ty.dtype), int(attributes.get("axis", -1))
        if dtype not in ("float16", "bfloat16") or axis % len(x.ty.shape) != len(x.ty.shape) - 1:
            return None  # before opset 13 all axes from this one on count: of the last one alone it is the same
        return relax.op.astype(builder.emit(function(builder.emit(relax.op.astype(x, "float32")), axis)), dtype)

    return converter


softmax = _in_single(relax.op.nn.softmax)
log_softmax = _in_single(relax.op.nn.log_softmax)
