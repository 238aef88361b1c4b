"""Integer divisions by what is known at run time only: those without a result divide by 1, where processors would stop.

    n / d = -n / 1          n mod d = n mod 1          where d = -1
    n / d = n / 1           n mod d = n mod 1          where d = 0

The least number by -1 is so what wraps around: itself, and 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["safe_divisors"]

_DIVISIONS = ("relax.divide", "relax.floor_divide", "relax.mod", "relax.floor_mod")


def safe_divisors(module: IRModule, context: Context) -> IRModule:
    """Rewrite the integer divisions; see the module's equation."""

    def divide(rewriter: Rewriter, call: Any) -> Any:
        dtype = str(call.args[1].ty.dtype)
        if "int" not in dtype or _is_safe(call.args[1]):
            return None
        number, divisor = (rewriter.value(each) for each in call.args)
        emit, one = rewriter.builder.emit, _constant(1, dtype)
        divided = emit(relax.op.where(emit(relax.op.equal(divisor, _constant(0, dtype))), one, divisor))
        if dtype.startswith("int"):
            minus = emit(relax.op.equal(divisor, _constant(-1, dtype)))
            divided = emit(relax.op.where(minus, one, divided))
            if "div" in call.op.name:
                number = emit(relax.op.where(minus, emit(relax.op.negative(number)), number))
        return relax.Call(call.op, [number, divided], call.attrs, call.ty_args)

    return Rewriter(dict.fromkeys(_DIVISIONS, divide)).rewrite(module)


def _constant(value: int, dtype: str) -> Any:
    return relax.const(np.array(value, dtype), dtype)


def _is_safe(divisor: Any) -> bool:
    """Whether a divisor is a constant that every number can be divided by."""
    return isinstance(divisor, GenericConst) and not np.isin(constant_array(divisor).astype(np.int64), (0, -1)).any()
