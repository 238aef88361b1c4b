"""What no output depends on, is not there. f(x), f(x) = y, y: an operator of equal inputs is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, quiet

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["merge_equal", "remove_unused"]


def remove_unused(graph: onnx_ir.Model) -> Report:
    """Remove nodes, initializers and opsets that nothing uses. Graph inputs stay, used or not."""
    from onnx_ir.passes.common import RemoveUnusedFunctionsPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass

    before = sum(1 for _ in graph.graph)
    RemoveUnusedNodesPass()(graph)
    RemoveUnusedFunctionsPass()(graph)
    RemoveUnusedOpsetsPass()(graph)
    return Report(before - sum(1 for _ in graph.graph))


def merge_equal(graph: onnx_ir.Model) -> Report:
    """Merge operators with equal inputs and attributes, and equal small initializers."""
    import onnx_ir
    from onnx_ir.passes.common import CommonSubexpressionEliminationPass, DeduplicateInitializersPass

    before = sum(1 for _ in graph.graph)
    kinds = {attr.type for node in graph.graph for attr in node.attributes.values()}
    with quiet():
        DeduplicateInitializersPass()(graph)
        if not kinds & {onnx_ir.AttributeType.TYPE_PROTO, onnx_ir.AttributeType.TYPE_PROTOS}:  # it cannot compare them
            CommonSubexpressionEliminationPass()(graph)
    return Report(before - sum(1 for _ in graph.graph))
