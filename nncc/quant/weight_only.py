"""Layers whose activations are not calibrated: weights stored small, or multiplied with activations quantized at run
time.

    weight_*   y = op(x, DequantizeLinear(q, s))    or op(x, Cast(w16))
    dynamic    y = float(MatMulInteger(DynamicQuantizeLinear(x), q)) * (x_scale * s) + b
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.errors import UsageError
from nncc.passes.rewriting import add_constant, attribute, constant, insert_before, is_op, operand, substitute
from nncc.quant.affine import weight_scale
from nncc.quant.operators import is_product, weight_axis, weight_operand
from nncc.quant.qdq import dequantize
from nncc.quant.weights import rounded

if TYPE_CHECKING:
    import onnx_ir

    from nncc.quant.recipe import Recipe

__all__ = ["INT4_OPSET", "convert"]

INT4_OPSET = 21
"""Four-bit integers and blocks of DequantizeLinear came with it."""

_LARGEST_FLOAT16 = 65504.0


def convert(graph: onnx_ir.Model, recipe: Recipe) -> int:
    """Give the products of `graph` that the recipe wants so their precision, in place; the number of them.

    Of int4, Gemm and MatMul have a scale for each `group_size` weights along the reduction, Conv and ConvTranspose one
    for each output channel. Where a precision that holds for all nodes does not fit one, the node stays float: dynamic
    is for Gemm and MatMul with constant weights on the right. Raises UsageError where it was asked for by name.
    """
    count = 0
    for node in tuple(graph.graph):
        precision = recipe.precision_of(str(node.name))
        if precision in ("int8", "float"):
            continue
        write = _dynamic if precision == "dynamic" else _store
        done = is_product(node) and write(graph, node, recipe)
        if not done and node.name in recipe.nodes:
            raise UsageError(
                f"`{node.name}`, a {node.op_type}, cannot be {precision}",
                "dynamic is for MatMul and Gemm, weight_* for layers with constant weights",
            )
        count += done
    return count


def _store(model: onnx_ir.Model, node: onnx_ir.Node, recipe: Recipe) -> bool:
    import numpy as np
    import onnx_ir

    at, graph, precision = weight_operand(node), model.graph, recipe.precision_of(str(node.name))
    if at is None:
        return False
    value = operand(node, at)
    weight, name = constant(value), str(value.name)
    assert weight is not None
    if precision in ("weight_float16", "weight_bfloat16"):
        kind = onnx_ir.DataType.FLOAT16 if precision == "weight_float16" else onnx_ir.DataType.BFLOAT16
        if kind == onnx_ir.DataType.FLOAT16 and np.abs(weight).max() > _LARGEST_FLOAT16:
            return False
        small = add_constant(graph, weight.astype(kind.numpy()), f"{name}/{precision}")
        new = insert_before(node, "Cast", [small], name=f"{node.name}/{name}", like=value, to=onnx_ir.DataType.FLOAT)
        node.replace_input_with(at, new)
        return True
    axis = weight_axis(node, at)
    if precision == "weight_int4" and is_op(node, "Gemm", "MatMul"):
        new = _blocks(graph, node, at, recipe.group_size)
    else:
        limit = 7 if precision == "weight_int4" else 127
        others = tuple(n for n in range(weight.ndim) if n != axis) if axis is not None else None
        scale = weight_scale(np.abs(weight).max(axis=others) * (127 / limit))
        integers = rounded(weight, scale, axis)
        if limit == 7:
            integers = integers.astype(onnx_ir.DataType.INT4.numpy())
        zero_point = np.zeros(scale.shape, integers.dtype)
        new = dequantize(graph, node, integers, scale, zero_point, axis, name)
    node.replace_input_with(at, new)
    return True


def _blocks(graph: onnx_ir.Graph, node: onnx_ir.Node, at: int, size: int) -> onnx_ir.Value:
    """DequantizeLinear of int4 in [-7, 7], with a scale for each block of weights along the reduction."""
    import numpy as np
    import onnx_ir

    value = operand(node, at)
    weight = constant(value)
    assert weight is not None
    if is_op(node, "Gemm"):
        axis = 1 if bool(attribute(node, "transB" if at == 1 else "transA", 0)) == (at == 1) else 0
    else:
        axis = weight.ndim - 2 if at == 1 else weight.ndim - 1
    starts = np.arange(0, weight.shape[axis], size)
    largest = np.maximum.reduceat(np.abs(weight), starts, axis=axis)
    scale = weight_scale(largest * (127 / 7))
    spread = np.repeat(scale, size, axis=axis).take(range(weight.shape[axis]), axis=axis)
    integers = np.clip(np.rint(weight / spread), -7, 7).astype(onnx_ir.DataType.INT4.numpy())
    zero_point = np.zeros(scale.shape, integers.dtype)
    return dequantize(graph, node, integers, scale, zero_point, axis, str(value.name), block_size=size)


def _dynamic(graph: onnx_ir.Model, node: onnx_ir.Node, recipe: Recipe) -> bool:
    import numpy as np
    import onnx_ir

    weight = constant(node.inputs[1])
    if not is_op(node, "Gemm", "MatMul") or weight_operand(node) != 1 or weight is None or weight.ndim != 2:
        return False
    if attribute(node, "transA", 0):
        return False
    main, out, name, weight_name = graph.graph, node.outputs[0], str(node.name), str(operand(node, 1).name)
    if attribute(node, "transB", 0):
        weight = weight.T
    scale = weight_scale(np.abs(weight).max(axis=0))
    integers = add_constant(main, rounded(weight, scale, 1), f"{weight_name}/quantized")
    factor = scale * np.float32(attribute(node, "alpha", 1.0) if is_op(node, "Gemm") else 1.0)
    factor_value = add_constant(main, factor, f"{weight_name}/scale")
    down = onnx_ir.node("DynamicQuantizeLinear", [operand(node)], num_outputs=3, name=f"{name}/quantize")
    for value, word in zip(down.outputs, ("quantized", "scale", "zero_point"), strict=True):
        value.name = f"{name}/input_{word}"
    main.insert_before(node, down)
    quantized, input_scale, zero_point = down.outputs
    sums = insert_before(node, "MatMulInteger", [quantized, integers, zero_point], name=name)
    floats = insert_before(node, "Cast", [sums], name=f"{name}/float", like=out, to=onnx_ir.DataType.FLOAT)
    scales = insert_before(node, "Mul", [input_scale, factor_value], name=f"{name}/scales")
    result = insert_before(node, "Mul", [floats, scales], name=f"{name}/scaled", like=out)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias: onnx_ir.Value | None = node.inputs[2]
        beta = float(attribute(node, "beta", 1.0))
        if beta != 1.0:
            factor = add_constant(main, np.array(beta, np.float32), f"{name}/beta")
            bias = insert_before(node, "Mul", [bias, factor], name=f"{name}/bias")
        result = insert_before(node, "Add", [result, bias], name=f"{name}/biased", like=out)
    substitute(out, result)
    return True
