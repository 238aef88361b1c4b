"""Quantized convolutions and matrix products on integers.

    conv(sx (x - zx), sw w) + b  =  sx sw (conv(x, w) + b / (sx sw) - zx sum(w))       outside of the image x is zx
    f(r) / sy = f(r / sy)        for sums, maxima, clips and means f of real numbers r, with their constants divided too

so that a convolution is one of integers into int32, the bias one of int32, and quantizing the result one product for
each element, by sx sw / sy, rounded as ONNX Runtime rounds it. x is uint8 or int8, w is int8; what has another form
stays float32.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter, variables

__all__ = ["integer_products"]

_DATA = ("uint8", "int8")
_LIKE = 1e-4
"""How far the scale of a bias may be from that of the products: they are the same number, rounded twice."""


def integer_products(module: IRModule, context: Context) -> IRModule:
    """Rewrite products of dequantized tensors; see the module's equations."""
    return Integers().rewrite(module)


@dataclass(frozen=True)
class _Grid:
    """A real tensor (q - zero) * scale; `scale` has one number, or one for each position of `axis`."""

    q: Any
    scale: np.ndarray
    zero: np.ndarray
    axis: int

    @property
    def whole(self) -> bool:
        """Whether all of the tensor has one scale and one zero point."""
        return self.scale.size == 1 and self.zero.size == 1


class Integers(Rewriter):
    """Knows how each value of the old function was made, and each of the new one."""

    def __init__(self) -> None:
        super().__init__(
            {
                "relax.nn.conv2d": Integers.conv2d,
                "relax.matmul": Integers.matmul,
                "relax.add": Integers.add,
                "relax.quantize": Integers.quantize,
            }
        )
        self.made: dict[Any, Any] = {}
        self.uses: Counter[Any] = Counter()
        self.fresh: dict[Any, Any] = {}
        """By new variable: the expression that it stands for."""
        self.alone: set[Any] = set()
        """New variables that are read once at most."""

    def rewrite(self, module: IRModule) -> IRModule:
        main = module["main"]
        for block in main.body.blocks:
            for binding in block.bindings:
                self.made[binding.var] = binding.value
                self.uses.update(variables(binding.value))
        self.uses.update(variables(main.body.body))
        return super().rewrite(module)

    def keep(self, variable: Any, new: Any) -> None:
        super().keep(variable, new)
        kept = self.replaced[variable]
        if not isinstance(new, (relax.Var, GenericConst)):
            self.fresh[kept] = new
        if self.uses[variable] <= 1:
            self.alone.add(kept)

    def emit(self, expr: Any) -> Any:
        """Bind a new expression, which is read once."""
        variable = self.builder.emit(expr)
        self.fresh[variable] = expr
        self.alone.add(variable)
        return variable

    # What values are

    def grid(self, expr: Any) -> _Grid | None:
        """The integers behind a dequantized tensor of the old function, in terms of that."""
        call = self.made.get(expr, expr)
        if not isinstance(call, relax.Call) or getattr(call.op, "name", "") != "relax.dequantize":
            return None
        q, scale, zero = call.args
        if not (isinstance(scale, GenericConst) and isinstance(zero, GenericConst)) or str(call.ty.dtype) != "float32":
            return None
        rank = len(call.ty.shape)
        axis = int(call.attrs.axis) % max(1, rank)
        scales, zeros = constant_array(scale), constant_array(zero)
        if scales.dtype != np.float32 or max(scales.ndim, zeros.ndim) > 1:
            return None
        return _Grid(q, scales.reshape(-1), zeros.reshape(-1).astype(np.int64), axis)

    def integers(self, expr: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """A constant of the old function that is dequantized: its integers, and its scales and zero points in a shape
        that is broadcast to theirs."""
        call = self.made.get(expr, expr)
        if not isinstance(call, relax.Call):
            return None
        name = getattr(call.op, "name", "")
        if name in ("relax.permute_dims", "relax.reshape"):
            inner = self.integers(call.args[0])
            if inner is None:
                return None
            q, *grid = inner
            if name == "relax.permute_dims":
                axes = [int(a) for a in call.attrs.axes] if call.attrs.axes is not None else None
                return tuple(np.transpose(array, axes) for array in (q, *grid))  # type: ignore[return-value]
            shape = static_shape(call)
            full = [np.broadcast_to(array, q.shape).reshape(shape) for array in (q, *grid)]
            return full[0], full[1], full[2]
        found = self.grid(expr)
        if found is None or not isinstance(found.q, GenericConst):
            return None
        q = constant_array(found.q)
        shape = [1] * q.ndim
        if q.ndim:
            shape[found.axis] = -1
        parts = [array.reshape(shape if array.size > 1 else [1] * q.ndim) for array in (found.scale, found.zero)]
        return q, parts[0], parts[1]

    def weights(self, expr: Any, kept: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Constant weights as int8 without zero points, and their scales, one for each position of the axis `kept`."""
        found = self.integers(expr)
        if found is None or found[0].dtype not in (np.int8, np.uint8):
            return None
        q, scale, zero = found
        centred = q.astype(np.int32) - zero.astype(np.int32)
        rows = np.moveaxis(np.broadcast_to(scale, q.shape), kept, 0).reshape(q.shape[kept], -1)
        if centred.size == 0 or abs(centred).max() > 127 or (rows != rows[:, :1]).any():
            return None
        return centred.astype(np.int8), np.ascontiguousarray(rows[:, 0])

    # Products

    def conv2d(self, call: Any) -> Any:
        data, weight = self.grid(call.args[0]), self.weights(call.args[1], 0)
        attrs = call.attrs
        if data is None or weight is None or not data.whole or str(data.q.ty.dtype) not in _DATA:
            return None
        if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW":
            return None
        kernel, scale = weight
        zero = int(data.zero[0])
        x = self.value(data.q)
        padding = [int(p) for p in attrs.padding]
        if zero and any(padding):
            top, left, bottom, right = padding
            x = self.emit(relax.op.nn.pad(x, [0, 0, 0, 0, top, bottom, left, right], "constant", zero))
            padding = [0, 0, 0, 0]
        product = relax.op.nn.conv2d(
            x, relax.const(kernel, "int8"), attrs.strides, padding, attrs.dilation, int(attrs.groups), out_dtype="int32"
        )
        return self.real(product, data, scale, -zero * kernel.astype(np.int64).sum(axis=(1, 2, 3)), 1)

    def matmul(self, call: Any) -> Any:
        data, weight = self.grid(call.args[0]), self.weights(call.args[1], -1)
        if data is None or weight is None or not data.whole or str(data.q.ty.dtype) not in _DATA:
            return None
        matrix, scale = weight
        if matrix.ndim != 2 or len(static_shape(call.args[0])) < 2:
            return None
        product = relax.op.matmul(self.value(data.q), relax.const(matrix, "int8"), out_dtype="int32")
        return self.real(product, data, scale, -int(data.zero[0]) * matrix.astype(np.int64).sum(axis=0), -1)

    def real(self, product: Any, data: _Grid, scale: np.ndarray, offset: np.ndarray, axis: int) -> Any:
        """sx sw (product + offset) as an expression; `scale` and `offset` run along `axis`."""
        acc = self.emit(product)
        if offset.any():
            acc = self.emit(relax.op.add(acc, _along(offset, axis, len(acc.ty.shape))))
        return _dequantize(acc, (data.scale * scale).astype(np.float32), axis)

    def add(self, call: Any) -> Any:
        """A bias of int32, on the grid of the products, joins them."""
        for one, other in ((0, 1), (1, 0)):
            product, bias = self.fresh.get(self.value(call.args[one])), self.integers(call.args[other])
            if bias is None or not _is_sum(product) or self.value(call.args[one]) not in self.alone:
                continue
            acc, scale, axis = product.args[0], constant_array(product.args[1]), int(product.attrs.axis)
            rank = len(acc.ty.shape)
            shape = [1] * rank
            shape[axis] = -1
            q, scales, zeros = (array.reshape((1,) * (rank - array.ndim) + array.shape) for array in bias)
            wanted = np.broadcast_to(scale.reshape(-1), [static_shape(acc)[axis]]).reshape(shape)
            if q.size != q.shape[axis] or abs(scales / wanted - 1).max() > _LIKE or zeros.any():
                continue
            offset = np.broadcast_to(q, [int(acc.ty.shape[a]) if a == axis % rank else 1 for a in range(rank)])
            before = self.fresh.get(acc)
            if isinstance(before, relax.Call) and before.op.name == "relax.add":  # the zero point's part
                acc, offset = before.args[0], offset.astype(np.int64) + constant_array(before.args[1])
            return _dequantize(self.emit(relax.op.add(acc, _int32(offset))), scale, axis)
        return None

    # Requantization

    def quantize(self, call: Any) -> Any:
        """Divide what is quantized by the scale where it is made, if that costs nothing."""
        value, scale, zero = call.args
        if not isinstance(scale, GenericConst) or constant_array(scale).size != 1:
            return None
        divisor = np.float32(constant_array(scale).reshape(-1)[0])
        divided = self.divided(self.value(value), divisor) if divisor > 0 else None
        if divided is None:
            return None
        one = relax.const(np.float32(1), "float32")
        return relax.op.quantize(divided, one, zero, call.attrs.axis, call.attrs.out_dtype)

    def divided(self, variable: Any, divisor: np.float32) -> Any:
        """A value of the new function, divided by a constant without a division for each element; None if it cannot
        be."""
        if isinstance(variable, GenericConst) and str(variable.ty.dtype) == "float32":
            return relax.const(constant_array(variable) / divisor, "float32")
        call = self.fresh.get(variable)
        if not isinstance(call, relax.Call):
            return None
        name = call.op.name
        if name == "relax.dequantize":
            q, scale, zero = call.args
            if not isinstance(scale, GenericConst):
                return None
            scales = relax.const((constant_array(scale) / divisor).astype(np.float32), "float32")
            return self.emit(relax.op.dequantize(q, scales, zero, int(call.attrs.axis), "float32"))
        if variable not in self.alone or name not in _HOMOGENEOUS:
            return None
        count = 1 if name == "relax.multiply" else len(call.args)
        parts = [self.divided(part, divisor) for part in call.args[:count]]
        if any(part is None for part in parts):
            return None
        return self.emit(relax.Call(call.op, [*parts, *call.args[count:]], call.attrs, call.ty_args))


_HOMOGENEOUS = {
    "relax.add", "relax.subtract", "relax.maximum", "relax.minimum", "relax.multiply", "relax.nn.relu", "relax.mean",
    "relax.nn.avg_pool2d", "relax.nn.max_pool2d",
}  # fmt: skip
"""f(x / c) = f(x) / c for c > 0; of a product, one factor is divided."""


def _is_sum(expr: Any) -> bool:
    """Whether an expression is a dequantized sum of products."""
    return (
        isinstance(expr, relax.Call)
        and expr.op.name == "relax.dequantize"
        and str(expr.args[0].ty.dtype) == "int32"
        and isinstance(expr.args[1], GenericConst)
    )


def _dequantize(acc: Any, scale: np.ndarray, axis: int) -> Any:
    scale = scale.reshape(-1)
    zero = relax.const(np.zeros(scale.shape, np.int32), "int32")
    if (scale == scale[0]).all():
        scale, zero = scale[:1].reshape(()), relax.const(0, "int32")
    return relax.op.dequantize(acc, relax.const(scale, "float32"), zero, axis, "float32")


def _along(values: np.ndarray, axis: int, rank: int) -> Any:
    shape = [1] * rank
    shape[axis] = -1
    return _int32(values.reshape(shape))


def _int32(values: np.ndarray) -> Any:
    return relax.const(values.astype(np.int64).astype(np.int32), "int32")  # wraps, as the sums do
