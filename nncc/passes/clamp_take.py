"""Indices that arrive at run time stay inside their tensor.

    take(x, i)  ->  take(x, min(max(i, 0), n - 1))

ONNX says that an index outside of its axis is an error. A kernel that trusted it would read, or crash on, memory that
is not its own; the nearest element costs nothing.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, relax
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["clamp_take"]


def clamp_take(module: IRModule, context: Context) -> IRModule:
    """Rewrite every ``relax.take`` whose indices are not checked."""

    def take(rewriter: Rewriter, call: Any) -> Any:
        if str(call.attrs.mode) != "fast":
            return None
        data, indices = (rewriter.value(a) for a in call.args)
        axis = None if call.attrs.axis is None else int(call.attrs.axis)
        return rewriter.builder.emit(relax.op.take(data, indices, axis, mode="clip"))

    return Rewriter({"relax.take": take}).rewrite(module)
