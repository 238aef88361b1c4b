"""The activations of recurrent operators: expressions of one number, and the parameters that ONNX gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nncc.compat import tirx

__all__ = ["ACTIVATIONS", "Function"]


@dataclass(frozen=True)
class Function:
    """An activation: what it makes of an expression, and which of alpha and beta it takes.

    A default is None where ONNX has none, or ONNX Runtime takes another.
    """

    make: Callable[[Any, Any, str], Callable[[Any], Any]]
    """Of alpha, beta, which are constants of the dtype, and the dtype: a function from expression to expression."""
    takes_alpha: bool = False
    takes_beta: bool = False
    alpha: float | None = 0.0
    beta: float | None = 0.0

    def of(self, alpha: float, beta: float, dtype: str) -> Callable[[Any], Any]:
        """The function of expressions of `dtype`."""
        return self.make(tirx.const(alpha, dtype), tirx.const(beta, dtype), dtype)


def _zero(dtype: str) -> Any:
    return tirx.const(0.0, dtype)


def _one(dtype: str) -> Any:
    return tirx.const(1.0, dtype)


def _affine(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """alpha x + beta."""
    return lambda x: x * alpha + beta


def _elu(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """x where it is positive, else alpha (e^x - 1)."""
    zero = _zero(dtype)
    return lambda x: tirx.Select(x > zero, x, alpha * (tirx.exp(tirx.min(x, zero)) - _one(dtype)))


def _hard_sigmoid(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """max(0, min(1, alpha x + beta))."""
    return lambda x: tirx.max(tirx.min(x * alpha + beta, _one(dtype)), _zero(dtype))


def _leaky_relu(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """x where it is not negative, else alpha x."""
    return lambda x: tirx.Select(x >= _zero(dtype), x, x * alpha)


def _relu(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """max(0, x)."""
    return lambda x: tirx.max(x, _zero(dtype))


def _scaled_tanh(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """alpha tanh(beta x)."""
    return lambda x: alpha * tirx.tanh(beta * x)


def _sigmoid(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """1 / (1 + e^-x)."""
    return tirx.sigmoid


def _softplus(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """log(1 + e^x), which is max(x, 0) + log(1 + e^-|x|)."""
    zero = _zero(dtype)
    return lambda x: tirx.max(x, zero) + tirx.log(_one(dtype) + tirx.exp(zero - tirx.abs(x)))


def _softsign(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """x / (1 + |x|)."""
    return lambda x: x / (_one(dtype) + tirx.abs(x))


def _tanh(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """tanh x."""
    return tirx.tanh


def _thresholded_relu(alpha: Any, beta: Any, dtype: str) -> Callable[[Any], Any]:
    """x where it is at least alpha, else 0."""
    return lambda x: tirx.Select(x >= alpha, x, _zero(dtype))


ACTIVATIONS = {
    "affine": Function(_affine, True, True, alpha=None),
    "elu": Function(_elu, True, alpha=1.0),
    "hardsigmoid": Function(_hard_sigmoid, True, True, 0.2, 0.5),
    "leakyrelu": Function(_leaky_relu, True, alpha=0.01),
    "relu": Function(_relu),
    "scaledtanh": Function(_scaled_tanh, True, True, None, None),
    "sigmoid": Function(_sigmoid),
    "softplus": Function(_softplus),
    "softsign": Function(_softsign),
    "tanh": Function(_tanh),
    "thresholdedrelu": Function(_thresholded_relu, True, alpha=None),
}
"""By ONNX's name in small letters."""
