"""Which constants of a graph are trained, where their zeros are, and how they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import attribute, constant, is_op

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Grid", "Weight", "find_weights", "limits", "write_weights"]

ZERO_SHARE = 0.02
"""From this share of exact zeros on, those of a tensor of floats are a pattern: training alone leaves none."""
ZERO_SHARE_INTEGERS = 0.25
"""The same for integers, to which small weights are rounded."""

_POSITIONS: Mapping[str, tuple[int, ...]] = {
    "Add": (0, 1),
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "Mul": (0, 1),
    "PRelu": (1,),
}
"""Where operators have weights; other constants (a division, a mean that is taken off) are part of the function."""
_ELEMENTWISE = ("Add", "Mul")
_THROUGH = (
    "Cast", "DequantizeLinear", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""What may stand between a weight and its layer."""
_MASK = 1e4
"""A constant with elements beyond this is a mask, not a weight."""


@dataclass(frozen=True)
class Grid:
    """The integers that a weight is stored as: ``real = (integer - zero_point) * scale``."""

    scale: np.ndarray
    """float32, of a shape that broadcasts to the weight's."""
    zero_point: np.ndarray
    """float32, of the scale's shape."""
    low: int
    high: int
    dtype: np.dtype
    """Of the integers in the file."""

    def integers(self, real: np.ndarray) -> np.ndarray:
        """The nearest integers, ties to the even one, saturated."""
        import numpy as np

        return np.clip(np.rint(real / self.scale) + self.zero_point, self.low, self.high).astype(self.dtype)


@dataclass(frozen=True)
class Weight:
    """An initializer that is trained."""

    name: str
    start: np.ndarray
    """Its real numbers before training, float32."""
    keep: np.ndarray | None
    """1.0 where it is trained and 0.0 where a zero stays one, float32; None where all of it is trained."""
    grid: Grid | None
    """How it is rounded where the file has integers."""

    def stored(self, real: np.ndarray) -> np.ndarray:
        """What the file has for these real numbers."""
        import numpy as np

        return np.asarray(real, np.float32) if self.grid is None else self.grid.integers(real)


def find_weights(graph: onnx_ir.Model, keep_zeros: bool = True) -> tuple[Weight, ...]:
    """The trainable initializers of a graph, in its order: floats, and integers behind DequantizeLinear.

    Its Constant nodes must be initializers already. With `keep_zeros`, matrices and kernels of which a share of
    `ZERO_SHARE` is exactly zero (`ZERO_SHARE_INTEGERS` where they are integers) keep these zeros.
    """
    import numpy as np
    import onnx_ir

    found = []
    for value in graph.graph.initializers.values():
        array = constant(value)
        if array is None or value.is_graph_output() or not value.uses():
            continue
        grid = None
        if value.dtype is not None and value.dtype.is_integer():
            grid = _grid(value, array)
            if grid is None:
                continue
            real = ((array.astype(np.float32) - grid.zero_point) * grid.scale).astype(np.float32)
        elif value.dtype == onnx_ir.DataType.FLOAT:
            real = array
        else:
            continue
        if not array.size or not _is_weight(value, array.size) or not np.abs(real).max() < _MASK:
            continue
        least = ZERO_SHARE if grid is None else ZERO_SHARE_INTEGERS
        masked = keep_zeros and real.ndim >= 2 and np.mean(real == 0) >= least
        found.append(Weight(str(value.name), real, (real != 0).astype(np.float32) if masked else None, grid))
    return tuple(found)


def write_weights(graph: onnx_ir.Model, weights: tuple[Weight, ...], real: Mapping[str, np.ndarray]) -> None:
    """Give the initializers these numbers, in place, as what they were: floats, or integers of the same grid."""
    import onnx_ir

    for weight in weights:
        value = graph.graph.initializers[weight.name]
        value.const_value = onnx_ir.tensor(weight.stored(real[weight.name]), name=weight.name)


def _is_weight(value: onnx_ir.Value, size: int) -> bool:
    """Whether all that reads `value` takes it for a weight."""
    for node, at in value.uses():
        if is_op(node, *_THROUGH) and at == 0:
            if node.outputs[0].is_graph_output() or not _is_weight(node.outputs[0], size):
                return False
        elif at not in _POSITIONS.get(node.op_type, ()) or (size == 1 and is_op(node, *_ELEMENTWISE)):
            return False
    return True


def _grid(value: onnx_ir.Value, array: np.ndarray) -> Grid | None:
    """The grid of integers that only one DequantizeLinear reads; None for all others."""
    import numpy as np

    uses = tuple(value.uses())
    if len(uses) != 1 or uses[0][1] != 0 or not is_op(uses[0][0], "DequantizeLinear"):
        return None
    node = uses[0][0]
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    zero_point = np.zeros_like(scale) if given is None else constant(given)
    if scale is None or zero_point is None or scale.dtype != np.float32 or value.dtype is None:
        return None
    low, high = limits(value.dtype)
    if low < 0 and value.dtype.bitwidth <= 8 and not np.any(zero_point) and array.min() > low:
        low += 1  # weights on [-127, 127] stay there: kernels may rely on it
    return Grid(
        _spread(node, scale, array.shape),
        _spread(node, zero_point.astype(np.float32), array.shape),
        low,
        high,
        array.dtype,
    )


def limits(kind: onnx_ir.DataType) -> tuple[int, int]:
    """The least and the largest integer of a type."""
    bits = kind.bitwidth
    return (0, 2**bits - 1) if kind.name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _spread(node: onnx_ir.Node, numbers: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Scales or zero points in a shape that broadcasts to the weight's."""
    import numpy as np

    if numbers.size == 1:
        return numbers.reshape(())
    axis = attribute(node, "axis", 1) % len(shape)
    if block := attribute(node, "block_size", 0):
        return np.repeat(numbers, block, axis).take(range(shape[axis]), axis)
    return numbers.reshape([-1 if at == axis else 1 for at in range(len(shape))])
