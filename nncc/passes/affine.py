"""Per-channel affine maps, y = x*s + t, as the operators that spell them and the linear operators that absorb them.

Everything here is computed in float64 and rounded once, when the new weights are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import add_constant, attribute, constant, is_op, operand, static_shape

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["LINEAR", "Affine", "Linear", "affine_of", "batch_norm", "linear_of"]

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Affine:
    """x*scale + shift along one axis; both are float64 arrays of one length (1: the same for every channel)."""

    scale: np.ndarray
    shift: np.ndarray

    def then(self, after: Affine) -> Affine:
        """``after(self(x))``."""
        return Affine(self.scale * after.scale, self.shift * after.scale + after.shift)

    def sized(self, channels: int) -> Affine:
        """The same map with one entry for each channel."""
        import numpy as np

        return Affine(np.broadcast_to(self.scale, (channels,)), np.broadcast_to(self.shift, (channels,)))


def batch_norm(node: onnx_ir.Node) -> Affine | str:
    """scale = gamma / sqrt(var + eps), shift = beta - mean*scale; or why there are none."""
    import numpy as np

    if attribute(node, "training_mode", 0):
        return "it is in training mode: its statistics are computed at run time"
    if any(out.uses() or out.is_graph_output() for out in node.outputs[1:]):
        return "its statistics are read by other operators"
    if attribute(node, "spatial", 1) == 0:
        return "it normalizes every position by itself (spatial=0)"
    parts = [constant(value) for value in node.inputs[1:5]]
    if any(part is None for part in parts):
        return "its parameters are not constant"
    gamma, beta, mean, var = (np.asarray(part, np.float64) for part in parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gamma / np.sqrt(var + float(attribute(node, "epsilon", 1e-5)))
        shift = beta - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return "its parameters give values that are not finite"
    return Affine(scale, shift)


def _along(array: np.ndarray, rank: int, axis: int) -> np.ndarray | None:
    """The entries of a constant that varies along `axis` of a tensor of `rank` only; None for any other constant."""
    if array.ndim > rank:
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if any(size != 1 for at, size in enumerate(shape) if at != axis):
        return None
    return array.reshape(-1)


def affine_of(node: onnx_ir.Node, source: onnx_ir.Value, axis: int) -> Affine | str | None:
    """The map along `axis` that `node` applies to `source`; None if it is no such map, a reason if it nearly is."""
    import numpy as np

    shape = static_shape(source)
    if shape is None or shape != static_shape(node.outputs[0]):
        return None
    if is_op(node, "BatchNormalization"):
        return batch_norm(node) if axis == 1 and node.inputs[0] is source else None
    if not is_op(node, "Mul", "Add", "Sub", "Div") or source.dtype is None or not source.dtype.is_floating_point():
        return None
    at = 1 if node.inputs[0] is source else 0
    if at == 0 and is_op(node, "Sub", "Div"):
        return None
    array = constant(node.inputs[at])
    if array is None:
        return None
    entries = _along(array, len(shape), axis)
    if entries is None:
        return "its constant varies along more than the channels"
    entries = np.asarray(entries, np.float64)
    if not np.isfinite(entries).all() or (is_op(node, "Div") and not entries.all()):
        return "its constant is not finite, or divides by zero"
    zero, one = np.zeros(1), np.ones(1)
    if is_op(node, "Add", "Sub"):
        return Affine(one, entries if is_op(node, "Add") else -entries)
    return Affine(entries if is_op(node, "Mul") else 1.0 / entries, zero)


@dataclass(frozen=True)
class Linear:
    """A Conv, ConvTranspose, Gemm or MatMul with constant weights (and bias): what affine maps fold into.

    `weight` and `bias` are float64 (`bias` None where there is none). `channels_in` and `channels_out` are the sizes of
    axis `axis` of its input and output.
    """

    node: onnx_ir.Node
    weight: np.ndarray
    bias: np.ndarray | None
    groups: int
    axis: int
    channels_in: int
    channels_out: int

    @property
    def takes_bias(self) -> bool:
        """Whether the operator has a bias operand."""
        return not is_op(self.node, "MatMul")

    def _by_output(self, scale: np.ndarray) -> np.ndarray:
        node, weight = self.node, self.weight
        if is_op(node, "Conv"):  # [out, in/groups, *kernel]
            return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        if is_op(node, "ConvTranspose"):  # [in, out/groups, *kernel], groups along the first axis
            split = weight.reshape(self.groups, -1, *weight.shape[1:])
            return (split * scale.reshape(self.groups, 1, -1, *(1,) * (weight.ndim - 2))).reshape(weight.shape)
        return weight * (scale.reshape(-1, 1) if attribute(node, "transB", 0) else scale)

    def _by_input(self, scale: np.ndarray) -> np.ndarray:
        node, weight = self.node, self.weight
        if is_op(node, "Conv"):
            per_group = scale.reshape(self.groups, 1, -1, *(1,) * (weight.ndim - 2))
            return (weight.reshape(self.groups, -1, *weight.shape[1:]) * per_group).reshape(weight.shape)
        if is_op(node, "ConvTranspose"):
            return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
        return weight * (scale if attribute(node, "transB", 0) else scale.reshape(-1, 1))

    def _sum_of_inputs(self, weight: np.ndarray) -> np.ndarray:
        """What an input of all ones gives, where every tap of the kernel meets the input."""
        if is_op(self.node, "Conv"):
            return weight.sum(axis=tuple(range(1, weight.ndim)))
        return weight.sum(axis=1 if attribute(self.node, "transB", 0) else 0)

    def after(self, affine: Affine) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias of ``affine(self(x))``: W*s and b*s + t."""
        affine = affine.sized(self.channels_out)
        bias = affine.shift if self.bias is None else self.bias * affine.scale + affine.shift
        return self._by_output(affine.scale), bias if self.bias is not None or affine.shift.any() else None

    def before(self, affine: Affine) -> tuple[np.ndarray, np.ndarray | None] | str:
        """Weight and bias of ``self(affine(x))``: W*s and b + sum(W*t); or why not."""
        import numpy as np

        affine = affine.sized(self.channels_in)
        if not affine.shift.any():
            return self._by_input(affine.scale), self.bias
        if is_op(self.node, "ConvTranspose"):
            return "a shift before a ConvTranspose does not reach every output equally"
        if is_op(self.node, "Conv"):
            pads, auto = attribute(self.node, "pads", ()), attribute(self.node, "auto_pad", "NOTSET")
            if any(pads) or auto in ("SAME_UPPER", "SAME_LOWER"):
                return "it pads with zeros, which the shift before it does not move"
        more = self._sum_of_inputs(self._by_input(affine.shift))
        alpha = float(attribute(self.node, "alpha", 1.0)) if is_op(self.node, "Gemm") else 1.0
        bias = np.zeros(self.channels_out) if self.bias is None else self.bias
        return self._by_input(affine.scale), bias + alpha * more

    def store(self, weight: np.ndarray, bias: np.ndarray | None) -> str | None:
        """Give the node new weights (its own: shared ones stay as they are); or say why they do not fit its dtype."""
        import numpy as np

        node, graph, old_weight = self.node, self.node.graph, operand(self.node, 1)
        assert graph is not None and old_weight.dtype is not None
        dtype = old_weight.dtype.numpy()
        with np.errstate(over="ignore", invalid="ignore"):
            new_weight = weight.astype(dtype)
            new_bias = None if bias is None else bias.astype(dtype)
        if not np.isfinite(new_weight).all() or (new_bias is not None and not np.isfinite(new_bias).all()):
            return f"the folded weights do not fit {dtype}"
        node.replace_input_with(1, add_constant(graph, new_weight, str(old_weight.name)))
        if new_bias is None:
            return None
        old = node.inputs[2] if len(node.inputs) > 2 else None
        value = add_constant(graph, new_bias, str(old.name) if old is not None else f"{node.outputs[0].name}/bias")
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, value)
        if is_op(node, "Gemm"):  # `bias` is beta*C already
            node.attributes.pop("beta", None)
        return None


def linear_of(node: onnx_ir.Node) -> Linear | str | None:
    """The linear operator at `node`; None if it is none, a reason if affine maps cannot be folded into it."""
    import numpy as np

    if not is_op(node, *LINEAR):
        return None
    weight, shape_in, shape_out = constant(node.inputs[1]), static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if weight is None:
        return "its weights are not constant"
    if weight.dtype.name not in ("float16", "float32", "float64"):
        return f"its weights are {weight.dtype.name}"
    if shape_in is None or shape_out is None:
        return "its shape is not static"
    wide = np.asarray(weight, np.float64)
    if not np.isfinite(wide).all():
        return "its weights are not finite"
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(bias_value)
    if bias_value is not None and bias is None:
        return "its bias is not constant"
    bias = None if bias is None else np.asarray(bias, np.float64)
    if is_op(node, "MatMul"):
        if weight.ndim != 2 or len(shape_in) < 2:
            return "its constant operand is not a matrix"
        return Linear(node, wide, None, 1, len(shape_out) - 1, weight.shape[0], weight.shape[1])
    if is_op(node, "Gemm"):
        if attribute(node, "transA", 0):
            return "its first operand is transposed"
        if bias is not None:
            entries = _along(bias, 2, 1)
            if entries is None:
                return "its bias differs from row to row"
            bias = np.broadcast_to(entries * float(attribute(node, "beta", 1.0)), (shape_out[1],))
        return Linear(node, wide, bias, 1, 1, shape_in[1], shape_out[1])
    return Linear(node, wide, bias, int(attribute(node, "group", 1)), 1, shape_in[1], shape_out[1])
