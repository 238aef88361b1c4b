"""Operators that copy elements, or pick the largest: on integers they give what they give on the numbers behind them.

The scale is positive, so the order stays: MaxPool too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nncc.passes.grids import operand_or_none
from nncc.passes.rewriting import attribute, is_op, static_shape

if TYPE_CHECKING:
    import onnx_ir

    from nncc.passes.grids import Grid

__all__ = ["COPYING", "EIGHT_BITS_ONLY", "MOVEMENTS", "axis_after", "moves", "moves_integers"]

MOVEMENTS = (
    "Concat",
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
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
"""All data of these are the first operand, or, for Concat, all operands; and the constant that a Pad fills with."""

COPYING = (
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
"""Those that give elements as they were, in whatever bytes these are held; Identity too."""

EIGHT_BITS_ONLY = ("DepthToSpace", "MaxPool", "Pad", "Resize", "SpaceToDepth")
"""Those that ONNX Runtime has for integers of 8 bits only."""

_RESHAPES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def moves(node: onnx_ir.Node | None) -> bool:
    """Whether `node` only moves: a Resize that takes the nearest, a MaxPool that gives no indices."""
    if not is_op(node, *MOVEMENTS):
        return False
    if is_op(node, "MaxPool"):
        return not any(out.uses() or out.is_graph_output() for out in node.outputs[1:])
    if is_op(node, "Resize"):
        extrapolates = attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize"
        return attribute(node, "mode", "nearest") == "nearest" and not extrapolates
    return True


def _types(node: onnx_ir.Node, version: int) -> Mapping[str, set[str]]:
    """By the type parameters of the operator's definition, the tensor types that it allows."""
    import onnx

    schema = onnx.defs.get_schema(node.op_type, version, "")
    allowed = {constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in schema.type_constraints}
    return {schema.inputs[0].type_str: allowed.get(schema.inputs[0].type_str, set())}


def moves_integers(node: onnx_ir.Node, dtype: str, version: int) -> bool:
    """Whether ONNX of this opset, and ONNX Runtime, have the operator for integers of this type."""
    if dtype not in ("int8", "uint8") and node.op_type in EIGHT_BITS_ONLY:
        return False
    return any(f"tensor({dtype})" in allowed for allowed in _types(node, version).values())


def axis_after(node: onnx_ir.Node, grid: Grid) -> int | None:
    """The axis along which the scales of `grid` vary in the result of `node`; None where that is no axis."""
    if grid.block_size:
        return None
    if is_op(node, "Transpose"):
        shape = static_shape(node.inputs[0])
        if shape is None:
            return None
        perm = attribute(node, "perm") or list(reversed(range(len(shape))))
        return perm.index(grid.axis)
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if not is_op(node, *_RESHAPES) or before is None or after is None or 0 in before:
        return None
    ahead = behind = 1
    for size in before[: grid.axis]:
        ahead *= size
    for axis, size in enumerate(after):
        if behind == ahead and size == before[grid.axis]:
            return axis
        behind *= size
    return None


def data_operands(node: onnx_ir.Node) -> list[int]:
    """Where a movement has what it moves: a Pad's filling is among it where it is given."""
    if is_op(node, "Concat"):
        return list(range(len(node.inputs)))
    return [0, 2] if is_op(node, "Pad") and operand_or_none(node, 2) is not None else [0]
