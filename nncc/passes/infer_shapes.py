"""shape(op(x)) is written beside op(x), for every operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, is_op, quiet

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["infer_shapes"]


def infer_shapes(graph: onnx_ir.Model) -> Report:
    """Annotate every value with the type and shape that onnx infers, data propagation included. Never a rewrite."""
    from onnx_ir.passes.common import ShapeInferencePass

    from nncc.passes.infer_regions import infer_regions

    known = True
    while known:
        with quiet():
            ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(graph)
        _mark_lists(graph)
        known = infer_regions(graph)
    return Report()


_LISTS = ("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap", "SplitToSequence")


def _mark_lists(graph: onnx_ir.Model) -> None:
    """Types of lists and optional values: the pass takes them for tensors of what they hold."""
    import onnx_ir

    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        for at, value in enumerate(node.outputs):
            if not isinstance(value.type, onnx_ir.TensorType):
                continue
            if is_op(node, *_LISTS):
                value.type, value.shape = onnx_ir.SequenceType(value.type), None
            elif is_op(node, "Optional"):
                held = node.inputs[0].type if node.inputs and node.inputs[0] is not None else value.type
                value.type, value.shape = onnx_ir.OptionalType(held or value.type), None
            elif is_op(node, "Identity", "Loop"):
                place = at + (2 if is_op(node, "Loop") else 0)
                source = node.inputs[place] if place < len(node.inputs) else None
                if source is not None and isinstance(source.type, onnx_ir.SequenceType | onnx_ir.OptionalType):
                    value.type, value.shape = source.type, None
