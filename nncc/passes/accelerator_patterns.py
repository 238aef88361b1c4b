"""What of a network of integers an accelerator computes at once: chains of Relax calls, found from their product on.

    q = Q(relax(DQ(conv(x, w) + b)))         a product, its sums scaled by channel, and rounded to int8
    s = Q(ra (q - z) + (rb (r - z) + f))     its sum with another tensor of int8, as `nncc.passes.requantize` writes it

`OnHost` says why a product is none of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, static_shape
from nncc.passes.quantization import bounds
from nncc.passes.relax_grids import grid_of, named

__all__ = ["Graph", "OnHost", "Requantized", "Sum", "is_product", "requantized", "sum_of"]

_LEAST, _ = bounds("int8")


class OnHost(Exception):
    """A layer stays on the host, for a reason."""


@dataclass(frozen=True)
class Graph:
    """What a walk knows of the function that it reads."""

    made: Mapping[Any, Any]
    """By variable, how it is made."""
    readers: Mapping[Any, Sequence[tuple[Any, Any]]]
    """By variable, who reads it, and how each is made; None for the function's result."""
    uses: Mapping[Any, int]
    """By variable, how often it is read."""

    def reader(self, variable: Any, what: str) -> tuple[Any, Any]:
        """The only reader of a value; OnHost where there are more, or it is a result of the model."""
        found = self.readers[variable]
        if self.uses[variable] != 1 or found[0][0] is None:
            raise OnHost(
                f"{what} are read by several operators" if self.uses[variable] > 1 else f"{what} leave the model"
            )
        return found[0]


@dataclass(frozen=True)
class Sum:
    """clip(round(ra (a - least) + (rb (b - least) + fixed))) of two int8 tensors, counted from the least one on."""

    operands: tuple[Any, Any]
    """Variables."""
    ratios: tuple[float, float]
    fixed: float
    inside: tuple[Any, ...]
    """The variables between the operands and the result."""


@dataclass(frozen=True)
class Requantized:
    """A product of int8 by constants whose sums, plus a bias, are scaled and rounded to int8."""

    product: Any
    """The call of ``nn.conv2d`` or ``matmul``, into int32."""
    bias: np.ndarray
    """int32 by output channel."""
    scale: np.ndarray
    """float32 by output channel."""
    zero: int
    relu: bool
    """Whether nothing is below the zero point."""
    end: Any
    """The variable of the rounded result."""
    inside: tuple[Any, ...]
    """The variables before it."""
    residual: Sum | None = None
    """The sum that follows, whose result then is `end`."""

    def added(self, total: Sum, end: Any) -> Requantized:
        """The same with a sum behind it, whose result is `end`."""
        return replace(self, residual=total, end=end, inside=(*self.inside, self.end, *total.inside))


def is_product(call: Any) -> bool:
    """Whether an expression is a convolution or a matrix product of bytes by constants, into int32."""
    if not named(call, "relax.nn.conv2d", "relax.matmul") or str(call.ty.dtype) != "int32":
        return False
    return str(call.args[0].ty.dtype) in ("uint8", "int8") and isinstance(call.args[1], GenericConst)


def requantized(graph: Graph, variable: Any) -> Requantized:
    """The chain behind the product that `variable` is bound to; OnHost where it does not end in int8."""
    product = graph.made[variable]
    if str(product.args[0].ty.dtype) != "int8":
        raise OnHost(f"its input is {product.args[0].ty.dtype}, which is part of the model's interface")
    axis = 1 if named(product, "relax.nn.conv2d") else len(product.ty.shape) - 1
    channels = static_shape(product)[axis]
    bias, inside = np.zeros(channels, np.int64), [variable]
    at, call = graph.reader(variable, "its sums")
    while named(call, "relax.add") and isinstance(call.args[1], GenericConst):
        bias = bias + _by_channel(call.args[1], axis, len(product.ty.shape), channels)
        inside.append(at)
        at, call = graph.reader(at, "its sums")
    grid = grid_of(call) if named(call, "relax.dequantize") else None
    if grid is None or grid.zero.any() or (grid.scale.size > 1 and grid.axis != axis):
        raise OnHost("its sums are not scaled by channel")
    scale = np.ascontiguousarray(np.broadcast_to(grid.scale, [channels]))
    inside.append(at)
    at, call = graph.reader(at, "its real numbers")
    relu = named(call, "relax.nn.relu")
    if relu:
        inside.append(at)
        at, call = graph.reader(at, "its real numbers")
    if named(call, "relax.add"):
        raise OnHost("a tensor is added to its real numbers: a bias that is not on their grid, or no int8")
    result = grid_of(call) if named(call, "relax.quantize") else None
    if result is None or not result.whole or result.scale[0] != 1 or str(call.ty.dtype) != "int8":
        raise OnHost("its real numbers are not rounded to int8 by one scale that joins its own")
    zero = int(result.zero[0])
    wrapped = bias.astype(np.int32)  # as the sums do
    return Requantized(product, wrapped, scale, zero, relu, at, tuple(inside))


def _by_channel(constant: Any, axis: int, rank: int, channels: int) -> np.ndarray:
    array = constant_array(constant)
    shape = (1,) * (rank - array.ndim) + array.shape
    if array.ndim > rank or array.size not in (1, shape[axis]) or shape[axis] not in (1, channels):
        raise OnHost("what is added to its sums is no bias by channel")
    return np.broadcast_to(array.reshape(-1), [channels]).astype(np.int64)


def sum_of(graph: Graph, variable: Any) -> Sum | None:
    """The sum that `variable`, a ``relax.quantize``, rounds; None where it is none of two int8 tensors of one shape."""
    call = graph.made[variable]
    result = grid_of(call)
    if result is None or not result.whole or result.scale[0] != 1 or int(result.zero[0]) != _LEAST:
        return None
    total = graph.made.get(call.args[0])
    if str(call.ty.dtype) != "int8" or not named(total, "relax.add") or graph.uses[call.args[0]] != 1:
        return None
    first, second = total.args
    shifted = graph.made.get(second)
    if not named(shifted, "relax.add") or not isinstance(shifted.args[1], GenericConst):
        return None
    fixed, inside = constant_array(shifted.args[1]), (first, shifted.args[0], second, call.args[0])
    operands, ratios = [], []
    for part in (first, shifted.args[0]):
        grid = grid_of(graph.made.get(part))
        if grid is None or not grid.whole or int(grid.zero[0]) != _LEAST or grid.dtype != "int8":
            return None
        if not isinstance(grid.q, relax.Var) or static_shape(grid.q) != static_shape(call):
            return None
        operands.append(grid.q)
        ratios.append(float(grid.scale[0]))
    if fixed.size != 1 or any(graph.uses[each] != 1 for each in inside):
        return None
    return Sum((operands[0], operands[1]), (ratios[0], ratios[1]), float(fixed.reshape(-1)[0]), inside)
