"""x / c = x * (1 / c): a division takes a vector unit some ten multiplications' time, and rounds once less.

Not where whole numbers may depend on that rounding: what goes on to floor, casts to integers, comparisons and the like
without passing through a sum over an axis stays a division, since 49 * (1 / 49) is less than 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter, variables

__all__ = ["divide_by_constants"]

_MIXES = {
    "relax.matmul", "relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d", "relax.nn.conv2d_transpose",
    "relax.nn.softmax", "relax.nn.log_softmax", "relax.nn.layer_norm", "relax.mean", "relax.sum", "relax.variance",
    "relax.erf", "relax.exp", "relax.tanh", "relax.sigmoid", "relax.nn.gelu", "relax.nn.silu",
}  # fmt: skip
"""Operators whose results are rounded in ways of their own, so that no result is exact that was not meant to be."""
_SMOOTH = {
    "relax.add", "relax.subtract", "relax.multiply", "relax.divide", "relax.negative", "relax.maximum",
    "relax.minimum", "relax.clip", "relax.nn.relu", "relax.nn.leakyrelu", "relax.abs", "relax.sqrt", "relax.rsqrt",
    "relax.power", "relax.square", "relax.log", "relax.reshape", "relax.permute_dims", "relax.concat", "relax.split",
    "relax.strided_slice", "relax.squeeze", "relax.expand_dims", "relax.broadcast_to", "relax.max", "relax.min",
    "relax.nn.max_pool2d", "relax.nn.avg_pool2d", "relax.nn.pad",
}  # fmt: skip
"""Operators that give small differences on as small ones."""


def divide_by_constants(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.divide``; see the module's equation."""
    exact = _exact(module["main"])

    def divide(rewriter: Rewriter, call: Any) -> Any:
        x, divisor = call.args
        if str(call.ty.dtype) != "float32" or not isinstance(divisor, GenericConst) or call in exact:
            return None
        inverse = _reciprocal(constant_array(divisor))
        return None if inverse is None else relax.op.multiply(rewriter.value(x), relax.const(inverse, "float32"))

    return Rewriter({"relax.divide": divide}).rewrite(module)


def _reciprocal(array: np.ndarray) -> np.ndarray | None:
    """1 / array, or None where one of its elements is not a normal number."""
    with np.errstate(all="ignore"):
        inverse = (1.0 / array.astype(np.float64)).astype(np.float32)
    smallest = np.finfo(np.float32).smallest_normal
    return inverse if np.isfinite(inverse).all() and (np.abs(inverse) >= smallest).all() else None


def _exact(function: Any) -> set[Any]:
    """The calls whose values reach an operator, not known to be smooth, before one that mixes."""
    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    marked: set[Any] = set()
    exact: set[Any] = set()
    for binding in reversed(bindings):
        value = binding.value
        name = str(getattr(getattr(value, "op", None), "name", ""))
        if binding.var in marked:
            exact.add(value)
        if name in _MIXES or (name in _SMOOTH and binding.var not in marked):
            continue
        if isinstance(value, (relax.Tuple, relax.TupleGetItem, relax.Var)) and binding.var not in marked:
            continue
        marked.update(variables(value))
    return exact
