"""Quantization with gradients: rounding passes the gradient on, saturation does not.

The straight-through estimator of Bengio, Leonard and Courville, "Estimating or Propagating Gradients Through Stochastic
Neurons for Conditional Computation" (2013). Integers are held as float32, in which those of up to 24 bits are exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from nncc.distillation.weights import limits
from nncc.passes.rewriting import attribute

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

__all__ = ["dequantize_linear", "quantize_linear", "rounded"]


def rounded(x: Tensor) -> Tensor:
    """The nearest whole number, ties to the even one; the gradient is that of `x`."""
    return x + (torch.round(x) - x).detach()


class _Whole(torch.autograd.Function):
    """``clamp(round(x / scale) + zero_point, low, high)`` with one scale for all.

    The gradient is that of ``x / scale`` where it is less than 0.5 beyond what the integers reach, and 0 elsewhere. As
    one function it reads and writes less than its steps do.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, scale: Tensor, zero_point: float, low: float, high: float) -> Tensor:
        steps = x / scale
        context.save_for_backward(steps, scale)
        context.limits = low - zero_point - 0.5, high - zero_point + 0.5
        return steps.round().add_(zero_point).clamp_(low, high)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, scale = context.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], steps, *context.limits).div_(scale), *4 * (None,)


def quantize_linear(node: onnx_ir.Node, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    low, high = _limits(node)
    if scale.numel() == 1 and not scale.requires_grad and x.dtype == scale.dtype:
        return _Whole.apply(x, scale.reshape(()), 0.0 if zero_point is None else float(zero_point), low, high)
    scale = _along(node, scale, x)
    whole = rounded(x / scale)
    if zero_point is not None:
        whole = whole + _along(node, zero_point.to(x.dtype), x)
    return torch.clamp(whole, low, high)


def dequantize_linear(node: onnx_ir.Node, q: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    real = q.to(scale.dtype)
    if zero_point is not None:
        real = real - _along(node, zero_point.to(scale.dtype), q)
    return real * _along(node, scale, q)


def _limits(node: onnx_ir.Node) -> tuple[int, int]:
    """The least and the largest integer of what QuantizeLinear makes."""
    import onnx_ir

    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    kind = zero_point.dtype if zero_point is not None else node.outputs[0].dtype
    if given := attribute(node, "output_dtype", 0):
        kind = onnx_ir.DataType(given)
    return limits(kind or onnx_ir.DataType.UINT8)


def _along(node: onnx_ir.Node, numbers: Tensor, x: Tensor) -> Tensor:
    """Scales or zero points as they apply to `x`: one for all, one for each slice of an axis, or one for each block."""
    if numbers.numel() == 1:
        return numbers.reshape(())
    axis = attribute(node, "axis", 1) % x.ndim
    if size := attribute(node, "block_size", 0):
        return numbers.repeat_interleave(size, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.ndim
    shape[axis] = -1
    return numbers.reshape(shape)
