"""QuantizeLinear and its like, in the forms that TVM's importer gets wrong or lacks; see `converters`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax

__all__ = ["dequantize_linear", "dynamic_quantize_linear", "quantize_linear"]


def _by_element(builder: Any, parameter: Any, block_size: int, axis: int, shape: Sequence[int]) -> Any:
    """Scales or zero points of blocks along `axis`, one for each element of a tensor of `shape`."""
    if isinstance(parameter, GenericConst):
        repeated = np.repeat(constant_array(parameter), block_size, axis=axis)
        return relax.const(np.ascontiguousarray(np.take(repeated, range(shape[axis]), axis=axis)))
    repeated = builder.emit(relax.op.repeat(parameter, block_size, axis))
    return builder.emit(relax.op.strided_slice(repeated, [axis], [0], [shape[axis]]))


def _rows_of_blocks(
    builder: Any, q: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int, block_size: int
) -> Any:
    """A constant, one block a row, dequantized per row and then laid out as it was: passes see what it is made of."""
    moved = np.moveaxis(q, axis, -1)
    rows = np.ascontiguousarray(moved.reshape(-1, block_size))
    each = [relax.const(np.ascontiguousarray(np.moveaxis(part, axis, -1).reshape(-1))) for part in (scale, zero)]
    real = builder.emit(relax.op.dequantize(relax.const(rows), *each, axis=0, out_dtype=str(scale.dtype)))
    whole = builder.emit(relax.op.reshape(real, moved.shape))
    back = np.argsort([*(a for a in range(q.ndim) if a != axis), axis])
    return relax.op.permute_dims(whole, [int(a) for a in back]) if axis != q.ndim - 1 else whole


def _axis(x: Any, attributes: dict[str, Any]) -> int:
    axis, rank = int(attributes.get("axis", 1)), len(x.ty.shape)
    return axis + rank if axis < 0 else axis


def dequantize_linear(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """(x - zero_point) * scale, for scales of blocks. Others are left to TVM's."""
    x, scale, zero = [*inputs, None][:3]
    block_size = int(attributes.get("block_size", 0))
    if not block_size:
        return None
    shape, axis = [int(d) for d in x.ty.shape], _axis(x, attributes)
    given = [part for part in (x, scale, zero) if part is not None]
    constant = all(isinstance(part, GenericConst) for part in given)
    if constant and zero is not None and not shape[axis] % block_size:
        q, steps, origin = (constant_array(part) for part in given)
        return _rows_of_blocks(builder, q, steps, origin, axis, block_size)
    parts = [_by_element(builder, part, block_size, axis, shape) for part in given[1:]]
    if constant:
        q, real, *zeros = [constant_array(part) for part in (x, *parts)]
        steps = q.astype(np.int32) - zeros[0] if zeros else q.astype(np.int32)
        return relax.const(steps.astype(real.dtype) * real)
    steps = builder.emit(relax.op.astype(x, "int32"))
    if zero is not None:
        steps = builder.emit(relax.op.subtract(steps, builder.emit(relax.op.astype(parts[1], "int32"))))
    return relax.op.multiply(builder.emit(relax.op.astype(steps, str(scale.ty.dtype))), parts[0])


def quantize_linear(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """saturate(round(x / scale) + zero_point), for scales of blocks and for data of float16. Others are left to TVM's.

    The quotient of float16 is taken in float32, as ONNX Runtime does, unless ``precision`` says float16.
    """
    x, scale, zero = [*inputs, None][:3]
    block_size = int(attributes.get("block_size", 0))
    half = str(x.ty.dtype) == "float16"
    if not (block_size or half) or zero is None:
        return None
    shape, axis, dtype = [int(d) for d in x.ty.shape], _axis(x, attributes), str(zero.ty.dtype)
    rounded = half and bool(attributes.get("precision", 0))
    if half and not rounded:
        constant = isinstance(scale, GenericConst)
        x = builder.emit(relax.op.astype(x, "float32"))
        scale = relax.const(constant_array(scale).astype(np.float32)) if constant else relax.op.astype(scale, "float32")
        scale = scale if constant else builder.emit(scale)
    if not block_size and not rounded:
        return relax.op.quantize(x, scale, zero, axis=axis if len(scale.ty.shape) else 0, out_dtype=dtype)
    if block_size:
        scale, zero = (_by_element(builder, part, block_size, axis, shape) for part in (scale, zero))
    elif len(scale.ty.shape):
        row = [-1 if at == axis else 1 for at in range(len(shape))]
        scale, zero = (builder.emit(relax.op.reshape(part, row)) for part in (scale, zero))
    quotient = builder.emit(relax.op.divide(x, scale))
    steps = builder.emit(relax.op.round(builder.emit(relax.op.astype(quotient, "float32")) if rounded else quotient))
    points = builder.emit(relax.op.add(steps, builder.emit(relax.op.astype(zero, "float32"))))
    info = np.iinfo(dtype)
    low, high = (relax.const(np.float32(bound)) for bound in (info.min, info.max))
    bounded = builder.emit(relax.op.minimum(builder.emit(relax.op.maximum(points, low)), high))
    return relax.op.astype(bounded, dtype)


def dynamic_quantize_linear(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """uint8 by the range of the data, zero included: scale = (max - min) / 255, zero point = round(-min / scale).

    Where all is zero the scale is 1 and the zero point 0, as ONNX Runtime has it; TVM's divides by zero.
    """
    x = inputs[0]
    zero, one, most = (relax.const(np.float32(value)) for value in (0, 1, 255))

    def over_all(reduce: Any) -> Any:
        """Row by row first, which runs in vectors."""
        rows = builder.emit(reduce(x, axis=-1)) if len(x.ty.shape) > 1 else x
        return builder.emit(reduce(rows))

    high = builder.emit(relax.op.maximum(over_all(relax.op.max), zero))
    low = builder.emit(relax.op.minimum(over_all(relax.op.min), zero))
    width = builder.emit(relax.op.subtract(high, low))
    empty = builder.emit(relax.op.equal(width, zero))
    scale = builder.emit(relax.op.where(empty, one, builder.emit(relax.op.divide(width, most))))
    point = builder.emit(relax.op.subtract(zero, builder.emit(relax.op.divide(low, scale))))
    bounded = builder.emit(relax.op.minimum(builder.emit(relax.op.maximum(point, zero)), most))
    zero_point = builder.emit(relax.op.astype(builder.emit(relax.op.round(bounded)), "uint8"))
    integers = builder.emit(relax.op.quantize(x, scale, zero_point, axis=0, out_dtype="uint8"))
    return relax.Tuple([integers, scale, zero_point])
