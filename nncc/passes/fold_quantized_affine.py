"""A batch norm (or Mul, Add by channel) after a convolution of quantized weights moves into their scales.

bn(conv(x, DQ(q; s)) + b) = conv(x, DQ(q; s*g)) + (b*g + t)     g = gamma/sqrt(var+eps), t = beta - mean*g

The integers stay. Where g < 0 they are negated, which needs them to be at least -127 and without a zero point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.affine import Affine, affine_of
from nncc.passes.fold_quantize import spread
from nncc.passes.grids import grid_of, insert_dequantize
from nncc.passes.rewriting import Report, add_constant, constant, is_op, only_use, operand, substitute

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["fold_quantized_affine"]


def _bias(value: onnx_ir.Value | None, channels: int) -> np.ndarray | None:
    """A bias as float64, be it float or quantized; None where it is not constant."""
    import numpy as np

    if value is None:
        return np.zeros(channels)
    array, producer = constant(value), value.producer()
    if array is not None:
        return array.astype(np.float64)
    if not is_op(producer, "DequantizeLinear"):
        return None
    q, grid = constant(producer.inputs[0]), grid_of(producer)
    if q is None or grid is None:
        return None
    zero, scale = spread(grid.zero_point, grid, q.shape), spread(grid.scale, grid, q.shape)
    return (q.astype(np.float64) - zero) * scale


def _fold(node: onnx_ir.Node, dequantize: onnx_ir.Node, affine: Affine) -> str | None:
    """Give the Conv `node` the weights and the bias that apply `affine` too; or say why not."""
    import numpy as np

    q, grid, graph = constant(dequantize.inputs[0]), grid_of(dequantize), node.graph
    assert graph is not None
    if q is None or grid is None or grid.block_size or (not grid.whole and grid.axis != 0):
        return "its weights are not integers with one scale a channel"
    channels = q.shape[0]
    bias = _bias(node.inputs[2] if len(node.inputs) > 2 else None, channels)
    if bias is None:
        return "its bias is not constant"
    affine = affine.sized(channels)
    scale = np.broadcast_to(grid.scale, (channels,)) * affine.scale
    zero = np.broadcast_to(grid.zero_point, (channels,))
    negative = scale < 0
    if negative.any():
        rows = q[negative]
        if grid.dtype != "int8" or zero[negative].any() or rows.min(initial=0) < -127:
            return "a negative factor would negate weights that have no negative"
        q = q.copy()
        q[negative] = -rows
        scale = np.abs(scale)
    with np.errstate(over="ignore", under="ignore"):
        scale = scale.astype(grid.scale.dtype)
        shift = (bias * affine.scale + affine.shift).astype(grid.scale.dtype)
    if not np.isfinite(shift).all() or not np.isfinite(scale).all() or not (scale > 0).all():
        return f"a folded scale or bias is zero, or does not fit {grid.scale.dtype}"
    name = str(node.outputs[0].name)
    weight = insert_dequantize(
        node,
        add_constant(graph, q, str(operand(dequantize).name)),
        add_constant(graph, scale, f"{name}/weight_scale"),
        add_constant(graph, zero, f"{name}/weight_zero_point"),
        name=f"{name}/weight",
        axis=0,
    )
    node.replace_input_with(1, weight)
    if not any(out.uses() or out.is_graph_output() for out in dequantize.outputs) and dequantize.graph is not None:
        dequantize.graph.remove(dequantize, safe=True)
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, add_constant(graph, shift, f"{name}/bias"))
    return None


def fold_quantized_affine(graph: onnx_ir.Model) -> Report:
    """Fold in place the affine map that follows a Conv of dequantized weights, and only follows it."""
    report = Report()
    for node in tuple(graph.graph):
        if not is_op(node, "Conv"):
            continue
        dequantize = operand(node, 1).producer()
        if not is_op(dequantize, "DequantizeLinear"):
            continue
        while (user := only_use(node.outputs[0])) is not None and user.graph is node.graph:
            found = affine_of(user, node.outputs[0], 1)
            if found is None:
                break
            dequantize = operand(node, 1).producer()
            assert dequantize is not None
            why = found if isinstance(found, str) else _fold(node, dequantize, found)
            if why:
                report.skip(user, why)
                break
            substitute(user.outputs[0], node.outputs[0])
            report.rewrites += 1
    return report
