"""reshape(reshape(x, a), b) = reshape(x, b), and Flatten, Squeeze and Unsqueeze are reshapes; so is a transpose that
only moves dimensions of size one."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from nncc.passes.rewriting import (
    Report,
    add_constant,
    attribute,
    constant,
    insert_before,
    is_op,
    operand,
    static_shape,
    substitute,
)

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["merge_reshapes"]

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def _moves_only_ones(node: onnx_ir.Node) -> bool:
    shape, perm = static_shape(node.inputs[0]), attribute(node, "perm")
    if shape is None:
        return False
    perm = perm if perm is not None else list(reversed(range(len(shape))))
    kept = [axis for axis in perm if shape[axis] != 1]
    return kept == sorted(kept) and perm != sorted(perm)


def _is_reshape(node: onnx_ir.Node | None) -> TypeGuard[onnx_ir.Node]:
    return node is not None and (is_op(node, *_RESHAPES) or (is_op(node, "Transpose") and _moves_only_ones(node)))


def merge_reshapes(graph: onnx_ir.Model) -> Report:
    """Merge in place where the result's shape is static and holds something. A Reshape's shape becomes a constant."""
    import numpy as np

    report = Report()
    for node in tuple(graph.graph):
        if not _is_reshape(node):
            continue
        out, source = node.outputs[0], operand(node)
        shape, producer = static_shape(out), source.producer()
        chained = _is_reshape(producer) and producer.graph is node.graph
        literal = not is_op(node, "Reshape") or constant(node.inputs[1]) is not None
        if not chained and literal and not is_op(node, "Transpose"):
            continue
        if shape is None:
            report.skip(node, "the shape of its result is not static")
            continue
        if 0 in shape:
            report.skip(node, "its result is empty; a zero means something else to Reshape")
            continue
        while _is_reshape(producer) and producer.graph is node.graph:
            source = operand(producer)
            producer = source.producer()
        target = add_constant(graph.graph, np.array(shape, np.int64), f"{out.name}/shape")
        substitute(out, insert_before(node, "Reshape", [source, target], name=node.name or str(out.name), like=out))
        report.rewrites += 1
    return report
