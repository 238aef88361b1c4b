"""Quantizing and dequantizing as one expression an element, which is fused with what is around it.

TVM's own legalization computes in other types and orders; see `nncc.passes.quantization` for the equations.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import GenericConst, IRModule, constant_array, te, topi
from nncc.passes.context import Context
from nncc.passes.quantization import dequantized, quantized
from nncc.passes.rewriter import Rewriter
from nncc.passes.tabulate import looked_up_bytes

__all__ = ["own_quantization", "parameter", "scaled"]


def own_quantization(module: IRModule, context: Context) -> IRModule:
    """Rewrite the ``relax.quantize`` and ``relax.dequantize`` that no other pass took, and what tables stand for."""

    def rule(rewriter: Rewriter, call: Any) -> Any:
        x, scale, zero = call.args
        rank = len(call.ty.shape)
        axis = int(call.attrs.axis) % max(1, rank)
        shape = tuple(-1 if a == axis else 1 for a in range(rank))
        parameters = [parameter(rewriter.value(p), lambda array: array.reshape(shape)) for p in (scale, zero)]
        if any(p is None for p in parameters):
            return None
        return scaled(rewriter, call, rewriter.value(x), *parameters)

    def take(rewriter: Rewriter, call: Any) -> Any:
        q = looked_up_bytes(rewriter.made, call)
        if q is None:
            return None
        return rewriter.emit_anchor(context.templates["table"], rewriter.value(q), call.args[0])

    return Rewriter({"relax.quantize": rule, "relax.dequantize": rule, "relax.take": take}).rewrite(module)


def parameter(expr: Any, spread: Any) -> Any:
    """A scale or zero point: a number, or a Relax constant in the shape that `spread` gives; None if not constant."""
    from nncc.compat import relax

    if not isinstance(expr, GenericConst):
        return None
    array = constant_array(expr)
    if array.size == 1:
        value = array.reshape(-1)[0]
        return float(value) if array.dtype.kind == "f" else int(value)
    laid = spread(array)
    return relax.const(laid, str(laid.dtype))


def scaled(rewriter: Rewriter, call: Any, x: Any, scale: Any, zero: Any) -> Any:
    """Emit `call`, which quantizes or dequantizes, on `x` with parameters of `parameter`."""
    dtype = str(call.ty.dtype)
    is_quantize = call.op.name == "relax.quantize"
    tensors = [p for p in (scale, zero) if not isinstance(p, (int, float))]

    def compute(data: te.Tensor, *given: te.Tensor) -> te.Tensor:
        rest = list(given)
        of_scale, of_zero = (p if isinstance(p, (int, float)) else rest.pop(0) for p in (scale, zero))

        def element(*at: Any) -> Any:
            s, z = (p if isinstance(p, (int, float)) else p[_within(p, at)] for p in (of_scale, of_zero))
            return quantized(data[at], s, z, dtype) if is_quantize else dequantized(data[at], s, z).astype(dtype)

        tag = topi.tag.ELEMWISE if not given else topi.tag.BROADCAST
        return te.compute(data.shape, element, name="quantize" if is_quantize else "dequantize", tag=tag)

    return rewriter.builder.emit_te(compute, x, *tensors, primfunc_name_hint=call.op.name.removeprefix("relax."))


def _within(tensor: te.Tensor, at: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(0 if int(d) == 1 else i for d, i in zip(tensor.shape, at, strict=True))
