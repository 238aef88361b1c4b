"""Weights and biases of products as integers: w = scale * q with q in [-127, 127], b = (input_scale * scale) * q."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import attribute, constant, is_op, operand
from nncc.quant.affine import WEIGHT_LIMIT, Affine, largest_bias, weight_scale
from nncc.quant.operators import data_inputs, weight_axis, weight_operand
from nncc.quant.plan import Plan, bias_add

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.quant.recipe import Recipe

__all__ = ["Weights", "bias_of", "by_channel", "channels_out", "choose_weights", "rounded"]


@dataclass(frozen=True)
class Weights:
    """The weights and the bias of one product: `integers` is int8 in the shape of the weights, `scale` float32, a
    vector along `axis` or, where that is None, of shape []; `bias` is float64, one for each output channel, or None."""

    integers: np.ndarray
    scale: np.ndarray
    axis: int | None
    bias: np.ndarray | None

    def dequantized(self) -> np.ndarray:
        """The float32 weights that the integers stand for."""
        import numpy as np

        return self.integers.astype(np.float32) * by_channel(self.scale, self.integers.ndim, self.axis)


def by_channel(scale: np.ndarray, dimensions: int, axis: int | None) -> np.ndarray:
    """`scale` in a shape that broadcasts along `axis` of a tensor of that many dimensions."""
    if axis is None:
        return scale
    return scale.reshape(tuple(-1 if at == axis else 1 for at in range(dimensions)))


def rounded(weight: np.ndarray, scale: np.ndarray, axis: int | None) -> np.ndarray:
    """The nearest integers, int8, in [-127, 127]."""
    import numpy as np

    scaled = np.rint(weight / by_channel(scale, weight.ndim, axis))
    return np.clip(scaled, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)


def channels_out(node: onnx_ir.Node) -> int | None:
    """The number of output channels of a product with constant weights on the right; None for stacks of matrices."""
    weight = constant(node.inputs[1])
    if weight is None:
        return None
    if is_op(node, "Conv"):
        return int(weight.shape[0])
    if is_op(node, "ConvTranspose"):
        return int(weight.shape[1]) * int(attribute(node, "group", 1))
    if is_op(node, "Gemm"):
        return int(weight.shape[0 if attribute(node, "transB", 0) else 1])
    return int(weight.shape[-1]) if weight.ndim == 2 else None


def bias_of(node: onnx_ir.Node) -> np.ndarray | None:
    """The constant bias of a product, one number (float64) for each output channel; None if it has none like that."""
    import numpy as np

    channels = channels_out(node)
    if is_op(node, "MatMul"):
        add = bias_add(node)
        row = None if add is None else constant(next(v for v in add.inputs if v is not node.outputs[0]))
    else:
        row = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if row is None or channels is None or row.size not in (1, channels) or (row.ndim > 1 and row.shape[0] != 1):
        return None
    if not np.isfinite(row).all():
        return None
    beta = float(attribute(node, "beta", 1.0)) if is_op(node, "Gemm") else 1.0
    return np.broadcast_to(row.reshape(-1).astype(np.float64) * beta, (channels,)).copy()


def choose_weights(plan: Plan, activations: Mapping[str, Affine], recipe: Recipe) -> dict[str, Weights]:
    """For each product with constant weights, by its name: scales, nearest integers, and its bias as it is."""
    found = {}
    for node in plan.nodes:
        at = weight_operand(node) if is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul") else None
        if at is None:
            continue
        weight = constant(operand(node, at))
        assert weight is not None
        axis = weight_axis(node, at) if recipe.per_channel else None
        bias = bias_of(node) if at == 1 else None
        found[str(node.name)] = _weights(node, weight, axis, bias, activations[str(data_inputs(node)[0].name)], recipe)
    return found


def _weights(
    node: onnx_ir.Node, weight: np.ndarray, axis: int | None, bias: np.ndarray | None, given: Affine, recipe: Recipe
) -> Weights:
    import numpy as np

    others = tuple(at for at in range(weight.ndim) if at != axis)
    limit = np.abs(weight).max(axis=others if axis is not None else None)
    least: np.ndarray | float = 0.0
    if bias is not None:
        least = largest_bias(bias, given.scale)
        if axis is None:
            least = least.max()
        elif is_op(node, "ConvTranspose"):
            least = least.reshape(-1, limit.size).max(axis=0)
    if recipe.weight_observer == "mse":
        limit = _least_squares_limit(weight, limit, axis)
    scale = weight_scale(limit, least)
    return Weights(rounded(weight, scale, axis), scale, axis, bias)


def _least_squares_limit(weight: np.ndarray, limit: np.ndarray, axis: int | None) -> np.ndarray:
    """Of 40 limits from half the largest weight to all of it, the one with the least squared error, a channel."""
    import numpy as np

    others = tuple(at for at in range(weight.ndim) if at != axis) if axis is not None else None
    best, error = limit, np.full(limit.shape, np.inf)
    for share in np.linspace(1.0, 0.5, 40):
        scale = weight_scale(limit * share)
        integers = rounded(weight, scale, axis)
        rest = weight - integers * by_channel(scale, weight.ndim, axis)
        found = np.square(rest, dtype=np.float64).sum(axis=others)
        best, error = np.where(found < error, limit * share, best), np.minimum(found, error)
    return best
