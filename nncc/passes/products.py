"""The products of an ONNX graph by their shapes, for what predicts their time."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from nncc.layer_time import Product
from nncc.passes.rewriting import attribute, is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["product_of"]


def product_of(node: onnx_ir.Node, shapes: Mapping[str, tuple[int, ...]]) -> Product | None:
    """The product of a Conv, ConvTranspose, Gemm or MatMul; None for other nodes, and where shapes are not known."""
    if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    found = [None if value is None else shapes.get(str(value.name)) for value in (*node.inputs[:2], node.outputs[0])]
    first, second, out = found
    if first is None or second is None or out is None:
        return None
    inputs, outputs = prod(first), prod(out)
    if is_op(node, "Gemm", "MatMul"):
        depth = first[0 if is_op(node, "Gemm") and attribute(node, "transA", 0) else -1]
        vector = len(second) < 2  # on the right: the result has no axis for it
        columns = 1 if vector or not out else out[-1]
        return Product("matmul", outputs // max(columns, 1), (), depth, columns, inputs, outputs)
    rank, groups = len(first) - 2, int(attribute(node, "group", 1))
    strides, dilations = (tuple(attribute(node, name) or [1] * rank) for name in ("strides", "dilations"))
    forward = is_op(node, "Conv")
    return Product(
        "conv" if forward else "conv_transpose",
        first[0],
        tuple(out[2:] if forward else first[2:]),
        second[1] if forward else second[0] // groups,
        second[0] if forward else second[1] * groups,
        inputs,
        outputs,
        tuple(second[2:]),
        groups,
        strides,
        dilations,
    )
