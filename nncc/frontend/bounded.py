"""Operators whose outputs' shapes depend on the data: the largest shapes of their outputs, and which axis is open."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.open_axes import OpenAxis, open_outputs_of
from nncc.frontend.run_time_sizes import select_run_time_sizes
from nncc.ir import Extent, Model, Quotient
from nncc.passes.bodies import subgraphs
from nncc.passes.explicit_defaults import RANDOM
from nncc.passes.rewriting import is_op, label, node_text, operand, scalar, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["SELECTING", "bound_outputs", "most_boxes", "refuse_used", "used_selections"]

SELECTING = ("Compress", "NonMaxSuppression", "NonZero", "Unique")


def bound_outputs(graph: onnx_ir.Model) -> Mapping[str, tuple[Extent, ...]]:
    """Give what these operators select, and what others make of it, their largest shapes, in place; by output of the
    model, its sizes, of which one is open.

    The open dimension has the name of the operator's first output, and so has the operator. Raises ModelError where
    inputs do not go together, or an operator uses what another has selected in a way that needs to know how much.
    """
    import onnx_ir

    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.remove_unused import merge_equal, remove_unused

    computed = _computed(graph)
    if select_run_time_sizes(graph, computed):
        infer_shapes(graph)
        computed = _computed(graph)
    found = _bounded(graph, computed)
    if any(value.uses() for node in found for value in node.outputs):
        remove_unused(graph)
        merge_equal(graph)  # two operators that select the same have one size
        found = _bounded(graph, computed)
    known: dict[str, OpenAxis] = {}
    conditions: dict[tuple[str, int], str] = {}
    for node in found:
        node.name = str(node.outputs[0].name)
        shapes = [static_shape(value) if value is not None else None for value in node.inputs]
        largest = _largest(node, shapes)
        if node.op_type == "Compress":
            shape, axis = largest[0]
            node.name = conditions.setdefault((str(operand(node, 1).name), shape[axis or 0]), node.name)
        for value, (shape, axis) in zip(node.outputs, largest, strict=False):
            if not value.name:
                continue
            value.shape = onnx_ir.Shape(shape)
            if axis is not None:
                known[value.name] = OpenAxis(axis, node.name)
    if any(value.uses() for node in found for value in node.outputs):
        _forget_shapes(graph, known)
        infer_shapes(graph)
        _spread(graph, known)
    sizes = {str(value.name): static_shape(value) for value in graph.graph.outputs}
    return {
        name: tuple(_open(known[name].dim) if at == known[name].axis else Extent(size) for at, size in enumerate(shape))
        for name, shape in sizes.items()
        if name in known and shape is not None
    }


def _open(dim: str) -> Extent:
    return Extent(0, ((1, (Quotient(dim),)),))


def _computed(graph: onnx_ir.Model) -> set[str]:
    """The values that depend on what is in the inputs, as against their shapes alone."""
    found = {str(value.name) for value in graph.graph.inputs}
    for node in graph.graph:
        random = is_op(node, *RANDOM)
        inside = any(subgraphs(node))
        reads = any(value is not None and str(value.name) in found for value in node.inputs)
        if random or inside or (reads and not is_op(node, "Shape", "Size")):
            found |= {str(value.name) for value in node.outputs}
    return found


def _bounded(graph: onnx_ir.Model, computed: Collection[str]) -> list[onnx_ir.Node]:
    return [node for node in graph.graph if is_op(node, *SELECTING) and _is_bounded(node, computed)]


def _is_bounded(node: onnx_ir.Node, computed: Collection[str]) -> bool:
    """Whether its largest shapes are known. What exporters make of constants to make shapes is left to folding."""
    used = any(value.uses() for value in node.outputs)
    if used and not any(value is not None and str(value.name) in computed for value in node.inputs):
        return False
    return all(value is None or static_shape(value) is not None for value in node.inputs)


def _forget_shapes(graph: onnx_ir.Model, known: Mapping[str, OpenAxis]) -> None:
    """Shapes that are not static, of what is made of open values, are forgotten: inference finds the largest."""
    made = set(known)
    for node in graph.graph:
        if not any(value is not None and str(value.name) in made for value in node.inputs):
            continue
        for value in node.outputs:
            made.add(str(value.name))
            if static_shape(value) is None:
                value.shape = None


def _spread(graph: onnx_ir.Model, known: dict[str, OpenAxis]) -> None:
    """Add to `known` what other nodes make of open values. Raises ModelError."""
    for node in graph.graph:
        inner = {value for part in subgraphs(node) for each in part for value in each.inputs if value is not None}
        used = [value for value in (*node.inputs, *inner) if value is not None and str(value.name) in known]
        if not used:
            continue
        found = open_outputs_of(node, known) if not inner else "control flow cannot"
        if isinstance(found, str):
            dim = known[str(used[0].name)].dim
            raise ModelError(
                f"{node_text(node)} uses what `{dim}` selects, as much as the data say: {found}",
                "cut the model before it, and make what it uses an output",
            )
        known |= {str(value.name): found for value in node.outputs if value.name}


def refuse_used(model: Model) -> None:
    """Raise ModelError where an operator selects as much as the data say, and how much that is, is not known."""
    known = {extent.dim for spec in model.outputs for extent in spec.extents}
    for node in model.graph.graph:
        if is_op(node, *SELECTING) and label(node) not in known:
            raise ModelError(
                f"{node_text(node)} selects as many elements as the data say, which cannot be compiled here",
                "cut the model behind it, and make what it selects an output",
            )


def used_selections(model: Model) -> set[str]:
    """The names of operators that select what others use: it has to lie where it would if all were selected."""
    return {
        label(node)
        for node in model.graph.graph
        if is_op(node, *SELECTING) and any(value.uses() for value in node.outputs)
    }


def most_boxes(boxes: int, most: int | None) -> int:
    """How many boxes NonMaxSuppression selects of each class at most, where it is told a constant number or none."""
    return min(boxes, most) if most is not None and most > 0 else boxes


def _largest(node: onnx_ir.Node, shapes: list[tuple[int, ...] | None]) -> list[tuple[tuple[int, ...], int | None]]:
    """The largest shape of each output, and its open axis."""
    x = shapes[0] or ()
    given = node.attributes.get("axis")
    line = given is None
    axis = 0 if given is None else int(given.value)
    if not line and not -len(x) <= axis < len(x):
        raise ModelError(f"{node.op_type} `{node.name}`: its axis is {axis}, and its input has {len(x)} axes")
    axis = axis % len(x) if not line else 0
    if node.op_type == "NonZero":
        return [((len(x), prod(x)), 1)]
    if node.op_type == "NonMaxSuppression":
        scores = shapes[1] or ()
        if len(x) != 3 or len(scores) != 3 or x[2] != 4 or x[0] != scores[0] or x[1] != scores[2]:
            raise ModelError(f"NonMaxSuppression `{node.name}`: boxes of {x} do not go with scores of {scores}")
        told = scalar(node.inputs[2]) if len(node.inputs) > 2 else None
        most = most_boxes(scores[2], None if told is None else int(told))
        return [((scores[0] * scores[1] * most, 3), 0)]
    n = prod(x) if line else x[axis]
    if node.op_type == "Compress":
        condition = shapes[1] or ()
        if len(condition) != 1:
            raise ModelError(f"Compress `{node.name}`: its condition has {len(condition)} axes, not one")
        n = min(n, condition[0])
    whole = ((n,) if line else (*x[:axis], n, *x[axis + 1 :]), axis)
    return [whole] if node.op_type == "Compress" else [whole, ((n,), 0), ((n,), None), ((n,), 0)]
