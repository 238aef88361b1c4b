"""Numbers that are rounded to a grid are divided by its scale where they are made.

    Q(f(r), s) = Q(f(r / s), 1)        for sums, maxima, clips and means f of real numbers r

with their constants divided too, so that the division joins the scales of what is dequantized, and costs nothing.

Sums, products, means, averages and softmaxes from integers to integers are rounded as ONNX Runtime's kernels for them
round, QLinearAdd (of x86 processors with AVX2), QLinearMul, QLinearGlobalAveragePool, QLinearAveragePool and
QLinearSoftmax:

    Q(sa (a - za) + sb (b - zb), s, z) = Q(a (sa / s) + (b (sb / s) + (z - (sa / s za + sb / s zb))), 1, 0)
    Q(sa (a - za) sb (b - zb), s, z)   = Q((a - za) (b - zb) (sa sb / s) + z, 1, 0)
    Q(mean(sx (x - zx)), s, z)         = Q(sum(x - zx) (sx / (s n)), 1, z)        of n numbers
    Q(average(x), s, z)                = Q(average(x) / s + z, 1, 0)
    Q(softmax(x), s, z)                = Q(softmax(x) floor(1 / s), 1, z)

The first has two fused multiply-adds where the processor has those. An average over the whole image is a mean; other
averages often lie in the middle of two integers, and are rounded on the way as `schedules/pool2d.py` says. The last is
another function where 1 / s is no integer. Where z is added before rounding, bytes with a sign are counted from -128
on, and so rounded as those without are, which ONNX Runtime makes of them on x86.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.quantization import bounds
from nncc.passes.relax_grids import Grid, grid_of, named
from nncc.passes.rewriter import Rewriter

__all__ = ["requantize"]

_HOMOGENEOUS = {
    "relax.add", "relax.subtract", "relax.maximum", "relax.minimum", "relax.multiply", "relax.nn.relu", "relax.mean",
    "relax.nn.avg_pool2d", "relax.nn.max_pool2d", "relax.reshape",
}  # fmt: skip
"""f(x / c) = f(x) / c for c > 0; of a product, one factor is divided."""
_OF_THE_FIRST = ("relax.multiply", "relax.reshape")
"""Of which only the first argument is."""
_BYTES = ("uint8", "int8")
_EXACT_SUMMANDS = 2**24 // 255
"""Numbers below 256 whose sum float32 has without an error, in whatever order."""
_LOWEST = np.float32(-(2.0**20))
"""In units of a byte, beyond all of them."""


def requantize(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.quantize`` of what is made of dequantized numbers; see the module's equations."""
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
        if not divisor > 0:
            return None
        grid = grid_of(call)
        if grid is not None and grid.whole and str(call.ty.dtype) in _BYTES:
            dtype = str(call.ty.dtype)
            moved = self.sum(value, grid, dtype)
            moved = self.product(value, grid, dtype) if moved is None else moved
            moved = self.average(value, grid, dtype) if moved is None else moved
            if moved is not None:
                least = relax.const(np.array(bounds(dtype)[0], dtype), dtype)
                return relax.op.quantize(moved, _ONE, least, call.attrs.axis, call.attrs.out_dtype)
            shares = self.softmax(value, divisor, dtype)
            shares = self.mean(value, divisor, dtype) if shares is None else shares
            if shares is not None:
                return relax.op.quantize(shares, _ONE, zero, call.attrs.axis, call.attrs.out_dtype)
        divided = self.divided(value, divisor)
        if divided is None:
            return None
        return relax.op.quantize(divided, _ONE, zero, call.attrs.axis, call.attrs.out_dtype)

    def operand(self, value: Any, dtype: str) -> Grid | None:
        """The grid of a value of the old function that is dequantized from integers of `dtype`, as a whole."""
        grid = grid_of(self.made.get(value))
        return grid if grid is not None and grid.whole and grid.dtype == dtype and grid.scale[0] > 0 else None

    def sum(self, value: Any, result: Grid, dtype: str) -> Any:
        """A sum of two tensors on grids in units of `result`, its zero point included; None where it is none."""
        call, least = self.made.get(value), bounds(dtype)[0]
        # ONNX Runtime drops a Relu that clips to nothing but what the grid clips to.
        while named(call, "relax.nn.relu") and self.uses[value] == 1 and int(result.zero[0]) == least:
            value, call = call.args[0], self.made.get(call.args[0])
        if not named(call, "relax.add") or self.uses[value] > 1:
            return None
        grids = [self.operand(part, dtype) for part in call.args]
        if grids[0] is None or grids[1] is None:
            return None
        parts = [(part, np.float32(part.scale[0] / result.scale[0])) for part in (grids[0], grids[1])]
        (first, ratio), (second, other) = parts
        rounded = other * np.float32(second.zero[0] - least)
        # ONNX Runtime's compiler fused the other product with the sum.
        zeros = np.float32(np.float64(ratio) * (first.zero[0] - least) + np.float64(rounded))
        fixed = np.float32(result.zero[0] - least) - zeros
        if isinstance(first.q, GenericConst) or prod(static_shape(first.q)) == 1:
            parts.reverse()
        return self.builder.emit(relax.op.add(self.scaled(*parts[0]), self.scaled(*parts[1], fixed)))

    def scaled(self, grid: Grid, ratio: np.float32, fixed: np.float32 | None = None) -> Any:
        """Integers, from the least one on, times a number, plus another."""
        least = bounds(grid.dtype)[0]
        if isinstance(grid.q, GenericConst):  # float64 has the product without an error, as a fused multiply-add does
            real = (constant_array(grid.q).astype(np.float64) - least) * ratio + (
                0.0 if fixed is None else np.float64(fixed)
            )
            return relax.const(real.astype(np.float32), "float32")
        zero = relax.const(np.array(least, grid.dtype), grid.dtype)
        real = self.builder.emit(relax.op.dequantize(self.value(grid.q), relax.const(ratio), zero, 0, "float32"))
        return real if fixed is None else self.builder.emit(relax.op.add(real, relax.const(fixed, "float32")))

    def product(self, value: Any, result: Grid, dtype: str) -> Any:
        """A product of two tensors on grids in units of `result`, its zero point included; None where it is none."""
        call = self.made.get(value)
        if not named(call, "relax.multiply") or self.uses[value] > 1:
            return None
        one, other = (self.operand(part, dtype) for part in call.args)
        if one is None or other is None:
            return None
        ratio = one.scale[0] * other.scale[0] / result.scale[0]
        integers = self.builder.emit(relax.op.multiply(self.centred(one), self.centred(other)))
        scaled = self.builder.emit(relax.op.multiply(integers, relax.const(ratio, "float32")))
        # Which leaves all as it is, but keeps the product, rounded by itself, out of a fused multiply-add.
        scaled = self.builder.emit(relax.op.maximum(scaled, relax.const(_LOWEST, "float32")))
        return self.builder.emit(relax.op.add(scaled, _zero_point(result, dtype)))

    def centred(self, grid: Grid) -> Any:
        """Integers without their zero point, as float32."""
        if isinstance(grid.q, GenericConst):
            return relax.const((constant_array(grid.q).astype(np.int64) - grid.zero[0]).astype(np.float32), "float32")
        zero = relax.const(np.array(grid.zero[0], grid.dtype), grid.dtype)
        return self.builder.emit(relax.op.dequantize(self.value(grid.q), _ONE, zero, 0, "float32"))

    def mean(self, value: Any, divisor: np.float32, dtype: str) -> Any:
        """The mean of a tensor along axes, or the average of each of its images, in units of the result's scale; None
        where it is none of those, or where sums of so many integers are not exact in float32."""
        call = self.made.get(value)
        if not named(call, "relax.mean", "relax.nn.avg_pool2d") or self.uses[value] > 1:
            return None
        shape = static_shape(call.args[0])
        if named(call, "relax.mean"):
            axes = (
                list(range(len(shape))) if call.attrs.axis is None else [int(a) % len(shape) for a in call.attrs.axis]
            )
            keepdims = bool(call.attrs.keepdims)
        elif _is_global(call):
            axes, keepdims = [2, 3], True
        else:
            return None
        grid, count = self.operand(call.args[0], dtype), prod(shape[axis] for axis in axes)
        if grid is None or isinstance(grid.q, GenericConst) or count > _EXACT_SUMMANDS:
            return None
        total = self.builder.emit(relax.op.sum(self.centred(grid), axis=axes, keepdims=keepdims))
        share = grid.scale[0] / (divisor * np.float32(count))
        return self.builder.emit(relax.op.multiply(total, relax.const(share, "float32")))

    def average(self, value: Any, result: Grid, dtype: str) -> Any:
        """Averages of windows in units of `result`, its zero point included; None where they are none."""
        call = self.made.get(value)
        if not named(call, "relax.nn.avg_pool2d") or _is_global(call) or self.operand(call.args[0], dtype) is None:
            return None
        units = self.builder.emit(relax.op.divide(self.value(value), relax.const(result.scale[0], "float32")))
        return self.builder.emit(relax.op.add(units, _zero_point(result, dtype)))

    def softmax(self, value: Any, divisor: np.float32, dtype: str) -> Any:
        """A softmax from integers to integers, in units of the result's scale; None where it is none."""
        call = self.made.get(value)
        if not named(call, "relax.nn.softmax") or self.uses[value] > 1 or self.operand(call.args[0], dtype) is None:
            return None
        units = np.floor(np.float32(1) / divisor)
        return self.builder.emit(relax.op.multiply(self.value(value), relax.const(units, "float32")))

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
        count = 1 if name in _OF_THE_FIRST else len(call.args)
        parts = [self.divided(part, divisor) for part in call.args[:count]]
        if any(part is None for part in parts):
            return None
        rest = [self.value(argument) for argument in call.args[count:]]
        return self.builder.emit(relax.Call(call.op, [*parts, *rest], call.attrs, call.ty_args))


def _zero_point(grid: Grid, dtype: str) -> Any:
    """Counted from the smallest byte of `dtype` on."""
    return relax.const(np.float32(grid.zero[0] - bounds(dtype)[0]), "float32")


def _is_global(pool: Any) -> bool:
    """Whether a pool's only window is the image."""
    size = static_shape(pool.args[0])[2:]
    return tuple(map(int, pool.attrs.pool_size)) == tuple(size) and not any(map(int, pool.attrs.padding))


_ONE = relax.const(np.float32(1), "float32")
