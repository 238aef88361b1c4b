"""f(W1 x + b1) W2 = f((W1 x + b1) / s) (s W2) for s > 0 and f(x) = x or a Relu: channels get alike weight ranges.

Cross-layer equalization, Nagel et al. 2019 (arXiv:1906.04721, section 4.1): with r1 the largest weight of an output
channel of the first layer and r2 that of the same input channel of the second, s = sqrt(r1 r2) / r2 makes both
sqrt(r1 r2). Pairs are gone through again until they settle, since a layer is in two pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.affine import Affine, Linear
from nncc.passes.rewriting import attribute, constant, is_op, only_use
from nncc.quant.operators import is_product, is_weight
from nncc.quant.weights import channels_out

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["equalize"]

_ROUNDS = 20
_MOST = 2.0**10
"""Largest factor of one round, and its inverse the smallest: channels that are nearly dead stay as they are."""


def equalize(graph: onnx_ir.Model) -> onnx_ir.Model:
    """The same function with equalized weights; statistics of what lies between the layers have to be taken anew."""
    import numpy as np

    graph = graph.clone()
    pairs = [(node, after) for node in graph.graph if (after := _partner(node)) is not None]
    for _ in range(_ROUNDS):
        furthest = 0.0
        for first, second in pairs:
            one, two = _linear(first), _linear(second)
            if one is None or two is None or one.channels_out != two.channels_in:
                continue
            r1, r2 = _largest_by_output(one), _largest_by_input(two)
            usable = (r1 > 0) & (r2 > 0)
            scale = np.sqrt(np.where(usable, r1, 1.0) / np.where(usable, r2, 1.0))
            scale = np.clip(np.where(usable, scale, 1.0), 1 / _MOST, _MOST)
            zero = np.zeros(1)
            _ = one.store(*one.after(Affine(1 / scale, zero)))
            folded = two.before(Affine(scale, zero))
            assert not isinstance(folded, str)
            _ = two.store(*folded)
            furthest = max(furthest, float(np.abs(np.log(scale)).max()))
        if furthest < 0.01:
            break
    return graph


def _partner(node: onnx_ir.Node) -> onnx_ir.Node | None:
    """The layer that alone reads what `node` makes, behind a Relu or LeakyRelu or directly."""
    if not is_op(node, "Conv", "Gemm") or not is_product(node):
        return None
    user = only_use(node.outputs[0])
    if is_op(user, "Relu", "LeakyRelu"):
        user = only_use(user.outputs[0])
    fits = is_op(user, "Conv", "Gemm", "MatMul") and is_product(user) and is_weight(user.inputs[1])
    return user if fits and user is not None and not attribute(user, "transA", 0) else None


def _linear(node: onnx_ir.Node) -> Linear | None:
    weight, bias = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    channels = channels_out(node)
    computed = bias is None and len(node.inputs) > 2 and node.inputs[2] is not None
    if weight is None or channels is None or computed or (bias is not None and bias.size != channels):
        return None
    groups = int(attribute(node, "group", 1))
    if is_op(node, "Conv"):
        channels_in = int(weight.shape[1]) * groups
    else:
        channels_in = int(weight.shape[1 if attribute(node, "transB", 0) else 0])
    shift = None if bias is None else bias.astype("float64").reshape(-1) * float(attribute(node, "beta", 1.0))
    if is_op(node, "Gemm") and attribute(node, "beta", 1.0) != 1.0:
        return None
    return Linear(node, weight.astype("float64"), shift, groups, 1, channels_in, channels)


def _largest_by_output(linear: Linear) -> np.ndarray:
    import numpy as np

    weight = np.abs(linear.weight)
    axis = 1 if is_op(linear.node, "Gemm") and not attribute(linear.node, "transB", 0) else 0
    return weight.max(axis=tuple(at for at in range(weight.ndim) if at != axis)).astype(np.float64)


def _largest_by_input(linear: Linear) -> np.ndarray:
    import numpy as np

    weight = np.abs(linear.weight)
    if is_op(linear.node, "Conv"):
        by_group = weight.reshape(linear.groups, -1, *weight.shape[1:])
        return by_group.max(axis=(1, *range(3, by_group.ndim))).reshape(-1).astype(np.float64)
    axis = 1 if attribute(linear.node, "transB", 0) else 0
    return weight.max(axis=1 - axis).astype(np.float64)
