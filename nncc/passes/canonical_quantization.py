"""One spelling for QuantizeLinear and DequantizeLinear.

A zero point is always there, of the shape of the scale; one scale for the whole tensor is a scalar without an axis; an
axis counts from the front. Types other than the scale's are casts of their own. Weights of uint8 are int8:
(q - z) = ((q - 128) - (z - 128)). A Gemm does not transpose such weights, they are. The opset becomes 13, where it can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.grids import insert_node, operand_or_none, opset
from nncc.passes.raise_opset import raise_opset
from nncc.passes.rewriting import Report, add_constant, attribute, constant, is_op, operand

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["WEIGHTED", "canonical_quantization"]

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators whose second operand is weights."""


def _pop_type(node: onnx_ir.Node, name: str) -> onnx_ir.DataType | None:
    """The type that an attribute names, which is taken away; None where it is not given."""
    import onnx_ir

    number = attribute(node, name, 0)
    node.attributes.pop(name, None)
    return onnx_ir.DataType(number) if number else None


def _scalars(node: onnx_ir.Node) -> int:
    """One scale as a scalar, without an axis; the axis from the front."""
    graph, scale = node.graph, constant(node.inputs[1])
    assert graph is not None
    changes = 0
    if scale is None or int(attribute(node, "block_size", 0)):
        return 0
    name = str(node.outputs[0].name)
    if scale.size == 1:
        for at, word in ((1, "scale"), (2, "zero_point")):
            array = constant(operand_or_none(node, at))
            if array is not None and array.ndim:
                node.replace_input_with(at, add_constant(graph, array.reshape(()), f"{name}/{word}"))
                changes += 1
        changes += node.attributes.pop("axis", None) is not None
        return changes
    x = operand(node)
    given = attribute(node, "axis")
    rank = len(x.shape) if x.shape is not None else 0
    axis = 0 if rank == 1 else 1 if given is None else int(given) % rank if rank else int(given)
    if given != axis:
        import onnx_ir

        node.attributes["axis"] = onnx_ir.AttrInt64("axis", axis)
        changes += 1
    return changes


def _zero_point(node: onnx_ir.Node, dtype: onnx_ir.DataType | None) -> int:
    """A zero point of zeros, of the scale's shape, where there is none."""
    import numpy as np

    scale = operand(node, 1)
    if operand_or_none(node, 2) is not None or scale.shape is None or not scale.shape.is_static() or dtype is None:
        return 0
    assert node.graph is not None
    name = str(node.outputs[0].name)
    zeros = np.zeros(tuple(int(d) for d in scale.shape), dtype.numpy())  # type: ignore[arg-type]
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, add_constant(node.graph, zeros, f"{name}/zero_point"))
    return 1


def _cast(at: onnx_ir.Node, value: onnx_ir.Value, dtype: onnx_ir.DataType, name: str) -> onnx_ir.Value:
    return insert_node(at, "Cast", [value], name=name, dtype=dtype, shape=value.shape, to=int(dtype))


def _in_float32(node: onnx_ir.Node, *places: int) -> int:
    """Cast the operands at `places` to float32 where they are of another type."""
    import onnx_ir

    changes = 0
    name = str(node.outputs[0].name)
    for at in places:
        value = operand(node, at)
        if value.dtype is not None and value.dtype != onnx_ir.DataType.FLOAT:
            node.replace_input_with(at, _cast(node, value, onnx_ir.DataType.FLOAT, f"{name}/operand_{at}"))
            changes += 1
    return changes


def _quantize_types(node: onnx_ir.Node, version: int) -> int:
    """Data and scale of one type: that of ``precision``, which is the scale's by default.

    ONNX Runtime divides in float32, and from opset 23 on in that type. Neither it nor TVM has bfloat16.
    """
    import onnx_ir

    x, scale = operand(node), operand(node, 1)
    if x.dtype is None or scale.dtype is None:
        return 0
    half = onnx_ir.DataType.FLOAT16
    asked = attribute(node, "precision", 0)
    if version >= 23 and (asked or scale.dtype) == half:
        name = str(node.outputs[0].name)
        changes = int(not asked)
        node.attributes["precision"] = onnx_ir.AttrInt64("precision", int(half))
        for at, value in ((0, x), (1, scale)):
            if value.dtype != half:
                node.replace_input_with(at, _cast(node, value, half, f"{name}/operand_{at}"))
                changes += 1
        return changes
    node.attributes.pop("precision", None)
    mixed = asked or x.dtype != scale.dtype or scale.dtype == onnx_ir.DataType.BFLOAT16
    return int(bool(asked)) + (_in_float32(node, 0, 1) if mixed else 0)


def _dequantize_types(node: onnx_ir.Node) -> int:
    """An ``output_dtype`` other than the scale's, and bfloat16: the product is taken in float32 and then cast."""
    import onnx_ir

    asked = _pop_type(node, "output_dtype")
    scale, out = operand(node, 1), node.outputs[0]
    if scale.dtype == onnx_ir.DataType.BFLOAT16:
        asked = asked or scale.dtype
    elif asked is None or asked == scale.dtype:
        return int(asked is not None)
    _in_float32(node, 1)
    if asked == onnx_ir.DataType.FLOAT:
        return 1
    name = str(out.name)
    cast = onnx_ir.node("Cast", [out], {"to": int(asked)}, name=f"{name}/cast")
    after = cast.outputs[0]
    after.name, after.type, after.shape = f"{name}/nncc_Cast", out.type, out.shape
    if out.is_graph_output():
        after.name, out.name = out.name, f"{name}/product"
    out.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    out.replace_all_uses_with(after, replace_graph_outputs=True)
    cast.replace_input_with(0, out)
    assert node.graph is not None
    node.graph.insert_after(node, cast)
    return 1


def _signed(node: onnx_ir.Node, weight: int, zero: int) -> int:
    """int8 for constants of uint8, by 128 less on both sides of the difference; operands `weight` and `zero`."""
    import numpy as np

    q, given = constant(operand_or_none(node, weight)), operand_or_none(node, zero)
    points = np.zeros((), np.uint8) if given is None else constant(given)
    if q is None or points is None or q.dtype != np.uint8:
        return 0
    assert node.graph is not None
    if len(node.inputs) <= zero:
        node.resize_inputs(zero + 1)
    name = str(operand(node, weight).name)
    for at, array, word in ((weight, q, name), (zero, points, f"{name}/zero_point")):
        shifted = (array.astype(np.int16) - 128).astype(np.int8)
        node.replace_input_with(at, add_constant(node.graph, shifted, word))
    return 1


def _signed_weights(node: onnx_ir.Node) -> int:
    """int8 for weights of uint8."""
    if is_op(node, "ConvInteger", "MatMulInteger"):
        return _signed(node, 1, 3)
    weighs = any(is_op(user, *WEIGHTED) and at == 1 for user, at in node.outputs[0].uses())
    return _signed(node, 0, 2) if weighs else 0


def _transposed_weights(node: onnx_ir.Node) -> int:
    """Gemm(a, b, transB=1) = Gemm(a, Transpose(b)), which becomes a transposition of the integers."""
    producer = node.inputs[1].producer() if node.inputs[1] is not None else None
    if not attribute(node, "transB", 0) or not is_op(producer, "DequantizeLinear"):
        return 0
    weight = operand(node, 1)
    if constant(producer.inputs[0]) is None:
        return 0
    name = f"{node.outputs[0].name}/weight"
    node.replace_input_with(1, insert_node(node, "Transpose", [weight], name=name, dtype=weight.dtype, perm=[1, 0]))
    node.attributes.pop("transB")
    return 1


def canonical_quantization(graph: onnx_ir.Model) -> Report:
    """Rewrite in place every QuantizeLinear and DequantizeLinear of the standard domain."""
    import onnx_ir

    report = Report()
    found = [node for node in graph.graph if is_op(node, "QuantizeLinear", "DequantizeLinear")]
    if found and opset(graph) < 13:
        if why := raise_opset(graph, 13):
            report.skip(found[0], why)
        else:
            report.rewrites += 1
    for node in tuple(graph.graph):
        if is_op(node, "QuantizeLinear"):
            dtype = _pop_type(node, "output_dtype")
            report.rewrites += _zero_point(node, dtype or onnx_ir.DataType.UINT8)
            report.rewrites += _quantize_types(node, opset(graph))
        elif is_op(node, "DequantizeLinear"):
            report.rewrites += _zero_point(node, operand(node).dtype) + _dequantize_types(node)
            report.rewrites += _signed_weights(node)
        else:
            if is_op(node, "Gemm"):
                report.rewrites += _transposed_weights(node)
            elif is_op(node, "ConvInteger", "MatMulInteger"):
                report.rewrites += _signed_weights(node)
            continue
        report.rewrites += _scalars(node)
    return report
