"""op(x) = x: operators that change nothing are dropped.

Identity; Dropout at inference; Cast to the same type; Transpose in order; Reshape, Flatten, Squeeze, Unsqueeze,
Expand and Tile to the same shape; Pad by nothing; Slice of everything; Concat, Sum, Max, Min, Mean of one;
x*1, x/1, x+0 (up to the sign of zero), x-0 where they do not broadcast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, attribute, constant, is_op, scalar, static_shape, substitute

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["drop_noops"]

_SHAPE_ONLY = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile")
_OF_ONE = ("Concat", "Sum", "Max", "Min", "Mean")
_NEUTRAL = {"Mul": 1, "Div": 1, "Add": 0, "Sub": 0}


def _same_shape(node: onnx_ir.Node) -> bool:
    before = static_shape(node.inputs[0])
    return before is not None and before == static_shape(node.outputs[0])


def _pads_nothing(node: onnx_ir.Node) -> bool:
    pads = attribute(node, "pads")
    if pads is None and len(node.inputs) > 1:
        pads = constant(node.inputs[1])
    return pads is not None and not any(pads)


def _neutral(node: onnx_ir.Node) -> onnx_ir.Value | None:
    """The operand that the result equals, for arithmetic with a neutral constant."""
    wanted = _NEUTRAL[node.op_type]
    for at in (1, 0) if node.op_type in ("Mul", "Add") else (1,):
        array, other = constant(node.inputs[at]), node.inputs[1 - at]
        if array is not None and array.size and (array == wanted).all():
            shape = static_shape(other)
            if shape is not None and shape == static_shape(node.outputs[0]):
                return other
    return None


def _equals(node: onnx_ir.Node) -> onnx_ir.Value | None:
    """The input that the node's first output equals, or None."""
    if not node.inputs or node.inputs[0] is None:
        return None
    source = node.inputs[0]
    same = False
    if is_op(node, "Identity"):
        same = True
    elif is_op(node, "Dropout"):
        mask_used = any(out.uses() or out.is_graph_output() for out in node.outputs[1:])
        training = len(node.inputs) > 2 and node.inputs[2] is not None and scalar(node.inputs[2]) is not False
        same = not mask_used and not (training and scalar(node.inputs[2]) in (None, True, 1))
    elif is_op(node, "Cast"):
        same = source.dtype is not None and source.dtype == node.attributes["to"].value
    elif is_op(node, "Transpose"):
        perm = attribute(node, "perm")
        rank = len(source.shape) if source.shape is not None else None
        same = perm == sorted(perm) if perm is not None else rank is not None and rank < 2
    elif is_op(node, *_SHAPE_ONLY):
        same = _same_shape(node)
    elif is_op(node, "Pad"):
        same = _pads_nothing(node)
    elif is_op(node, "Slice"):
        steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
        forward = len(node.inputs) <= 4 or node.inputs[4] is None or (steps is not None and bool((steps > 0).all()))
        same = forward and _same_shape(node)
    elif is_op(node, *_OF_ONE):
        same = len(node.inputs) == 1
    elif is_op(node, *_NEUTRAL):
        return _neutral(node)
    return source if same else None


def drop_noops(graph: onnx_ir.Model) -> Report:
    """Drop them in place. An Identity that gives an input or a constant the name of an output stays."""
    report = Report()
    for node in tuple(graph.graph):
        source = _equals(node)
        if source is None:
            continue
        out = node.outputs[0]
        producer = source.producer()
        movable = producer is not None and producer.graph is node.graph and not source.is_graph_output()
        pinned = out.is_graph_output() and not movable
        if is_op(node, "Identity") and pinned and not out.uses():
            continue
        substitute(out, source)
        report.rewrites += 1
    return report
