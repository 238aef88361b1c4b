"""Arithmetic as torch computes it: each function takes the ONNX node and its operands (None for a missing one)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from nncc.passes.rewriting import attribute

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

__all__ = ["ARITHMETIC"]

Operator = Callable[..., "Tensor"]


def _plain(function: Callable[..., Tensor]) -> Operator:
    """An operator that needs nothing of its node."""
    return lambda node, *operands: function(*operands)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of operands, two at a time."""

    def apply(node: onnx_ir.Node, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return apply


_sum = _folded(torch.add)


def _mean(node: onnx_ir.Node, *operands: Tensor) -> Tensor:
    return _sum(node, *operands) / len(operands)


def _divide(node: onnx_ir.Node, a: Tensor, b: Tensor) -> Tensor:
    """Integers are rounded towards 0."""
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _clip(node: onnx_ir.Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is None and "min" in node.attributes:
        low = torch.tensor(attribute(node, "min"))
    if high is None and "max" in node.attributes:
        high = torch.tensor(attribute(node, "max"))
    return x if low is None and high is None else torch.clamp(x, low, high)


def _hard_sigmoid(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return torch.clamp(attribute(node, "alpha", 0.2) * x + attribute(node, "beta", 0.5), 0.0, 1.0)


def _selu(node: onnx_ir.Node, x: Tensor) -> Tensor:
    alpha, gamma = attribute(node, "alpha", 1.6732632), attribute(node, "gamma", 1.0507010)  # ONNX's, as floats
    return gamma * F.elu(x, alpha)


def _prelu(node: onnx_ir.Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


ARITHMETIC: dict[str, Operator] = {
    "Abs": _plain(torch.abs),
    "Add": _plain(torch.add),
    "And": _plain(torch.logical_and),
    "Ceil": _plain(torch.ceil),
    "Clip": _clip,
    "Cos": _plain(torch.cos),
    "Div": _divide,
    "Dropout": lambda node, x, *_: x,
    "Elu": lambda node, x: F.elu(x, attribute(node, "alpha", 1.0)),
    "Equal": _plain(torch.eq),
    "Erf": _plain(torch.erf),
    "Exp": _plain(torch.exp),
    "Floor": _plain(torch.floor),
    "Gelu": lambda node, x: F.gelu(x, approximate=attribute(node, "approximate", "none")),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(F.hardswish),
    "Identity": lambda node, x: x,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, attribute(node, "alpha", 0.01)),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Log": _plain(torch.log),
    "Max": _folded(torch.maximum),
    "Mean": _mean,
    "Min": _folded(torch.minimum),
    "Mish": _plain(F.mish),
    "Mul": _plain(torch.mul),
    "Neg": _plain(torch.neg),
    "Not": _plain(torch.logical_not),
    "Or": _plain(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _plain(torch.pow),
    "Reciprocal": _plain(torch.reciprocal),
    "Relu": _plain(F.relu),
    "Selu": _selu,
    "Sigmoid": _plain(torch.sigmoid),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "Sqrt": _plain(torch.sqrt),
    "Sub": _plain(torch.sub),
    "Sum": _sum,
    "Tanh": _plain(torch.tanh),
    "Where": lambda node, condition, a, b: torch.where(condition, a, b),
}
"""Operators that compute each element by itself."""
