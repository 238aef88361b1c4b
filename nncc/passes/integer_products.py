"""Quantized convolutions and matrix products on integers.

    conv(sx (x - zx), sw w) + b  =  sx sw (conv(x, w) + b / (sx sw) - zx sum(w))       outside of the image x is zx

so that a convolution is one of integers into int32 and the bias one of int32; `nncc.passes.requantize` makes one
product for each element of what follows. x is uint8 or int8, w is int8; what has another form, or is predicted to be
faster in float32, stays float32, and `Context.layers` knows why.

Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, 2018.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any, TypeGuard

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.kernels.dots import dot_of
from nncc.passes.context import Context
from nncc.passes.integer_costs import slower
from nncc.passes.products_of_activations import Stays, product_of_activations
from nncc.passes.quantization import bounds
from nncc.passes.relax_grids import Grid, grid_of, named
from nncc.passes.rewriter import Rewriter

__all__ = ["integer_products", "takes_groups"]

_DATA = ("uint8", "int8")
_LIKE = 1e-4
"""How far the scale of a bias may be from that of the products: they are the same number, rounded twice."""

_INT32 = np.iinfo(np.int32)


def integer_products(module: IRModule, context: Context) -> IRModule:
    """Rewrite products of dequantized tensors; see the module's equation."""
    return Integers(context).rewrite(module)


class Integers(Rewriter):
    """Knows how each value of the old function was made, and each of the new one."""

    def __init__(self, context: Context) -> None:
        super().__init__(
            {
                "relax.nn.conv2d": _product(Integers.conv2d),
                "relax.nn.conv2d_transpose": _product(Integers.conv2d_transpose),
                "relax.matmul": _product(Integers.matmul),
                **dict.fromkeys(_WITHOUT_TEMPLATE, _product(Integers.without_template)),
                "relax.add": Integers.add,
            }
        )
        self.context = context
        self.dot = dot_of(context.target.hardware)
        self.fresh: dict[Any, Any] = {}
        """By new variable: the expression that it stands for."""
        self.alone: set[Any] = set()
        """New variables that are read once at most."""
        self.ranges: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
        """By new variable, a sum of products without zero points: its least and its greatest value, by channel."""

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

    def is_quantized(self, expr: Any) -> bool:
        """Whether a value of the old function is dequantized, or only moved since."""
        call = self.made.get(expr, expr)
        while named(call, "relax.permute_dims", "relax.reshape"):
            call = self.made.get(call.args[0], call.args[0])
        return named(call, "relax.dequantize")

    def is_of_activations(self, product: Any) -> bool:
        """Whether its second factor is quantized, and no constant."""
        return self.is_quantized(product.args[1]) and self.integers(product.args[1]) is None

    def data(self, expr: Any) -> Grid:
        """The activations of a product, as integers with one scale and one zero point; a number that they are
        multiplied by, as `Gemm` does, is part of the scale.
        """
        call, factor = self.made.get(expr, expr), None
        if named(call, "relax.multiply") and isinstance(call.args[1], GenericConst):
            factor = constant_array(call.args[1])
            is_number = factor.size == 1 and len(call.ty.shape) == len(call.args[0].ty.shape)
            call = self.made.get(call.args[0], call.args[0]) if is_number else call
        if not named(call, "relax.dequantize"):
            raise Stays("its input is not quantized")
        grid = grid_of(call)
        if grid is None:
            raise Stays(
                "the scale or the zero point of its input is no float32 constant for the tensor or its channels"
            )
        if not grid.whole:
            raise Stays("its input has several scales or zero points")
        if grid.dtype not in _DATA:
            raise Stays(f"its input is {grid.dtype}")
        return grid if factor is None else replace(grid, scale=grid.scale * factor.reshape(-1))

    def integers(self, expr: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """A constant of the old function that is dequantized: its integers, and its scales and zero points in a shape
        that is broadcast to theirs."""
        call = self.made.get(expr, expr)
        if named(call, "relax.permute_dims", "relax.reshape"):
            inner = self.integers(call.args[0])
            if inner is None:
                return None
            q, *grid = inner
            if named(call, "relax.permute_dims"):
                axes = [int(a) for a in call.attrs.axes] if call.attrs.axes is not None else None
                return tuple(np.transpose(array, axes) for array in (q, *grid))  # type: ignore[return-value]
            shape = static_shape(call)
            full = [np.broadcast_to(array, q.shape).reshape(shape) for array in (q, *grid)]
            return full[0], full[1], full[2]
        found = grid_of(call) if named(call, "relax.dequantize") else None
        if found is None or not isinstance(found.q, GenericConst):
            return None
        q = constant_array(found.q)
        along = [1] * q.ndim
        if q.ndim:
            along[found.axis] = -1
        parts = [array.reshape(along if array.size > 1 else [1] * q.ndim) for array in (found.scale, found.zero)]
        return q, parts[0], parts[1]

    def weights(self, expr: Any, kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Constant weights as int8 without zero points, and their scales, one for each position of the axis `kept`."""
        found = self.integers(expr)
        if found is None:
            quantized = self.is_quantized(expr)
            raise Stays("its weights are no constants" if quantized else "its weights are not quantized")
        q, scale, zero = found
        if q.dtype not in (np.int8, np.uint8):
            raise Stays(f"its weights are {q.dtype}")
        centred = q.astype(np.int32) - zero.astype(np.int32)
        if centred.size == 0:
            raise Stays("it has no weights")
        if centred.min() < -128 or centred.max() > 127:
            raise Stays("its weights do not fit int8 without their zero points")
        if centred.min() < -127 and self.dot.paired:
            raise Stays("a weight is -128, which this processor's sums of two products do not hold")
        rows = np.moveaxis(np.broadcast_to(scale, q.shape), kept, 0).reshape(q.shape[kept], -1)
        if (rows != rows[:, :1]).any():
            raise Stays("its weights have several scales for one output")
        return centred.astype(np.int8), np.ascontiguousarray(rows[:, 0])

    # Products

    def conv2d(self, call: Any) -> Any:
        data, (kernel, scale) = self.data(call.args[0]), self.weights(call.args[1], 0)
        attrs = call.attrs
        if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW":
            raise Stays(f"its layout is {attrs.data_layout}")
        if reason := slower(call, kernel, data.dtype, self.context):
            raise Stays(reason)
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
        return self.real(product, data, scale, kernel.reshape(len(kernel), -1), 1, offset=-zero)

    def conv2d_transpose(self, call: Any) -> Any:
        """Of x - zx in int16, which the template computes from x."""
        data, (kernel, scale) = self.data(call.args[0]), self.weights(call.args[1], 1)
        attrs = call.attrs
        if int(attrs.groups) != 1 or attrs.data_layout != "NCHW" or attrs.kernel_layout != "IOHW":
            raise Stays("it is transposed and has groups")
        if prod(int(s) for s in attrs.strides) > self.context.templates["conv2d_transpose"].module.MOST_PHASES:
            raise Stays("it is transposed and has large strides")
        if reason := slower(call, kernel, data.dtype, self.context):
            raise Stays(reason)
        x = self.emit(relax.op.astype(self.value(data.q), "int16"))
        if data.zero[0]:
            x = self.emit(relax.op.subtract(x, relax.const(data.zero[0].astype(np.int16), "int16")))
        product = relax.op.nn.conv2d_transpose(
            x,
            relax.const(kernel.astype(np.int16), "int16"),
            attrs.strides,
            attrs.padding,
            attrs.output_padding,
            attrs.dilation,
            out_dtype="int32",
        )
        return self.real(product, data, scale, np.moveaxis(kernel, 1, 0).reshape(len(scale), -1), 1)

    def matmul(self, call: Any) -> Any:
        if self.is_of_activations(call):
            return product_of_activations(self, call)
        data, (matrix, scale) = self.data(call.args[0]), self.weights(call.args[1], -1)
        if matrix.ndim != 2:
            raise Stays("there are several matrices of weights")
        if len(static_shape(call.args[0])) < 2:
            raise Stays("its input has one axis")
        if reason := slower(call, matrix, data.dtype, self.context):
            raise Stays(reason)
        product = relax.op.matmul(self.value(data.q), relax.const(matrix, "int8"), out_dtype="int32")
        return self.real(product, data, scale, matrix.T, -1, offset=-int(data.zero[0]))

    def without_template(self, call: Any) -> Any:
        raise Stays(f"no template takes `{call.op.name.removeprefix('relax.nn.')}`")

    def real(self, product: Any, data: Grid, scale: np.ndarray, rows: np.ndarray, axis: int, *, offset: int = 0) -> Any:
        """sx sw (product + offset sum(w)) as an expression; `scale`, and `rows`, the weights of each output, run along
        `axis`."""
        acc = self.emit(product)
        positive, negative = (part.sum(axis=1, dtype=np.int64) for part in (rows.clip(min=0), rows.clip(max=0)))
        if offset and (positive + negative).any():
            acc = self.emit(relax.op.add(acc, _along(offset * (positive + negative), axis, len(acc.ty.shape))))
        low, high = (bound - int(data.zero[0]) for bound in bounds(data.dtype))
        self.ranges[acc] = low * positive + high * negative, high * positive + low * negative
        return self.dequantize(acc, (data.scale * scale).astype(np.float32), axis)

    @staticmethod
    def dequantize(acc: Any, scale: np.ndarray, axis: int) -> Any:
        """Sums of products as real numbers, an expression; `scale`, or scales along `axis`."""
        scale = scale.reshape(-1)
        zero = relax.const(np.zeros(scale.shape, np.int32), "int32")
        if (scale == scale[0]).all():
            scale, zero = scale[:1].reshape(()), relax.const(0, "int32")
        return relax.op.dequantize(acc, relax.const(scale, "float32"), zero, axis, "float32")

    def add(self, call: Any) -> Any:
        """A bias of int32, on the grid of the products, joins them."""
        for one, other in ((0, 1), (1, 0)):
            product, bias = self.fresh.get(self.value(call.args[one])), self.integers(call.args[other])
            if bias is None or not _is_sum(product) or self.value(call.args[one]) not in self.alone:
                continue
            acc, scale, axis = product.args[0], constant_array(product.args[1]), int(product.attrs.axis)
            rank = len(acc.ty.shape)
            if bias[0].ndim > rank or acc not in self.ranges:
                continue
            shape = [1] * rank
            shape[axis] = -1
            q, scales, zeros = (array.reshape((1,) * (rank - array.ndim) + array.shape) for array in bias)
            wanted = np.broadcast_to(scale.reshape(-1), [static_shape(acc)[axis]]).reshape(shape)
            if q.size != q.shape[axis] or (abs(scales - wanted) > _LIKE * abs(wanted)).any() or zeros.any():
                continue
            offset = np.broadcast_to(q, [int(acc.ty.shape[a]) if a == axis % rank else 1 for a in range(rank)])
            least, most = (part + offset.reshape(-1) for part in self.ranges[acc])
            fits = ((least >= _INT32.min) & (most <= _INT32.max)).reshape(offset.shape)
            if not fits.any():
                continue
            rest = np.where(fits, np.float32(0), offset.astype(np.float32) * wanted)  # of biases that were clipped
            offset = np.where(fits, offset, 0)
            before = self.fresh.get(acc)
            if isinstance(before, relax.Call) and before.op.name == "relax.add":  # the zero point's part
                acc, offset = before.args[0], offset.astype(np.int64) + constant_array(before.args[1])
            total = self.dequantize(self.emit(relax.op.add(acc, _int32(offset))), scale, axis)
            return total if fits.all() else relax.op.add(self.emit(total), relax.const(rest, "float32"))
        return None


_WITHOUT_TEMPLATE = ("relax.nn.conv1d", "relax.nn.conv1d_transpose", "relax.nn.conv3d", "relax.nn.conv3d_transpose")


def _product(rule: Any) -> Any:
    """A rule that tells `Context.layers` what became of a product."""

    def told(integers: Integers, call: Any) -> Any:
        layers = integers.context.layers
        try:
            if integers.context.target.hardware.multiprocessors and (reason := _gpu_lacks(integers, call)):
                raise Stays(reason)
            new = rule(integers, call)
        except Stays as reason:
            quantized = any(map(integers.is_quantized, call.args[:2]))
            layers.stays(call, str(reason) if quantized else "")
            return None
        layers.on_integers(call)
        return new

    return told


def _gpu_lacks(integers: Integers, call: Any) -> str:
    """Why GPUs have no kernel of integers for a product; empty where they have."""
    name = call.op.name.removeprefix("relax.").removeprefix("nn.")
    if name == "conv2d_transpose":
        return f"no template for GPUs takes `{name}`"
    groups = int(call.attrs.groups) if name == "conv2d" else 1
    if not takes_groups(static_shape(call.args[1]), groups, 16):
        return "no template for GPUs takes groups of channels on integers that are no multiple of 16"
    return ""


def takes_groups(weight: tuple[int, ...], groups: int, lanes: int) -> bool:
    """Whether convolutions for GPUs take weights [O, C, ..] of so many groups: of whole blocks of `lanes` channels, or
    of one channel each."""
    if groups == 1 or (weight[1] == 1 and weight[0] == groups):
        return True
    return weight[1] % lanes == 0 and weight[0] // groups % lanes == 0


def _is_sum(expr: Any) -> TypeGuard[Any]:
    """Whether an expression is a dequantized sum of products."""
    return (
        named(expr, "relax.dequantize")
        and str(expr.args[0].ty.dtype) == "int32"
        and isinstance(expr.args[1], GenericConst)
    )


def _along(values: np.ndarray, axis: int, rank: int) -> Any:
    shape = [1] * rank
    shape[axis] = -1
    return _int32(values.reshape(shape))


def _int32(values: np.ndarray) -> Any:
    return relax.const(values.astype(np.int64).astype(np.int32), "int32")  # wraps, as the sums do
