"""Operators that add up many numbers of half precision do it in float32, and round once.

f(x, w, ..)  ->  half(f(float32(x), float32(w), ..))

ONNX leaves open in which type sums are made; ONNX Runtime and ONNX's reference make them in float32. In float16 a sum
of a few thousand numbers is off by percents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, add_constant, constant, insert_before, is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["SUMMING", "sums_in_float32"]

SUMMING = (
    "AveragePool",
    "BatchNormalization",
    "Conv",
    "ConvTranspose",
    "Gemm",
    "GlobalAveragePool",
    "InstanceNormalization",
    "LRN",
    "LayerNormalization",
    "MatMul",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMean",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
"""Operators whose importers make sums in the type of their operands."""


def sums_in_float32(graph: onnx_ir.Model) -> Report:
    """Cast, in place, operands of `SUMMING` that are float16 or bfloat16 to float32, and results back."""
    report = Report()
    for node in tuple(graph.graph):
        if is_op(node, *SUMMING) and any(_half(value) for value in node.outputs):
            _widen(graph.graph, node)
            report.rewrites += 1
    return report


def _half(value: onnx_ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name in ("FLOAT16", "BFLOAT16")


def _widen(graph: onnx_ir.Graph, node: onnx_ir.Node) -> None:
    import numpy as np
    import onnx_ir

    single = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    for at, value in enumerate(node.inputs):
        if value is None or not _half(value):
            continue
        if (array := constant(value)) is not None:
            wide = add_constant(graph, array.astype(np.float32), f"{value.name}/float32")
        else:
            name = f"{node.name or node.outputs[0].name}/operand_{at}"
            wide = insert_before(node, "Cast", [value], name=name, to=onnx_ir.DataType.FLOAT)
            wide.type, wide.shape = single, value.shape
        node.replace_input_with(at, wide)
    for value in node.outputs:
        if not _half(value):
            continue
        dtype, name = value.dtype, str(value.name)
        narrow = onnx_ir.node("Cast", [value], {"to": dtype}, name=f"{name}/round")
        made = narrow.outputs[0]
        made.type, made.shape = value.type, value.shape
        uses, output = tuple(value.uses()), value.is_graph_output()
        value.name, made.name = f"{name}/float32", name
        value.type = single
        graph.insert_after(node, narrow)
        for user, at in uses:
            if user is not narrow:
                user.replace_input_with(at, made)
        if output:
            for at, each in enumerate(graph.outputs):
                if each is value:
                    graph.outputs[at] = made
