"""The vocabulary of quantized graphs: what a QuantizeLinear or DequantizeLinear says, and inserting one.

DequantizeLinear(q) = (q - zero_point) * scale
QuantizeLinear(x)   = saturate(round_half_even(x / scale) + zero_point)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import attribute, constant, operand

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = [
    "Grid",
    "grid_of",
    "insert_dequantize",
    "insert_node",
    "insert_quantize",
    "operand_or_none",
    "opset",
    "same_grid",
]


@dataclass(frozen=True)
class Grid:
    """The numbers (q - zero_point) * scale, q of one integer type; what a Q or DQ node with constant parameters says.

    `scale` and `zero_point` are numpy arrays of one shape: of no axes for a whole tensor, of one along `axis`, or of
    the tensor's rank where blocks of `block_size` along `axis` have one each (`block_size` is 0 otherwise).
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    block_size: int = 0

    @property
    def whole(self) -> bool:
        """Whether one scale serves the whole tensor."""
        return self.scale.ndim == 0

    @property
    def dtype(self) -> str:
        """The integer type, by numpy's name."""
        return self.zero_point.dtype.name

    def limits(self) -> tuple[int, int]:
        """The smallest and the largest q."""
        import numpy as np

        found = np.iinfo(self.zero_point.dtype)
        return int(found.min), int(found.max)


def grid_of(node: onnx_ir.Node) -> Grid | None:
    """The grid of a QuantizeLinear or DequantizeLinear in canonical form; None where parameters are not constant."""
    scale, zero_point = constant(operand(node, 1)), constant(operand_or_none(node, 2))
    if scale is None or zero_point is None or scale.shape != zero_point.shape or zero_point.dtype.kind not in "iu":
        return None
    rank = len(operand(node).shape or ())
    axis = int(attribute(node, "axis", 1)) if scale.ndim and rank > 1 else 0
    block_size = int(attribute(node, "block_size", 0))
    return Grid(scale, zero_point, axis + rank if axis < 0 else axis, block_size)


def same_grid(one: Grid | None, other: Grid | None) -> bool:
    """Whether both are known, of one type, and have the same numbers."""
    import numpy as np

    if one is None or other is None:
        return False
    return (
        one.dtype == other.dtype
        and one.scale.dtype == other.scale.dtype
        and np.array_equal(one.scale, other.scale)
        and np.array_equal(one.zero_point, other.zero_point)
        and (one.whole or (one.axis, one.block_size) == (other.axis, other.block_size))
    )


def operand_or_none(node: onnx_ir.Node, at: int) -> onnx_ir.Value | None:
    """Operand `at`, or None where it is left out."""
    return node.inputs[at] if at < len(node.inputs) else None


def opset(graph: onnx_ir.Model) -> int:
    """The version of the standard domain."""
    imports = graph.graph.opset_imports
    return int(imports.get("", imports.get("ai.onnx", 1)))


def insert_node(
    at: onnx_ir.Node,
    op: str,
    inputs: Sequence[onnx_ir.Value | None],
    *,
    name: str,
    dtype: onnx_ir.DataType | None,
    shape: onnx_ir.Shape | None = None,
    **attributes,
) -> onnx_ir.Value:
    """Insert a one-output operator before `at`; its output has this type, and a shape once it is inferred."""
    import onnx_ir

    node = onnx_ir.node(op, inputs, attributes={k: v for k, v in attributes.items() if v is not None}, name=name)
    out = node.outputs[0]
    out.name = f"{name}/nncc_{op}"
    out.type = None if dtype is None else onnx_ir.TensorType(dtype)
    out.shape = shape
    assert at.graph is not None
    at.graph.insert_before(at, node)
    return out


def insert_dequantize(
    at: onnx_ir.Node,
    quantized: onnx_ir.Value,
    scale: onnx_ir.Value,
    zero_point: onnx_ir.Value | None,
    *,
    name: str,
    axis: int | None = None,
    block_size: int | None = None,
) -> onnx_ir.Value:
    """DequantizeLinear before `at`: the real numbers behind `quantized`, in the type of `scale`."""
    return insert_node(
        at,
        "DequantizeLinear",
        [quantized, scale, zero_point],
        name=name,
        dtype=scale.dtype,
        shape=quantized.shape,
        axis=axis,
        block_size=block_size,
    )


def insert_quantize(
    at: onnx_ir.Node,
    real: onnx_ir.Value,
    scale: onnx_ir.Value,
    zero_point: onnx_ir.Value,
    *,
    name: str,
    axis: int | None = None,
) -> onnx_ir.Value:
    """QuantizeLinear before `at`, to the type of `zero_point`."""
    return insert_node(
        at,
        "QuantizeLinear",
        [real, scale, zero_point],
        name=name,
        dtype=zero_point.dtype,
        shape=real.shape,
        axis=axis,
    )
