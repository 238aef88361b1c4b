"""Numbers on a grid in Relax: (q - zero) scale, what `relax.dequantize` of a tensor stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from nncc.compat import GenericConst, constant_array, relax

__all__ = ["Grid", "grid_of", "is_quantized", "named", "swaps_last_axes"]


@dataclass(frozen=True)
class Grid:
    """A real tensor (q - zero) * scale; `scale` has one number, or one for each position of `axis`."""

    q: Any
    scale: np.ndarray
    """float32, one axis."""
    zero: np.ndarray
    """int64, one axis."""
    axis: int

    @property
    def dtype(self) -> str:
        return str(self.q.ty.dtype)

    @property
    def whole(self) -> bool:
        """Whether all of the tensor has one scale and one zero point."""
        return self.scale.size == 1 and self.zero.size == 1

    def same(self, other: Grid) -> bool:
        """Whether equal integers are equal numbers on both."""
        alike = self.dtype == other.dtype and self.axis == other.axis
        return alike and np.array_equal(self.scale, other.scale) and np.array_equal(self.zero, other.zero)


def named(expr: Any, *names: str) -> TypeGuard[Any]:
    """Whether an expression is a call of one of these Relax operators."""
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", "") in names


def swaps_last_axes(call: Any) -> TypeGuard[Any]:
    """Whether an expression exchanges the last two axes of a tensor, and no others."""
    if not named(call, "relax.permute_dims") or call.attrs.axes is None:
        return False
    axes = [int(axis) for axis in call.attrs.axes]
    last = len(axes) - 1
    return last > 0 and axes == [*range(last - 1), last, last - 1]


def grid_of(call: Any) -> Grid | None:
    """The grid of a `relax.dequantize` into float32 by constants; for a `relax.quantize`, the one that it rounds to,
    with what is quantized in place of integers."""
    if not named(call, "relax.dequantize", "relax.quantize"):
        return None
    q, scale, zero = call.args
    if not (isinstance(scale, GenericConst) and isinstance(zero, GenericConst)):
        return None
    real = call.attrs.out_dtype if named(call, "relax.dequantize") else q.ty.dtype
    scales, zeros = constant_array(scale), constant_array(zero)
    if str(real) != "float32" or scales.dtype != np.float32 or max(scales.ndim, zeros.ndim) > 1:
        return None
    axis = int(call.attrs.axis) % max(1, len(q.ty.shape))
    return Grid(q, scales.reshape(-1), zeros.reshape(-1).astype(np.int64), axis)


def is_quantized(module: Any) -> bool:
    """Whether ``main`` has numbers on grids."""
    blocks = module["main"].body.blocks
    return any(named(b.value, "relax.dequantize", "relax.quantize") for block in blocks for b in block.bindings)
