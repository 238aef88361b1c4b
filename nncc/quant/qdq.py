"""A plan and its numbers written into the graph as QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nncc.passes.rewriting import add_constant, constant, is_op, operand
from nncc.quant.affine import Affine, affine_of_range, quantized
from nncc.quant.operators import data_inputs, is_arithmetic, is_float, is_function, weight_operand
from nncc.quant.plan import Plan, bias_add
from nncc.quant.weights import Weights

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.quant.recipe import Recipe

__all__ = ["dequantize", "insert"]

_LARGEST_INT32 = 2**31 - 1


def insert(
    graph: onnx_ir.Model,
    plan: Plan,
    activations: Mapping[str, Affine],
    weights: Mapping[str, Weights],
    recipe: Recipe,
) -> None:
    """Write a plan of `graph` into it, in place.

    x -> DequantizeLinear(QuantizeLinear(x)) for each value of the plan; weights and biases become DequantizeLinear of
    integer initializers. A graph output keeps its name and its type.
    """
    for node in plan.nodes:
        if str(node.name) in weights:
            _store(graph.graph, node, weights[str(node.name)], activations[str(data_inputs(node)[0].name)])
        elif is_arithmetic(node) and not is_function(node) and is_op(node, "Add", "Sub", "Mul", "Concat"):
            _store_operands(graph.graph, node, recipe)
    numbers: dict[Affine, tuple[onnx_ir.Value, onnx_ir.Value]] = {}
    for value in plan.values:
        affine = activations[str(value.name)]
        if affine not in numbers:
            numbers[affine] = _numbers(graph.graph, affine, str(value.name))
        _round_trip(graph.graph, value, *numbers[affine])


def _numbers(graph: onnx_ir.Graph, affine: Affine, name: str) -> tuple[onnx_ir.Value, onnx_ir.Value]:
    import numpy as np

    scale = add_constant(graph, np.array(affine.scale, np.float32), f"{name}/scale")
    return scale, add_constant(graph, np.array(affine.zero_point, affine.dtype), f"{name}/zero_point")


def _typed(value: onnx_ir.Value, name: str, dtype: onnx_ir.DataType, shape: onnx_ir.Shape | None) -> onnx_ir.Value:
    import onnx_ir

    value.name, value.type, value.shape = name, onnx_ir.TensorType(dtype), shape
    return value


def _round_trip(graph: onnx_ir.Graph, value: onnx_ir.Value, scale: onnx_ir.Value, zero_point: onnx_ir.Value) -> None:
    """Let everything that reads `value` read it quantized and dequantized."""
    import onnx_ir

    name, dtype = str(value.name), zero_point.dtype
    assert dtype is not None
    down = onnx_ir.node("QuantizeLinear", [value, scale, zero_point], name=f"{name}/quantize")
    middle = _typed(down.outputs[0], f"{name}/quantized", dtype, value.shape)
    up = onnx_ir.node("DequantizeLinear", [middle, scale, zero_point], name=f"{name}/dequantize")
    result = _typed(up.outputs[0], f"{name}/dequantized", onnx_ir.DataType.FLOAT, value.shape)
    producer = value.producer()
    if producer is None:
        graph.insert_before(graph[0], [down, up])
    else:
        graph.insert_after(producer, [down, up])
    renamed = value.is_graph_output() and producer is not None
    for user, at in tuple(value.uses()):
        if user is not down:
            user.replace_input_with(at, result)
    if renamed:
        graph.outputs[:] = [result if out is value else out for out in graph.outputs]
        value.name = f"{name}/float"
        result.name = name


def dequantize(
    graph: onnx_ir.Graph,
    before: onnx_ir.Node,
    integers: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray | None,
    axis: int | None,
    name: str,
    block_size: int | None = None,
) -> onnx_ir.Value:
    """Insert DequantizeLinear of these constants before a node, and return its output."""
    import onnx_ir

    inputs = [
        add_constant(graph, integers, f"{name}/quantized"),
        add_constant(graph, scale, f"{name}/scale"),
        *([] if zero_point is None else [add_constant(graph, zero_point, f"{name}/zero_point")]),
    ]
    attributes = {} if axis is None else {"axis": axis}
    if block_size is not None:
        attributes["block_size"] = block_size
    node = onnx_ir.node("DequantizeLinear", inputs, attributes, name=f"{before.name}/{name}/dequantize")
    graph.insert_before(before, node)
    shape = onnx_ir.Shape(integers.shape)
    return _typed(node.outputs[0], f"{before.name}/{name}/dequantized", onnx_ir.DataType.FLOAT, shape)


def _store(graph: onnx_ir.Graph, node: onnx_ir.Node, weights: Weights, given: Affine) -> None:
    """Give a product its integer weights, and its bias at the scale of its sums."""
    import numpy as np
    import onnx_ir

    at = weight_operand(node)
    assert at is not None
    name, add = str(operand(node, at).name), bias_add(node)
    zero_point = np.zeros(weights.scale.shape, np.int8)
    new = dequantize(graph, node, weights.integers, weights.scale, zero_point, weights.axis, name)
    node.replace_input_with(at, new)
    if weights.bias is None:
        return
    scale = np.float32(given.scale) * weights.scale
    if scale.size not in (1, weights.bias.size):
        scale = np.tile(scale, weights.bias.size // scale.size)  # the groups of a ConvTranspose
    integers = np.clip(np.rint(weights.bias / scale.astype(np.float64)), -_LARGEST_INT32, _LARGEST_INT32)
    axis = None if scale.ndim == 0 else 0
    reader, place = node, 2  # a Conv that had no bias may be given one
    if is_op(node, "MatMul"):
        assert add is not None
        reader, place = add, 1 if add.inputs[0] is node.outputs[0] else 0
    old = reader.inputs[place] if len(reader.inputs) > place else None
    label = f"{name}/bias" if old is None else str(old.name)
    value = dequantize(graph, reader, integers.astype(np.int32), scale, None, axis, label)
    if len(reader.inputs) <= place:
        reader.resize_inputs(place + 1)
    reader.replace_input_with(place, value)
    if is_op(node, "Gemm") and "beta" in node.attributes:
        node.attributes["beta"] = onnx_ir.AttrFloat32("beta", 1.0)


def _store_operands(graph: onnx_ir.Graph, node: onnx_ir.Node, recipe: Recipe) -> None:
    """Quantize the constant operands of an Add, Sub, Mul or Concat by their own range."""
    import numpy as np

    for at, value in enumerate(node.inputs):
        array = constant(value) if is_float(value) else None
        if array is None or value is None or _is_bias(node, value):
            continue
        affine = affine_of_range(float(array.min()), float(array.max()), recipe)
        scale, zero_point = np.array(affine.scale, np.float32), np.array(affine.zero_point, affine.dtype)
        new = dequantize(graph, node, quantized(array, affine), scale, zero_point, None, str(value.name))
        node.replace_input_with(at, new)


def _is_bias(node: onnx_ir.Node, value: onnx_ir.Value) -> bool:
    """Whether `value` is the row that `node` adds to a product: that is stored with the product, or stays float."""
    other = next((v for v in node.inputs if v is not value), None)
    producer = None if other is None else other.producer()
    return producer is not None and is_op(producer, "MatMul") and bias_add(producer) is node
