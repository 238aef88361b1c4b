"""QuantizeLinear and DequantizeLinear whose steps are floats of 8 or 4 bits are casts and products:

    dequantize(q, s, z) = (cast(q) - cast(z)) s      quantize(x, s, z) = cast(x / s + cast(z))

with s and z repeated along their axis, or over their blocks; the division is in the type that `precision` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncc.passes.grids import operand_or_none
from nncc.passes.rewriting import Report, add_constant, attribute, insert_before, is_op, static_shape, substitute

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["float_quantization"]


def float_quantization(graph: onnx_ir.Model) -> Report:
    """Rewrite in place; types and shapes have to be known."""
    report = Report()
    for node in tuple(graph.graph):
        if not is_op(node, "QuantizeLinear", "DequantizeLinear"):
            continue
        quantize = node.op_type == "QuantizeLinear"
        q = node.outputs[0] if quantize else node.inputs[0]
        if q is None or q.dtype is None or not q.dtype.name.startswith(("FLOAT8", "FLOAT4")):
            continue
        shape = static_shape(node.inputs[0])
        if shape is None:
            report.skip(node, "its shape is not known")
            continue
        (_quantize if quantize else _dequantize)(node, shape)
        report.rewrites += 1
    return report


def _spread(node: onnx_ir.Node, value: onnx_ir.Value, shape: tuple[int, ...], what: str) -> onnx_ir.Value:
    """Scales or zero points in a shape that is broadcast with `shape`."""
    import numpy as np
    import onnx_ir

    sizes = static_shape(value) or ()
    rank, name = len(shape), f"{node.name or node.outputs[0].name}/{what}"
    axis, block = int(attribute(node, "axis", 1)), int(attribute(node, "block_size", 0))
    if not sizes or sizes == (1,):
        target: list[int] = []
    elif not block:
        target = [-1 if at == axis % rank else 1 for at in range(rank)]
    else:
        axis %= rank
        each = [*sizes[: axis + 1], block, *sizes[axis + 1 :]]
        graph = node.graph
        assert graph is not None and isinstance(graph, onnx_ir.Graph)
        ones = add_constant(graph, np.array([*sizes[: axis + 1], 1, *sizes[axis + 1 :]], np.int64), f"{name}/apart")
        apart = insert_before(node, "Reshape", [value, ones], name=f"{name}/apart", like=value, shape=None)
        wanted = add_constant(graph, np.array(each, np.int64), f"{name}/blocks")
        whole = insert_before(node, "Expand", [apart, wanted], name=f"{name}/blocks", like=value, shape=each)
        apart.shape = onnx_ir.Shape([*sizes[: axis + 1], 1, *sizes[axis + 1 :]])
        long = [*sizes[:axis], sizes[axis] * block, *sizes[axis + 1 :]]
        joined = add_constant(graph, np.array(long, np.int64), f"{name}/joined")
        value = insert_before(node, "Reshape", [whole, joined], name=f"{name}/joined", like=value, shape=long)
        if long[axis] == shape[axis]:
            return value
        ends = [add_constant(graph, np.array([n], np.int64), f"{name}/cut") for n in (0, shape[axis], axis)]
        return insert_before(node, "Slice", [value, *ends], name=f"{name}/cut", like=value, shape=shape)
    graph = node.graph
    assert isinstance(graph, onnx_ir.Graph)
    to = add_constant(graph, np.array(target, np.int64), f"{name}/shape")
    count = 1 if not sizes else sizes[0]
    known = [count if size == -1 else size for size in target]
    return insert_before(node, "Reshape", [value, to], name=name, like=value, shape=known)


def _cast(
    node: onnx_ir.Node, value: onnx_ir.Value, to: onnx_ir.DataType, what: str, **attributes: Any
) -> onnx_ir.Value:
    import onnx_ir

    name = f"{node.name or node.outputs[0].name}/{what}"
    cast = insert_before(node, "Cast", [value], name=name, to=int(to), **attributes)
    cast.type, cast.shape = onnx_ir.TensorType(to), value.shape
    return cast


def _parameters(
    node: onnx_ir.Node, shape: tuple[int, ...], real: onnx_ir.DataType
) -> tuple[onnx_ir.Value, onnx_ir.Value | None]:
    """Scale and zero point as they are broadcast, in the type `real`."""
    scale, zero = operand_or_none(node, 1), operand_or_none(node, 2)
    assert scale is not None
    if scale.dtype != real:
        scale = _cast(node, scale, real, "real_scale")
    if zero is not None:
        zero = _spread(node, _cast(node, zero, real, "real_zero_point"), shape, "zero_point")
    return _spread(node, scale, shape, "scale"), zero


def _dequantize(node: onnx_ir.Node, shape: tuple[int, ...]) -> None:
    import onnx_ir

    q, out = node.inputs[0], node.outputs[0]
    assert q is not None and out.dtype is not None
    name = node.name or str(out.name)
    real = onnx_ir.DataType.FLOAT
    scale, zero = _parameters(node, shape, real)
    value = _cast(node, q, real, "real")
    if zero is not None:
        value = insert_before(node, "Sub", [value, zero], name=f"{name}/less", like=value)
    value = insert_before(node, "Mul", [value, scale], name=f"{name}/scaled", like=value, shape=shape)
    if out.dtype != real:
        value = _cast(node, value, out.dtype, "result")
    substitute(out, value)


def _quantize(node: onnx_ir.Node, shape: tuple[int, ...]) -> None:
    import onnx_ir

    x, out, scale = node.inputs[0], node.outputs[0], node.inputs[1]
    assert x is not None and scale is not None and out.dtype is not None
    name = node.name or str(out.name)
    real = onnx_ir.DataType(int(attribute(node, "precision", 0)) or onnx_ir.DataType.FLOAT)
    scale, zero = _parameters(node, shape, real)
    value = x if x.dtype == real else _cast(node, x, real, "real")
    value = insert_before(node, "Div", [value, scale], name=f"{name}/scaled", like=value, shape=shape)
    if zero is not None:
        value = insert_before(node, "Add", [value, zero], name=f"{name}/more", like=value)
    given = attribute(node, "saturate", 1)
    is_eight = out.dtype.name.startswith("FLOAT8")
    result = _cast(node, value, out.dtype, "result", **({"saturate": int(given)} if is_eight else {}))
    substitute(out, result)
