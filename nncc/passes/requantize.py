"""Numbers that are rounded to a grid are divided by its scale where they are made.

    Q(f(r), s) = Q(f(r / s), 1)        for sums, maxima, clips and means f of real numbers r

with their constants divided too, so that the division joins the scales of what is dequantized, and costs nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["requantize"]

_HOMOGENEOUS = {
    "relax.add", "relax.subtract", "relax.maximum", "relax.minimum", "relax.multiply", "relax.nn.relu", "relax.mean",
    "relax.nn.avg_pool2d", "relax.nn.max_pool2d",
}  # fmt: skip
"""f(x / c) = f(x) / c for c > 0; of a product, one factor is divided."""


def requantize(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.quantize`` of what is made of dequantized numbers; see the module's equation."""
    return _Requantize().rewrite(module)


class _Requantize(Rewriter):
    """Knows how each value of the old function is made, and how often it is read."""

    def __init__(self) -> None:
        super().__init__({"relax.quantize": _Requantize.quantize})

    def quantize(self, call: Any) -> Any:
        value, scale, zero = call.args
        if not isinstance(scale, GenericConst) or constant_array(scale).size != 1:
            return None
        divisor = np.float32(constant_array(scale).reshape(-1)[0])
        divided = self.divided(value, divisor) if divisor > 0 else None
        if divided is None:
            return None
        one = relax.const(np.float32(1), "float32")
        return relax.op.quantize(divided, one, zero, call.attrs.axis, call.attrs.out_dtype)

    def divided(self, value: Any, divisor: np.float32) -> Any:
        """A value of the old function, divided by a constant without a division for each element, in the new one;
        None if it cannot be."""
        if isinstance(value, GenericConst) and str(value.ty.dtype) == "float32":
            return relax.const(constant_array(value) / divisor, "float32")
        call = self.made.get(value)
        if not isinstance(call, relax.Call) or not hasattr(call.op, "name"):
            return None
        name = call.op.name
        if name == "relax.dequantize":
            q, scale, zero = call.args
            if not isinstance(scale, GenericConst):
                return None
            scales = relax.const((constant_array(scale) / divisor).astype(np.float32), "float32")
            again = relax.op.dequantize(self.value(q), scales, zero, int(call.attrs.axis), "float32")
            return self.builder.emit(again)
        if self.uses[value] > 1 or name not in _HOMOGENEOUS:
            return None
        count = 1 if name == "relax.multiply" else len(call.args)
        parts = [self.divided(part, divisor) for part in call.args[:count]]
        if any(part is None for part in parts):
            return None
        rest = [self.value(argument) for argument in call.args[count:]]
        return self.builder.emit(relax.Call(call.op, [*parts, *rest], call.attrs, call.ty_args))
