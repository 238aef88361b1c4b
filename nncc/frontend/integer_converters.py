"""ConvInteger and MatMulInteger: sums of products of integers in int32, exactly; see `converters`.

    sum((x - zx) w) = sum(x w) - zx sum(w)      sum((x - zx) (w - zw)) = sum(x w) - zw sum(x) - zx sum(w - zw)

with w constant, and in a convolution within [-127, 127] and without a zero point of its own, is a product of bytes,
which kernels of integers take; anything else is widened to int32 first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, static_shape
from nncc.operators.attributes import word

__all__ = ["conv_integer", "matmul_integer"]

_CONVOLUTIONS = {3: ("conv1d", "NCW", "OIW"), 4: ("conv2d", "NCHW", "OIHW"), 5: ("conv3d", "NCDHW", "OIDHW")}
"""By rank: the operator and its layouts."""


def _small(weight: Any, zero: Any, axis: int) -> np.ndarray | None:
    """Constant weights less their zero points, one for all or along `axis`, as int8; None where they do not fit."""
    if not isinstance(weight, GenericConst) or not (zero is None or isinstance(zero, GenericConst)):
        return None
    array = constant_array(weight).astype(np.int32)
    if zero is not None:
        points = constant_array(zero).astype(np.int32)
        array = array - _along(points, axis, array.ndim)
    return array.astype(np.int8) if array.size and abs(array).max() <= 127 else None


def _along(points: Any, axis: int, rank: int) -> Any:
    """Zero points in a shape that is broadcast along `axis`."""
    if points.size == 1:
        return points.reshape(())
    return points.reshape([-1 if at == axis % rank else 1 for at in range(rank)])


def _single(zero: Any) -> bool:
    return zero is None or all(int(d) == 1 for d in zero.ty.shape)


def _less(builder: Any, sums: Any, zero: Any, ones: np.ndarray) -> Any:
    """sums - zero * ones, where `ones` is what data of all ones would give."""
    if zero is None or (isinstance(zero, GenericConst) and not constant_array(zero).any()):
        return sums
    sums = builder.emit(sums)
    if isinstance(zero, GenericConst):
        return relax.op.subtract(sums, relax.const((ones * int(constant_array(zero).reshape(()))).astype(np.int32)))
    wide = builder.emit(relax.op.reshape(builder.emit(relax.op.astype(zero, "int32")), ()))
    return relax.op.subtract(sums, builder.emit(relax.op.multiply(wide, relax.const(ones.astype(np.int32)))))


def matmul_integer(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """sum((a - a_zero_point) * (b - b_zero_point)) of bytes by a constant matrix; TVM's where it is none."""
    a, b, a_zero, b_zero = [*inputs, None, None][:4]
    constants = isinstance(b, GenericConst) and (b_zero is None or isinstance(b_zero, GenericConst))
    if not constants or len(b.ty.shape) != 2 or len(a.ty.shape) < 2 or not _single(a_zero):
        return None
    matrix, points = constant_array(b).astype(np.int32), np.zeros(1, np.int32)
    small = _small(b, b_zero, -1)
    if small is not None:
        matrix = small.astype(np.int32)
    elif b_zero is not None:
        points = constant_array(b_zero).astype(np.int32).reshape(-1)
    if matrix.max(initial=0) > 127:
        matrix, points = matrix - 128, points - 128
    data, bytes_ = a, np.maximum(matrix, -127)
    if extremes := np.flatnonzero((matrix < -127).any(axis=1)).tolist():  # -128 is -127 and -1 of the same data again
        again = builder.emit(relax.op.take(a, relax.const(np.array(extremes, np.int32)), axis=-1))
        data = builder.emit(relax.op.concat([a, again], axis=-1))
        bytes_ = np.concatenate([bytes_, (matrix - bytes_)[extremes]])
    sums = builder.emit(relax.op.matmul(data, relax.const(bytes_.astype(np.int8)), out_dtype="int32"))
    if points.any():
        rows = builder.emit(relax.op.sum(builder.emit(relax.op.astype(a, "int32")), axis=-1, keepdims=True))
        part = builder.emit(relax.op.multiply(rows, relax.const(points)))
        sums = builder.emit(relax.op.subtract(sums, part))
    return _less(builder, sums, a_zero, (matrix - points).sum(axis=0))


def conv_integer(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """sum((x - x_zero_point) * (w - w_zero_point)); outside of the image is x_zero_point."""
    x, weight, x_zero, w_zero = [*inputs, None, None][:4]
    rank = len(x.ty.shape)
    if word(attributes.get("auto_pad", "NOTSET")) != "NOTSET" or rank not in _CONVOLUTIONS:
        raise ValueError(
            "ConvInteger with automatic padding that depends on dilation, or of more than three dimensions"
        )
    name, data_layout, kernel_layout = _CONVOLUTIONS[rank]
    window = {
        "strides": [int(v) for v in attributes.get("strides", [1] * (rank - 2))],
        "padding": [int(v) for v in attributes.get("pads", [0] * 2 * (rank - 2))],
        "dilation": [int(v) for v in attributes.get("dilations", [1] * (rank - 2))],
    }

    def conv(data: Any, kernel: Any) -> Any:
        groups = int(attributes.get("group", 1))
        layouts = {"data_layout": data_layout, "kernel_layout": kernel_layout}
        return getattr(relax.op.nn, name)(data, kernel, groups=groups, out_dtype="int32", **window, **layouts)

    kernel = _small(weight, w_zero, 0)
    if kernel is None or rank != 4 or not _single(x_zero):
        return conv(_widened(builder, x, x_zero, 0), _widened(builder, weight, w_zero, 0))
    sums = builder.emit(conv(x, relax.const(kernel, "int8")))
    return _less(builder, sums, x_zero, _sums_inside(kernel, static_shape(x)[2:], static_shape(sums)[2:], **window))


def _widened(builder: Any, value: Any, zero: Any, axis: int) -> Any:
    """value - zero in int32."""
    wide = builder.emit(relax.op.astype(value, "int32"))
    if zero is None:
        return wide
    points = builder.emit(relax.op.astype(zero, "int32"))
    shape = () if _single(zero) else [-1 if at == axis else 1 for at in range(len(value.ty.shape))]
    return builder.emit(relax.op.subtract(wide, builder.emit(relax.op.reshape(points, shape))))


def _sums_inside(
    kernel: np.ndarray,
    image: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> np.ndarray:
    """Sums of the weights [O, I, KH, KW] that meet the image: [O, 1, 1], or [O, H, W] where some meet its padding."""
    taps = kernel.astype(np.int32).sum(axis=1)
    if not any(padding):
        return taps.sum(axis=(1, 2))[:, None, None]
    sums = np.zeros((len(kernel), *size), np.int32)
    for place in product(*map(range, kernel.shape[2:])):
        meets = []
        for axis, at in enumerate(place):
            rows = np.arange(size[axis]) * strides[axis] + at * dilation[axis] - padding[axis]
            meets.append((rows >= 0) & (rows < image[axis]))
        sums += taps[:, place[0], place[1], None, None] * np.outer(*meets)
    return sums
