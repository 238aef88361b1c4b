"""shape(op(x)) is written beside op(x), for every operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, is_op, quiet, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["infer_shapes"]


def infer_shapes(graph: onnx_ir.Model) -> Report:
    """Annotate every value with the type and shape that onnx infers, data propagation included. Never a rewrite.

    Nothing is propagated where an operator that does so has a vector of more than 2^20 elements: onnx would make a
    dimension of each.
    """
    from onnx_ir.passes.common import ShapeInferencePass

    from nncc.passes.infer_regions import infer_regions

    known = True
    while known:
        for data_prop in (False, True):
            if not data_prop or _to_propagate(graph):
                with quiet():
                    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=data_prop)(graph)
                _mark_lists(graph)
        known = infer_regions(graph)
    return Report()


_LONGEST = 2**20
"""Elements of a vector that onnx propagates: it takes 0.2 s and 0.1 GB for each operator on one."""


def _to_propagate(graph: onnx_ir.Model) -> bool:
    """Whether a shape is left that contents may tell, and no vector is too long to be asked for its own."""
    import onnx_ir

    nodes = list(onnx_ir.traversal.RecursiveGraphIterator(graph.graph))
    return any(static_shape(value) is None for node in nodes for value in node.outputs) and not any(
        value is not None
        and (shape := static_shape(value)) is not None
        and len(shape) == 1
        and shape[0] > _LONGEST
        and _propagates(node)
        for node in nodes
        for value in node.inputs
    )


def _propagates(node: onnx_ir.Node) -> bool:
    from onnx.defs import SchemaError, get_schema

    try:
        return bool(get_schema(node.op_type, domain=node.domain).has_data_propagation_function)
    except SchemaError:
        return False


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
