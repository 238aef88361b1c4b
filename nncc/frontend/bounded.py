"""Operators whose outputs' shapes depend on the data: the largest shapes of their outputs, and which axis is open."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.masked import MASKED, mask
from nncc.frontend.open_axes import OpenAxis, Refused, Use, open_outputs_of
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

    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.remove_unused import merge_equal, remove_unused

    if select_run_time_sizes(graph, _computed(graph)):
        infer_shapes(graph)
    if any(value.uses() for node in _bounded(graph) for value in node.outputs):
        remove_unused(graph)
        merge_equal(graph)  # two operators that select the same have one size
    masked: dict[onnx_ir.Node, OpenAxis | None] = {}
    while True:
        found = _bounded(graph)
        known = _selected(found)
        if not any(value.uses() for node in found for value in node.outputs):
            break
        _forget_shapes(graph, known)
        infer_shapes(graph)
        more = len(_bounded(graph)) > len(found)  # what selects of what is selected
        if not more and not _spread(graph, known, found, masked):
            break
    sizes = {str(value.name): static_shape(value) for value in graph.graph.outputs}
    return {
        name: tuple(_open(known[name].dim) if at == known[name].axis else Extent(size) for at, size in enumerate(shape))
        for name, shape in sizes.items()
        if name in known and shape is not None
    }


def _selected(found: Sequence[onnx_ir.Node]) -> dict[str, OpenAxis]:
    """Give the outputs of operators that select their largest shapes; their open axes by name."""
    import onnx_ir

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
    return known


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


def _bounded(graph: onnx_ir.Model) -> list[onnx_ir.Node]:
    """The operators that select, whose largest shapes are known."""
    computed = _computed(graph)
    return [node for node in graph.graph if is_op(node, *SELECTING) and _is_bounded(node, computed)]


def _is_bounded(node: onnx_ir.Node, computed: Collection[str]) -> bool:
    """Whether its largest shapes are known. What exporters make of constants to make shapes is left to folding."""
    used = any(value.uses() for value in node.outputs)
    if used and not any(value is not None and str(value.name) in computed for value in node.inputs):
        return False
    return all(value is None or static_shape(value) is not None for value in node.inputs)


def _forget_shapes(graph: onnx_ir.Model, known: Mapping[str, OpenAxis]) -> None:
    """Shapes of what is made of open values, but for those, are forgotten: inference finds the largest."""
    made = set(known)
    for node in graph.graph:
        if not any(value is not None and str(value.name) in made for value in node.inputs):
            continue
        made |= {str(value.name) for value in node.outputs}
        if not is_op(node, *SELECTING):
            for value in node.outputs:
                value.shape = None


def _spread(
    graph: onnx_ir.Model,
    known: dict[str, OpenAxis],
    found: Sequence[onnx_ir.Node],
    masked: dict[onnx_ir.Node, OpenAxis | None],
) -> bool:
    """Add to `known` what other nodes make of open values, up to one that has to be rewritten; whether there was one.

    That is added to `masked`. `found` are the operators that select. Raises ModelError.
    """
    selecting: dict[str, onnx_ir.Node] = {}
    for node in found:
        selecting.setdefault(str(node.name), node)
    for node in tuple(graph.graph):
        inner = {value for part in subgraphs(node) for each in part for value in each.inputs if value is not None}
        used = [value for value in (*node.inputs, *inner) if value is not None and str(value.name) in known]
        if not used:
            continue
        if node in masked:
            axis = masked[node]
        else:
            use = Use(node, known)
            axis_or_reason = open_outputs_of(use) if not inner else "control flow cannot"
            if isinstance(axis_or_reason, str):
                try:
                    masked |= mask(use, selecting)
                    return True
                except Refused as refused:
                    reason = str(refused) if node.op_type in MASKED else axis_or_reason
                dim = known[str(used[0].name)].dim
                raise ModelError(
                    f"{node_text(node)} uses what `{dim}` selects, as much as the data say: {reason}",
                    "cut the model before it, and make what it uses an output",
                )
            axis = axis_or_reason
        if axis is not None:
            known |= {str(value.name): axis for value in node.outputs if value.name}
    return False


def refuse_used(model: Model) -> None:
    """Raise ModelError where an operator selects as much as the data say, and how much at most, is not known."""
    for node in model.graph.graph:
        needed = [value for value in node.outputs if value.uses() or value.is_graph_output()]
        if is_op(node, *SELECTING) and any(static_shape(value) is None for value in needed):
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
