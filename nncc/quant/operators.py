"""What can be computed on integers: one table of operators, by what they do to scales."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import attribute, constant, is_op, only_use, scalar, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = [
    "ARITHMETIC",
    "FUNCTIONS",
    "MOVEMENT",
    "PRODUCTS",
    "clamps",
    "data_inputs",
    "is_arithmetic",
    "is_float",
    "is_function",
    "is_movement",
    "is_product",
    "is_weight",
    "rank",
    "weight_axis",
    "weight_operand",
]

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Sums of products: what quantization is for."""

ARITHMETIC = (
    "Add",
    "AveragePool",
    "Concat",
    "GlobalAveragePool",
    "Mul",
    "ReduceMean",
    "Resize",
    "Softmax",
    "Sub",
)
"""Operators with a scale of their own on the output (Concat may share its inputs')."""

MOVEMENT = (
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GlobalMaxPool",
    "Identity",
    "MaxPool",
    "Pad",
    "Reshape",
    "Resize",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
"""Operators whose output has no element that the input has not (but zero): scale and zero point stay."""

FUNCTIONS = (
    "Abs",
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
)
"""Functions of one element: on 8 bits, a table of 256 entries."""

_BINARY = ("Add", "Div", "Max", "Min", "Mul", "Sub")
"""Functions of one element too, where the other operand is one constant number (Div: the divisor)."""


def is_float(value: onnx_ir.Value | None) -> bool:
    """Whether it is known to hold float32."""
    import onnx_ir

    return value is not None and value.dtype == onnx_ir.DataType.FLOAT


def rank(value: onnx_ir.Value) -> int | None:
    """Number of dimensions, where known."""
    return None if value.shape is None else len(value.shape)


def data_inputs(node: onnx_ir.Node) -> list[onnx_ir.Value]:
    """The float32 inputs that are computed, in order: no weights, sizes or indices."""
    return [value for value in node.inputs if value is not None and is_float(value) and constant(value) is None]


def is_weight(value: onnx_ir.Value | None) -> bool:
    """Whether it is a constant float32 matrix or larger, with elements, all finite."""
    import numpy as np

    if not is_float(value):
        return False
    array = constant(value)
    return array is not None and array.ndim >= 2 and array.size > 0 and bool(np.isfinite(array).all())


def weight_operand(node: onnx_ir.Node) -> int | None:
    """At which input a product has constant weights; None if it has two activations."""
    if is_weight(node.inputs[1]):
        return 1
    return 0 if is_op(node, "MatMul", "Gemm") and is_weight(node.inputs[0]) else None


def weight_axis(node: onnx_ir.Node, at: int) -> int | None:
    """The axis of output channels of the weights at input `at`; None where there is none (weights on the left).

    ConvTranspose has [in, out/groups, ...]: the groups share their scales.
    """
    weight = node.inputs[at]
    assert weight is not None and weight.shape is not None
    if at == 0:
        return None
    if is_op(node, "Conv"):
        return 0
    if is_op(node, "ConvTranspose"):
        return 1
    if is_op(node, "Gemm"):
        return 0 if attribute(node, "transB", 0) else 1
    return len(weight.shape) - 1 if len(weight.shape) == 2 else None


def is_product(node: onnx_ir.Node) -> bool:
    """A product that integers can compute: with finite constant weights, or of two activations (MatMul only)."""
    if not is_op(node, *PRODUCTS) or not is_float(node.outputs[0]):
        return False
    if weight_operand(node) is not None:
        return len(data_inputs(node)) >= 1
    return is_op(node, "MatMul") and len(data_inputs(node)) == 2


def _is_spatial_mean(node: onnx_ir.Node) -> bool:
    """A mean over all axes but batch and channels, of a tensor of rank 4 or more, or keeping channels in front."""
    axes = attribute(node, "axes")
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant(node.inputs[1])
        axes = None if array is None else [int(axis) for axis in array.reshape(-1)]
    dimensions = rank(node.inputs[0]) if node.inputs[0] is not None else None
    if not axes or dimensions is None:
        return False
    places = {axis % dimensions for axis in axes}
    normalizes = any(
        is_op(user, "Sub") and node.inputs[0] in user.inputs for out in node.outputs for user, _ in out.uses()
    )  # x - mean(x): the start of a normalization
    return not normalizes and 0 not in places and (len(places) > 1 or dimensions <= 3)


def is_arithmetic(node: onnx_ir.Node) -> bool:
    """One of ARITHMETIC, of float32; its constants, if any, are finite."""
    import numpy as np

    if not is_op(node, *ARITHMETIC) or not is_float(node.outputs[0]) or is_movement(node):
        return False
    if is_op(node, "ReduceMean"):
        return _is_spatial_mean(node)
    if is_op(node, "Resize"):
        return attribute(node, "mode", "nearest") in ("linear", "nearest") and is_float(node.inputs[0])
    if is_op(node, "Add", "Sub", "Mul", "Concat"):
        arrays = [constant(value) for value in node.inputs]
        return all(array is None or (array.size > 0 and bool(np.isfinite(array).all())) for array in arrays)
    return True


def is_movement(node: onnx_ir.Node) -> bool:
    """One of MOVEMENT that moves one computed float32 tensor."""
    if not is_op(node, *MOVEMENT) or len(node.inputs) == 0 or not is_float(node.inputs[0]):
        return False
    if constant(node.inputs[0]) is not None or not all(is_float(out) for out in node.outputs[:1]):
        return False
    if is_op(node, "MaxPool"):
        return len(node.outputs) == 1 or not node.outputs[1].uses()
    if is_op(node, "Resize"):
        return attribute(node, "mode", "nearest") == "nearest" and len(node.inputs) > 1
    if is_op(node, "Pad"):
        filler = node.inputs[2] if len(node.inputs) > 2 else None
        zero = filler is None or scalar(filler) == 0
        return attribute(node, "mode", "constant") in ("reflect", "edge", "wrap") or zero
    return True


def is_function(node: onnx_ir.Node) -> bool:
    """A function of one element: one of FUNCTIONS, or arithmetic with one constant number."""
    if not node.inputs or not is_float(node.outputs[0]):
        return False
    if is_op(node, *FUNCTIONS):
        return is_float(node.inputs[0]) and all(scalar(v) is not None for v in node.inputs[1:] if v is not None)
    if not is_op(node, *_BINARY) or len(node.inputs) != 2:
        return False
    numbers = [_number(value, other) for value, other in (node.inputs, node.inputs[::-1])]
    if is_op(node, "Div"):
        return numbers[1] is not None and numbers[1] != 0 and is_float(node.inputs[0])
    return (numbers[0] is None) != (numbers[1] is None)


def _number(value: onnx_ir.Value | None, other: onnx_ir.Value | None) -> float | None:
    """The finite number that a constant of no higher rank than `other` holds."""
    import math

    number, shape = scalar(value), static_shape(value)
    if number is None or other is None or not math.isfinite(number):
        return None
    dimensions = rank(other)
    return float(number) if shape is not None and dimensions is not None and len(shape) <= dimensions else None


def clamps(value: onnx_ir.Value) -> onnx_ir.Node | None:
    """The Relu or Clip with constant bounds that alone reads `value`: it goes into the operator before it."""
    user = only_use(value)
    return user if user is not None and is_op(user, "Relu", "Clip") and is_function(user) else None
