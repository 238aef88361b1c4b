"""shape(op(x)) beside control flow too: onnx knows no shapes of what a loop carries, since they might grow.

Loop(.., v..) = v'.., s..     shape(v') = shape(v), where the body gives what it is given; shape(s) = trips x slice
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.bodies import branch_bodies, is_region, loop_body, loop_node
from nncc.passes.rewriting import constant, is_op, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["always", "as_model", "infer_regions"]


def as_model(body: onnx_ir.Graph, like: onnx_ir.Model) -> onnx_ir.Model:
    """A body as a model of the same opsets, its shapes inferred as far as they can be."""
    import onnx_ir

    from nncc.passes.infer_shapes import infer_shapes

    body.opset_imports.update(like.opset_imports)
    for at, value in enumerate(body.outputs):  # a graph cannot give its input as it is, nor the same value twice
        if value.producer() is None or value in list(body.outputs)[:at]:
            node = onnx_ir.node("Identity", [value], name=f"{value.name}/given")
            node.outputs[0].name = f"{value.name}/given_{at}"
            node.outputs[0].type = value.type
            body.append(node)
            body.outputs[at] = node.outputs[0]
    model = onnx_ir.Model(body, ir_version=max(like.ir_version or 0, 4))
    infer_shapes(model)
    return model


def infer_regions(graph: onnx_ir.Model) -> bool:
    """Annotate what branches and loops give, in place; whether anything new is known."""
    changed = False
    for node in graph.graph:
        if not is_region(node) or all(static_shape(value) is not None for value in node.outputs):
            continue
        changed |= _infer_branch(node, graph) if is_op(node, "If") else _infer_loop(node, graph)
    return changed


def _infer_branch(node: onnx_ir.Node, graph: onnx_ir.Model) -> bool:
    then, other = (as_model(body, graph).graph.outputs for body in branch_bodies(node)[0])
    changed = False
    for value, *results in zip(node.outputs, then, other, strict=True):
        if static_shape(results[0]) is not None and static_shape(results[0]) == static_shape(results[1]):
            changed |= _annotate(value, results[0], static_shape(results[0]))
    return changed


def _infer_loop(node: onnx_ir.Node, graph: onnx_ir.Model) -> bool:
    loop = loop_node(node)
    results = list(as_model(loop_body(loop)[0], graph).graph.outputs)
    follows = results.pop(0) if loop.has_counter else None
    changed = False
    for value, begin, result in zip(node.outputs, loop.carried, results, strict=False):
        if static_shape(begin) is not None and static_shape(begin) == static_shape(result):
            changed |= _annotate(value, begin, static_shape(begin))
    whole = loop.trips is not None and loop.condition is None and (follows is None or always(follows))
    count = len(loop.carried)
    for value, result, axis in zip(node.outputs[count:], results[count:], loop.stack_axes, strict=True):
        shape = static_shape(result)
        if whole and shape is not None and loop.trips is not None:
            at = axis % (len(shape) + 1)
            changed |= _annotate(value, result, (*shape[:at], loop.trips, *shape[at:]))
    return changed


def always(value: onnx_ir.Value, held: onnx_ir.Value | None = None) -> bool:
    """Whether a condition is a constant that is true, or `held`, which is known to be."""
    while value is not held and is_op(value.producer(), "Identity"):
        following = value.producer().inputs[0]  # type: ignore[union-attr]
        if following is None:
            return False
        value = following
    known = constant(value)
    return value is held or (known is not None and bool(known.all()))


def _annotate(value: onnx_ir.Value, like: onnx_ir.Value, shape: tuple[int, ...] | None) -> bool:
    import onnx_ir

    if static_shape(value) is not None or like.type is None or shape is None:
        return False
    value.type, value.shape = onnx_ir.TensorType(like.type.dtype), onnx_ir.Shape(shape)
    return True
