"""A softmax along the last axis does not care how the others are counted: TVM's importer flattens them to one.

reshape(softmax(reshape(x)))  ->  softmax(x)        where all three have rows of the same length
"""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["softmax_in_place"]


def softmax_in_place(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.reshape`` of a softmax; see the module's equation."""
    bound = {binding.var: binding.value for block in module["main"].body.blocks for binding in block.bindings}

    def source(value: Any, name: str) -> Any:
        """The operand of the call of an operator that a value is, or None."""
        call: Any = bound.get(value) if isinstance(value, relax.Var) else None
        return call.args[0] if isinstance(call, relax.Call) and getattr(call.op, "name", "") == name else None

    def reshape(rewriter: Rewriter, call: Any) -> Any:
        flat = source(call.args[0], "relax.nn.softmax")
        x = source(flat, "relax.reshape")
        if x is None or static_shape(x) != static_shape(call) or not static_shape(x):
            return None
        axis, rank = int(bound[call.args[0]].attrs.axis), len(static_shape(flat))
        if axis % rank != rank - 1 or static_shape(flat)[-1] != static_shape(x)[-1]:
            return None
        return relax.op.nn.softmax(rewriter.value(x), -1)

    return Rewriter({"relax.reshape": reshape}).rewrite(module)
