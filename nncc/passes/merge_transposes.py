"""transpose(transpose(x, p), q) = transpose(x, p[q]); where p[q] is in order, x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, attribute, insert_before, is_op, operand, substitute

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["merge_transposes"]


def _perm(node: onnx_ir.Node) -> list[int] | None:
    """The node's permutation, spelled out; None where the rank is not known."""
    perm = attribute(node, "perm")
    shape = operand(node).shape
    if perm is None and shape is not None:
        perm = list(reversed(range(len(shape))))
    return perm


def merge_transposes(graph: onnx_ir.Model) -> Report:
    """Merge in place. The first transpose stays for its other users, if any."""
    report = Report()
    for node in tuple(graph.graph):
        if not is_op(node, "Transpose"):
            continue
        first = operand(node).producer()
        if not is_op(first, "Transpose") or first.graph is not node.graph:
            continue
        p, q = _perm(first), _perm(node)
        if p is None or q is None:
            report.skip(node, "its rank is not known")
            continue
        merged = [p[axis] for axis in q]
        source, out = operand(first), node.outputs[0]
        if merged != sorted(merged):
            source = insert_before(node, "Transpose", [source], name=node.name or str(out.name), like=out, perm=merged)
        substitute(out, source)
        report.rewrites += 1
    return report
