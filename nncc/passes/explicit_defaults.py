"""STFT(x) = STFT(x, onesided=1): a default is written down where onnx's inference takes it for another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["explicit_defaults"]


def explicit_defaults(graph: onnx_ir.Model) -> Report:
    """Write down, in place, ``onesided`` of STFT: 1 in the standard, 0 in the shape inference of onnx 1.23."""
    import onnx_ir

    report = Report()
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        if is_op(node, "STFT") and "onesided" not in node.attributes:
            node.attributes["onesided"] = onnx_ir.AttrInt64("onesided", 1)
            report.rewrites += 1
    return report
