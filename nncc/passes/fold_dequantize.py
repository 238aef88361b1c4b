"""dequantize(c; s, z) = c': what no kernel of integers has taken by now is a constant of floats.

Runs after the passes that make such kernels, before those that pack weights of floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax
from nncc.passes.context import Context
from nncc.passes.fold_relax import FOLDED, fold
from nncc.passes.rewriter import Rewriter

__all__ = ["fold_dequantize"]


def _dequantized(rewriter: Rewriter, call: Any) -> Any:
    parts = [rewriter.value(argument) for argument in call.args]
    dtype = str(call.attrs.out_dtype)
    if not all(isinstance(part, GenericConst) for part in parts) or dtype not in ("float32", "float16"):
        return None
    q, scale, zero = (constant_array(part) for part in parts)
    row = [-1 if axis == call.attrs.axis % q.ndim else 1 for axis in range(q.ndim)] if q.ndim else []
    scale, zero = (part.reshape(row) if part.size > 1 else part.reshape(()) for part in (scale, zero))
    steps = (q.astype(np.int64) - zero).astype(np.float32)
    return relax.const(np.ascontiguousarray((steps * scale.astype(np.float32)).astype(dtype)))


def fold_dequantize(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``main`` with dequantized constants, and the shape operators behind them, replaced by constants."""
    return Rewriter({**dict.fromkeys(FOLDED, fold), "relax.dequantize": _dequantized}).rewrite(module)
