"""A model as text: one line an operator, aligned, deterministic. For `nncc show`, golden files and reports."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from nncc.passes.rewriting import static_shape

if TYPE_CHECKING:
    import onnx_ir

    from nncc.ir import Model

__all__ = ["count", "graph_text", "macs", "shape_text", "size"]

LONGEST = 48
"""Characters of one attribute or one inline constant; longer ones are cut."""


def size(nbytes: float) -> str:
    """Bytes for people: ``512 B``, ``1.5 KiB``, ``3.2 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "B" or nbytes >= 100 else f"{nbytes:.3g} {unit}"
        nbytes /= 1024
    return f"{nbytes:.3g} TiB"


def count(number: float) -> str:
    """A count for people: ``817``, ``42.1 k``, ``3.18 G``."""
    for unit in ("", " k", " M", " G"):
        if number < 999.5:
            return f"{number:.0f}{unit}" if unit == "" or number >= 99.95 else f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"


def shape_text(value: onnx_ir.Value) -> str:
    """``[1x64x56x56]``; ``[]`` for a scalar, ``[?]`` where nothing is known. Float32 goes without saying."""
    if value.shape is None:
        return "[?]"
    dims = "x".join(str(d) if isinstance(d, int) else str(d.value if d.value is not None else "?") for d in value.shape)
    dtype = value.dtype.name.lower() if value.dtype is not None else "float"
    return f"[{dims}]" if dtype == "float" else f"{dtype}[{dims}]"


def macs(node: onnx_ir.Node) -> int:
    """Multiply-accumulate operations of a Conv, ConvTranspose, Gemm, MatMul, LSTM or GRU; 0 for anything else.

    Also of the integer forms of these. 0 where a shape is not known.
    """
    if node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return 0
    op = node.op_type
    at = 3 if op in ("QLinearConv", "QLinearMatMul") else 1
    data, weight, out = static_shape(node.inputs[0]), static_shape(node.inputs[at]), static_shape(node.outputs[0])
    if data is None or weight is None:
        return 0
    if op in ("Conv", "ConvInteger", "QLinearConv"):
        return prod(out) * prod(weight[1:]) if out is not None else 0
    if op == "ConvTranspose":
        return prod(data) * prod(weight[1:])
    if op == "Gemm":
        inner = data[0] if "transA" in node.attributes and node.attributes["transA"].value else data[1]
        return prod(out) * inner if out is not None else 0
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return prod(out) * data[-1] if out is not None and data else 0
    if op in ("LSTM", "GRU", "RNN"):
        recurrent = static_shape(node.inputs[2])
        return prod(data[:2]) * (prod(weight) + prod(recurrent)) if recurrent is not None else 0
    return 0


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _attribute(attr: onnx_ir.Attr) -> str:
    import onnx_ir

    if attr.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS):
        graphs = attr.as_graphs() if attr.type == onnx_ir.AttributeType.GRAPHS else [attr.as_graph()]
        return f"{attr.name} {{{sum(sum(1 for _ in g) for g in graphs)} nodes}}"
    value = attr.value
    if attr.type == onnx_ir.AttributeType.TENSOR:
        return f"{attr.name} [{'x'.join(map(str, value.shape))}]"
    if isinstance(value, (list, tuple)):
        joint = "x" if attr.name in ("kernel_shape", "strides", "dilations") else ","
        value = joint.join(map(_number, value))
    name = {"kernel_shape": "kernel", "strides": "stride", "dilations": "dilation"}.get(attr.name, attr.name)
    if attr.name == "to":
        value = onnx_ir.DataType(attr.value).name.lower()
    return _cut(f"{name} {_number(value)}")


def _is_default(attr: onnx_ir.Attr) -> bool:
    value = attr.value
    if attr.name in ("strides", "dilations"):
        return all(v == 1 for v in value)
    if attr.name == "pads":
        return not any(value)
    return (attr.name, value) in (("group", 1), ("auto_pad", "NOTSET"))


def _constant(value: onnx_ir.Value) -> str:
    """A weight by name and shape; a small integer or scalar constant by what it holds."""
    tensor = value.const_value
    name = str(value.name)
    label = ("..." + name[-21:]) if len(name) > 24 else name
    if tensor is not None and tensor.size <= (1 if tensor.dtype.is_floating_point() else 8):
        if tensor.dtype.name == "STRING":
            return label
        items = [_number(item) for item in tensor.numpy().reshape(-1).tolist()]
        return _cut(items[0] if len(tensor.shape) == 0 else "{" + ",".join(items) + "}")
    shape = shape_text(value)
    if value.shape is None and tensor is not None:
        shape = "[" + "x".join(map(str, tensor.shape)) + "]"
    return label + shape


def _parameters(graph: onnx_ir.Graph) -> tuple[int, int]:
    """Number of elements and bytes of all constants."""
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    return sum(t.size for t in tensors), sum(t.nbytes for t in tensors)


def _rows(graph: onnx_ir.Graph) -> list[tuple[str, str, str, str, str, str]]:
    """Result, operator, type, operands, attributes and name of each node."""
    names: dict[onnx_ir.Value, str] = {value: str(value.name) for value in graph.inputs}
    rows = []
    for at, node in enumerate(graph):
        results = []
        for number, out in enumerate(node.outputs):
            names[out] = f"%{at}" if number == 0 else f"%{at}.{number}"
            if number == 0 or out.uses() or out.is_graph_output():
                results.append(names[out])
        operands = []
        for value in node.inputs:
            if value is None:
                operands.append("-")
            elif value in names:
                operands.append(names[value])
            else:
                operands.append(_constant(value) if value.const_value is not None else str(value.name))
        shapes = ", ".join(shape_text(out) for out in node.outputs[: len(results)])
        attributes = [
            _attribute(a) for _, a in sorted(node.attributes.items()) if not a.is_ref() and not _is_default(a)
        ]
        domain = "" if node.domain in ("", "ai.onnx") else f"{node.domain}."
        ends = [str(out.name) for out in node.outputs if out.is_graph_output()]
        tail = f"-> {', '.join(ends)}" if ends else ""
        name = f"({node.name})" if node.name else ""
        rows.append(
            (
                ", ".join(results),
                domain + node.op_type,
                shapes,
                "<- " + ", ".join(operands),
                " ".join(attributes),
                " ".join(filter(None, (name, tail))),
            )
        )
    return rows


def graph_text(model: Model) -> str:
    """The whole model: a header with inputs, outputs, opset and totals, then one line an operator.

    ``%12  Conv  [1x64x56x56]  <- %11, W[64x64x3x3], b[64]  kernel 3x3 pads 1,1,1,1  (Conv_12)``
    """
    graph = model.graph.graph
    opsets = [f"{domain or 'ai.onnx'} {version}" for domain, version in sorted(model.graph.opset_imports.items())]
    elements, nbytes = _parameters(graph)
    nodes = sum(1 for _ in graph)
    lines = [f"model {model.name}", f"  opset   {', '.join(opsets)}"]
    lines += [f"  input   {spec}" for spec in model.inputs]
    lines += [f"  output  {spec}" for spec in model.outputs]
    total = sum(macs(node) for node in graph)
    lines.append(f"  {nodes} nodes, {count(elements)} parameters ({size(nbytes)}), {count(total)} MAC")
    rows = _rows(graph)
    # A few very long rows must not push every other one to the right.
    widths = [min(max((len(row[at]) for row in rows), default=0), cap) for at, cap in enumerate((6, 18, 24, 64, 40))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        lines.append(("  " + "  ".join((*cells, row[5]))).rstrip())
    return "\n".join(lines) + "\n"
