"""Concatenations whose pieces follow each other in memory need no kernel on a GPU: `flatten` lets the kernels that make
the pieces write where they belong.

    concat(x, y, axis)        all axes before `axis` of size 1, the pieces whole vectors of 16 bytes
"""

from __future__ import annotations

from math import prod
from typing import Any

from nncc.compat import IRModule, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["gpu_concatenations"]


def gpu_concatenations(module: IRModule, context: Context) -> IRModule:
    """Rewrite such ``relax.concat`` of float32."""

    def concat(rewriter: Rewriter, call: Any) -> Any:
        fields = rewriter.made.get(call.args[0], call.args[0])
        shape = static_shape(call)
        if not isinstance(fields, relax.Tuple) or not shape or str(call.ty.dtype) != "float32":
            return None
        axis = int(call.attrs.axis) % len(shape) if call.attrs.axis is not None else 0
        sizes = [prod(static_shape(field)) for field in fields.fields]
        # Kernels load and store 16 bytes at once.
        if prod(shape[:axis]) != 1 or any(size % 4 or not size for size in sizes):
            return None
        tensors = [rewriter.value(field) for field in fields.fields]
        if len({str(t) for t in tensors}) < len(tensors):  # one tensor cannot be in two places
            return None
        return rewriter.emit_concatenation(tensors, axis)

    return Rewriter({"relax.concat": concat}).rewrite(module)
