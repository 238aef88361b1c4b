"""Claims of an untrusted model about quantization, checked once: scales, zero points, how many there are of them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.grids import operand_or_none
from nncc.passes.qoperators import MICROSOFT, SCALES
from nncc.passes.rewriting import attribute, constant, is_op, node_text, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["check_quantization"]

_AGAIN = "quantize the model again: a scale is a positive, finite number"


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _scale_operands(node: onnx_ir.Node) -> tuple[int, ...]:
    if node.domain not in ("", "ai.onnx", MICROSOFT):
        return ()
    if node.op_type == "QLinearConcat":
        return (0, *range(3, len(node.inputs), 3))
    return SCALES.get(node.op_type, ())


def _check_scales(node: onnx_ir.Node) -> None:
    import numpy as np

    for at in _scale_operands(node):
        value = operand_or_none(node, at)
        scale = constant(value)
        if value is None or scale is None or scale.dtype.kind not in "fViub":
            continue
        numbers = scale.astype(np.float64).reshape(-1)
        for wrong, what in (
            (np.isnan(numbers), "NaN"),
            (np.isinf(numbers), "infinite"),
            (numbers == 0, "zero"),
            (numbers < 0, "negative"),
        ):
            if wrong.any():
                which = f" at index {int(wrong.argmax())}" if numbers.size > 1 else ""
                raise ModelError(f"{node_text(node)} has the scale `{value.name}`, which is {what}{which}", _AGAIN)


def _check_counts(node: onnx_ir.Node) -> None:
    """The scale of a QuantizeLinear or DequantizeLinear fits the axis, and the zero point the scale."""
    x, scale, zero = (operand_or_none(node, at) for at in range(3))
    shape, scales, zeros = static_shape(x), static_shape(scale), static_shape(zero)
    if scales is None or scale is None:
        return
    if zeros is not None and zero is not None and zeros != scales and prod(zeros) != 1:
        raise ModelError(
            f"{node_text(node)} has a scale of shape {_sizes(scales)} and a zero point of shape {_sizes(zeros)}",
            "quantize the model again: both have one shape",
        )
    block_size, axis = (attribute(node, name, default) for name, default in (("block_size", 0), ("axis", 1)))
    if not isinstance(block_size, int) or not isinstance(axis, int):  # com.microsoft: no checker has seen it
        raise ModelError(f"{node_text(node)} has an axis or a block size that is no number")
    if shape is None or (not block_size and scales in ((), (1,))):
        return
    rank = len(shape)
    axis = 0 if (axis, rank) == (1, 1) else axis  # the default; written for biases too
    if not -rank <= axis < rank:
        raise ModelError(f"{node_text(node)} has scales along axis {axis} of a tensor of {rank} dimensions")
    axis %= rank
    size = shape[axis]
    if not block_size:
        if scales != (size,):
            raise ModelError(
                f"{node_text(node)} has scales of shape {_sizes(scales)} for axis {axis}, which has {size} entries",
                "quantize the model again: there is one scale for all, or one for each entry of the axis",
            )
        return
    if block_size < 0 or len(scales) != rank or scales != (*shape[:axis], -(-size // block_size), *shape[axis + 1 :]):
        raise ModelError(
            f"{node_text(node)} has scales of shape {_sizes(scales)} for blocks of {block_size} along axis {axis} of "
            f"{_sizes(shape)}",
            "quantize the model again: there is one scale for each block",
        )


def _check_types(node: onnx_ir.Node) -> None:
    """Integers of one type on both sides, and a zero point that the type allows."""
    x, zero = operand_or_none(node, 0), operand_or_none(node, 2)
    is_quantize = node.op_type == "QuantizeLinear"
    if zero is None or zero.dtype is None:
        return
    asked = attribute(node, "output_dtype", 0) if is_quantize else int(x.dtype or 0) if x is not None else 0
    if asked and int(asked) != int(zero.dtype):
        import onnx_ir

        raise ModelError(
            f"{node_text(node)} has integers of {onnx_ir.DataType(asked).name.lower()} and a zero point of "
            f"{zero.dtype.name.lower()}",
            "quantize the model again: both have one type",
        )
    points = constant(zero)
    if zero.dtype.name == "INT32" and points is not None and points.any():
        raise ModelError(
            f"{node_text(node)} has the zero point `{zero.name}`, which is out of range: that of int32 is 0",
            "quantize the model again",
        )


def check_quantization(graph: onnx_ir.Model) -> None:
    """Raise ModelError for constant parameters of quantization that mean nothing; shapes are inferred before."""
    import onnx_ir

    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        _check_scales(node)
        if is_op(node, "QuantizeLinear", "DequantizeLinear") or (
            node.domain == MICROSOFT and node.op_type in ("QuantizeLinear", "DequantizeLinear")
        ):
            _check_types(node)
            _check_counts(node)
