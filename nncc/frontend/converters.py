"""ONNX operators that are imported by us and not by TVM's importer: its form is wrong, slow, or missing.

A converter takes (block builder, inputs, attributes) and returns a Relax expression, or None to leave the node to
TVM's; an input that is left out is None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax

__all__ = ["CONVERTERS"]


def clip(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """min(max(x, low), high), elementwise; a bound that is NaN or left out does not bound.

    TVM's makes four operators of it, which nothing is fused with.
    """
    x, *bounds = inputs
    bounds = [*bounds, None, None][:2]
    for i, name in enumerate(("min", "max")):
        if name in attributes:  # before opset 11
            bounds[i] = relax.const(attributes[name], str(x.ty.dtype))
    result = x
    for bound, apply, is_max in zip(bounds, (relax.op.maximum, relax.op.minimum), (False, True), strict=True):
        if bound is None:
            continue
        if isinstance(bound, GenericConst):
            if np.isnan(constant_array(bound)).any():
                continue
            bound = relax.const(constant_array(bound).reshape(()), str(x.ty.dtype))
        elif "float" in str(x.ty.dtype):
            unbounded = relax.const(np.inf if is_max else -np.inf, str(x.ty.dtype))
            bound = builder.emit(relax.op.where(relax.op.isnan(bound), unbounded, bound))
        result = builder.emit(apply(result, bound))
    return result


def pad(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """A constant, mirrored or repeated border of constant widths as one operator, which keeps its layout open.

    TVM's makes a kernel of it at once.
    """
    modes = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
    mode = modes.get(_text(attributes.get("mode", "constant")))
    x, amounts, filler, axes = [*inputs, None, None, None][:4]
    if mode is None or axes is not None or not isinstance(amounts, GenericConst):
        return None
    if filler is not None and not isinstance(filler, GenericConst):
        return None
    widths = [int(n) for n in constant_array(amounts)]
    rank = len(x.ty.shape)
    if len(widths) != 2 * rank or (min(widths) < 0 and mode != "constant") or str(x.ty.dtype) != "float32":
        return None
    value = float(constant_array(filler).reshape(())) if filler is not None else 0.0
    pairs = [width for axis in range(rank) for width in (widths[axis], widths[rank + axis])]
    return relax.op.nn.pad(x, pairs, mode, value)


def _by_element(builder: Any, parameter: Any, block_size: int, axis: int, shape: Sequence[int]) -> Any:
    """Scales or zero points of blocks along `axis`, one for each element of a tensor of `shape`."""
    if isinstance(parameter, GenericConst):
        repeated = np.repeat(constant_array(parameter), block_size, axis=axis)
        return relax.const(np.ascontiguousarray(np.take(repeated, range(shape[axis]), axis=axis)))
    repeated = builder.emit(relax.op.repeat(parameter, block_size, axis))
    return builder.emit(relax.op.strided_slice(repeated, [axis], [0], [shape[axis]]))


def _axis(x: Any, attributes: dict[str, Any]) -> int:
    axis, rank = int(attributes.get("axis", 1)), len(x.ty.shape)
    return axis + rank if axis < 0 else axis


def dequantize_linear(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """(x - zero_point) * scale, for scales of blocks; those of constants give a constant. Others are left to TVM's."""
    x, scale, zero = [*inputs, None][:3]
    block_size = int(attributes.get("block_size", 0))
    if not block_size:
        return None
    shape, axis = [int(d) for d in x.ty.shape], _axis(x, attributes)
    parts = [
        _by_element(builder, part, block_size, axis, shape) for part in ([scale] if zero is None else [scale, zero])
    ]
    if all(isinstance(part, GenericConst) for part in (x, *parts)):
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
    high = builder.emit(relax.op.maximum(builder.emit(relax.op.max(x)), zero))
    low = builder.emit(relax.op.minimum(builder.emit(relax.op.min(x)), zero))
    width = builder.emit(relax.op.subtract(high, low))
    empty = builder.emit(relax.op.equal(width, zero))
    scale = builder.emit(relax.op.where(empty, one, builder.emit(relax.op.divide(width, most))))
    point = builder.emit(relax.op.subtract(zero, builder.emit(relax.op.divide(low, scale))))
    bounded = builder.emit(relax.op.minimum(builder.emit(relax.op.maximum(point, zero)), most))
    zero_point = builder.emit(relax.op.astype(builder.emit(relax.op.round(bounded)), "uint8"))
    integers = builder.emit(relax.op.quantize(x, scale, zero_point, axis=0, out_dtype="uint8"))
    return relax.Tuple([integers, scale, zero_point])


_CONVOLUTIONS = {3: ("conv1d", "NCW", "OIW"), 4: ("conv2d", "NCHW", "OIHW"), 5: ("conv3d", "NCDHW", "OIDHW")}
"""By rank: the operator and its layouts."""


def conv_integer(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """sum((x - x_zero_point) * (w - w_zero_point)) in int32, exactly; padded with x_zero_point."""
    x, weight, x_zero, w_zero = [*inputs, None, None][:4]
    rank = len(x.ty.shape)
    if _text(attributes.get("auto_pad", "NOTSET")) != "NOTSET" or rank not in _CONVOLUTIONS:
        raise ValueError(
            "ConvInteger with automatic padding that depends on dilation, or of more than three dimensions"
        )
    name, data_layout, kernel_layout = _CONVOLUTIONS[rank]

    def steps(value: Any, zero: Any) -> Any:
        if isinstance(value, GenericConst) and (zero is None or isinstance(zero, GenericConst)):
            array = constant_array(value).astype(np.int32)
            if zero is not None:
                points = constant_array(zero).astype(np.int32)
                array = array - (points.reshape(-1, *(1,) * (rank - 1)) if points.size > 1 else points.reshape(()))
            return relax.const(array)
        wide = builder.emit(relax.op.astype(value, "int32"))
        if zero is None:
            return wide
        points = builder.emit(relax.op.astype(zero, "int32"))
        count = int(np.prod([int(d) for d in zero.ty.shape], dtype=np.int64))
        points = builder.emit(relax.op.reshape(points, (count, *(1,) * (rank - 1)) if count > 1 else ()))
        return builder.emit(relax.op.subtract(wide, points))

    return getattr(relax.op.nn, name)(
        steps(x, x_zero),
        steps(weight, w_zero),
        strides=attributes.get("strides", 1),
        padding=attributes.get("pads", 0),
        dilation=attributes.get("dilations", 1),
        groups=attributes.get("group", 1),
        data_layout=data_layout,
        kernel_layout=kernel_layout,
        out_dtype="int32",
    )


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


CONVERTERS: dict[str, Callable[[Any, Sequence[Any], dict[str, Any]], Any]] = {
    "Clip": clip,
    "ConvInteger": conv_integer,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "Pad": pad,
    "QuantizeLinear": quantize_linear,
}
"""By operator of the standard domain."""
