"""shape(op(x)) is written beside op(x), for every operator."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, is_op, quiet, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["infer_shapes"]


def infer_shapes(graph: onnx_ir.Model) -> Report:
    """Annotate every value with the type and shape that onnx infers, data propagation included. Never a rewrite.

    Nothing is propagated where the vectors that operators would propagate may have more than 2^22 elements together:
    onnx makes a dimension of each.
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


_MOST = 2**22
"""Elements of vectors that onnx propagates: it takes 0.2 s and 0.1 GB for 2^20."""


def _to_propagate(graph: onnx_ir.Model) -> bool:
    """Whether a shape is left that contents may tell, and no vectors are too long to be asked for theirs."""
    import onnx_ir

    nodes = list(onnx_ir.traversal.RecursiveGraphIterator(graph.graph))
    return any(static_shape(value) is None for node in nodes for value in node.outputs) and _propagated(nodes) <= _MOST


def _propagated(nodes: Sequence[onnx_ir.Node]) -> int:
    """The most elements of vectors that are propagated, of all operators together.

    The length of some is only known by propagation itself: these are as long as what they are made of lets them be. Of
    whatever dtype: onnx makes dimensions of vectors of floats, too.
    """
    most: dict[onnx_ir.Value, int] = {}

    def length(value: onnx_ir.Value | None) -> int:
        if value is None:
            return 0
        shape = static_shape(value)
        if shape is None:
            return most.get(value, 0)
        return 0 if len(shape) > 1 else prod(shape)

    total = 0
    for node in nodes:
        if not _propagates(node) or is_op(node, "Shape"):  # which asks for sizes only
            continue
        lengths = [length(value) for value in node.inputs]
        made = max(lengths, default=0)
        if is_op(node, "Concat"):
            made = sum(lengths)
        elif is_op(node, "Gather"):
            made = lengths[-1]
        most |= dict.fromkeys(node.outputs, made)
        total += max([made, *lengths])
    return total


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
