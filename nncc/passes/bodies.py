"""Subgraphs as graphs of their own: what they capture from around them becomes inputs, or constants.

If(c){ f(x) | g(x, y) }                    bodies f'(x, y), g'(x, y)
Loop(M, c, v..){ (i, c, v..) -> c', v'.., s.. }   body (i, v.., captured) -> c', v'.., s..; inside, c is true
Scan(v.., x..){ (v.., x[t]..) -> v'.., s.. }      body (i, v.., x[t].., captured) -> v'.., s..
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.rewriting import attribute, constant, is_op, scalar, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["LoopNode", "branch_bodies", "captured_values", "is_region", "loop_body", "loop_node", "subgraphs"]


@dataclass(frozen=True)
class LoopNode:
    """A Loop or a Scan, in the same terms."""

    body: onnx_ir.Graph
    trips: int | None
    """Iterations, where they are known."""
    most: onnx_ir.Value | None
    """The value that says the most iterations, where it is not known."""
    condition: onnx_ir.Value | None
    """Whether there is a first iteration, where that is not known to be so."""
    carried: tuple[onnx_ir.Value, ...]
    scanned: tuple[onnx_ir.Value, ...]
    scan_axes: tuple[int, ...]
    """For each of `scanned`, along which axis slices are taken; may be negative."""
    backwards: tuple[bool, ...]
    """For each of `scanned`, whether from its end."""
    stack_axes: tuple[int, ...]
    stack_backwards: tuple[bool, ...]
    """The same for what is stacked."""
    has_counter: bool
    """Whether the subgraph's first inputs are the iteration's number and the condition, and its first output that."""


def is_region(node: onnx_ir.Node) -> bool:
    """Whether `node` is control flow."""
    return is_op(node, "If", "Loop", "Scan")


def subgraphs(node: onnx_ir.Node) -> Iterator[onnx_ir.Graph]:
    """The graphs among the attributes of `node`."""
    import onnx_ir

    for attr in node.attributes.values():
        if attr.type == onnx_ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == onnx_ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()


def captured_values(graphs: Sequence[onnx_ir.Graph]) -> list[onnx_ir.Value]:
    """The values from around the graphs that they read or give, in the order in which they do."""
    inside: set[onnx_ir.Value] = set()
    read: dict[onnx_ir.Value, None] = {}

    def look(graph: onnx_ir.Graph) -> None:
        inside.update(graph.inputs, graph.initializers.values())
        for node in graph:
            inside.update(node.outputs)
            read.update(dict.fromkeys(value for value in node.inputs if value is not None))
            for inner in subgraphs(node):
                look(inner)
        read.update(dict.fromkeys(graph.outputs))

    for graph in graphs:
        look(graph)
    return [value for value in read if value not in inside]


def branch_bodies(node: onnx_ir.Node) -> tuple[list[onnx_ir.Graph], list[onnx_ir.Value]]:
    """The graphs of an If, then and else, and the values that both take as inputs, in this order."""
    graphs = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
    captured = captured_values(graphs)
    inputs = [value for value in captured if constant(value) is None]
    constants = [value for value in captured if constant(value) is not None]
    return [_standalone(graph, {}, [], inputs, constants) for graph in graphs], inputs


def loop_node(node: onnx_ir.Node) -> LoopNode:
    """A Loop or Scan in the same terms. Raises ModelError for what an old opset allowed and is not done."""
    body = node.attributes["body"].as_graph()
    values = list(node.inputs)
    if is_op(node, "Loop"):
        limit, condition, *carried = values
        trips = None if limit is None else scalar(limit)
        most = limit if trips is None else None
        if condition is not None and (first := scalar(condition)) is not None:
            condition = None
            trips = trips if first else 0
        stacked = len(body.outputs) - 1 - len(carried)
        if trips is not None:
            trips = max(0, int(trips))
            most = None
        return LoopNode(
            body, trips, most, condition, _given(carried), (), (), (), (0,) * stacked, (False,) * stacked, True
        )
    if len(values) != len(body.inputs):  # before opset 9, it went over batches, and had their lengths in front
        raise ModelError(
            "it is that of opset 8, over batches, which cannot be compiled", "export the model again with a newer opset"
        )
    scans = int(attribute(node, "num_scan_inputs", 0))
    carried, scanned = values[: len(values) - scans], _given(values[len(values) - scans :])
    axes = tuple(attribute(node, "scan_input_axes", None) or [0] * scans)
    backwards = tuple(bool(d) for d in attribute(node, "scan_input_directions", None) or [0] * scans)
    stacked = len(body.outputs) - len(carried)
    stack_axes = tuple(attribute(node, "scan_output_axes", None) or [0] * stacked)
    stack_backwards = tuple(bool(d) for d in attribute(node, "scan_output_directions", None) or [0] * stacked)
    shape = static_shape(scanned[0]) if scanned else None
    trips = shape[axes[0]] if shape is not None else None
    return LoopNode(
        body, trips, None, None, _given(carried), scanned, axes, backwards, stack_axes, stack_backwards, False
    )


def _given(values: Sequence[onnx_ir.Value | None]) -> tuple[onnx_ir.Value, ...]:
    return tuple(value for value in values if value is not None)


def loop_body(loop: LoopNode) -> tuple[onnx_ir.Graph, list[onnx_ir.Value]]:
    """The body as a graph that takes the iteration's number, the carried values, slices and what is captured; and the
    values that it captures, in this order. Carried values and slices have the types of what they begin with.
    """
    import onnx_ir

    captured = captured_values([loop.body])
    inputs = [value for value in captured if constant(value) is None]
    constants = [value for value in captured if constant(value) is not None]
    counter = onnx_ir.Value(name="iteration", type=onnx_ir.TensorType(onnx_ir.DataType.INT64), shape=onnx_ir.Shape(()))
    formals = list(loop.body.inputs)
    given: dict[onnx_ir.Value, onnx_ir.Value] = {}
    if loop.has_counter:
        number, condition, *formals = formals
        counter.name = number.name or counter.name
        given[number] = counter
        given[condition] = _truth(str(condition.name))
    arguments: list[onnx_ir.Value] = []
    for formal, value in zip(formals, (*loop.carried, *loop.scanned), strict=False):
        shape = static_shape(value)
        at = len(arguments) - len(loop.carried)
        if at >= 0 and shape is not None:
            axis = loop.scan_axes[at] % len(shape)
            shape = shape[:axis] + shape[axis + 1 :]
        made = onnx_ir.Value(name=formal.name, type=value.type, shape=None if shape is None else onnx_ir.Shape(shape))
        given[formal] = made
        arguments.append(made)
    return _standalone(loop.body, given, [counter, *arguments], inputs, constants), inputs


def _truth(name: str) -> onnx_ir.Value:
    import numpy as np
    import onnx_ir

    tensor = onnx_ir.tensor(np.array(True), name=name)
    return onnx_ir.Value(
        name=name, type=onnx_ir.TensorType(onnx_ir.DataType.BOOL), shape=onnx_ir.Shape(()), const_value=tensor
    )


def _standalone(
    graph: onnx_ir.Graph,
    given: dict[onnx_ir.Value, onnx_ir.Value],
    arguments: Sequence[onnx_ir.Value],
    inputs: Sequence[onnx_ir.Value],
    constants: Sequence[onnx_ir.Value],
) -> onnx_ir.Graph:
    """A copy of a subgraph whose inputs are `arguments` and then `inputs`, which it captures, as it does `constants`.

    `given` says what its own inputs have become. Shapes that were written beside its values are forgotten: they may
    come from before the shapes around it were known.
    """
    import onnx_ir
    from onnx_ir._cloner import Cloner

    taken = {value.name for node in onnx_ir.traversal.RecursiveGraphIterator(graph) for value in node.outputs}
    taken |= {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
    values: dict[onnx_ir.Value, onnx_ir.Value | None] = dict(given)
    captured = []
    for value in (*inputs, *constants):
        name = str(value.name)
        while name in taken:
            name += "_outer"
        taken.add(name)
        known = value.const_value if value in constants else None
        if known is None and value in constants:
            known = onnx_ir.convenience.get_const_tensor(value)
        shape = value.shape if known is None else onnx_ir.Shape(known.numpy().shape)
        copy = onnx_ir.Value(name=name, type=value.type, shape=shape, const_value=known)
        if known is not None and copy.type is None:
            copy.type = onnx_ir.TensorType(known.dtype)
        values[value] = copy
        captured.append(copy)
    cloner = Cloner(attr_map={}, value_map=values, metadata_props={})
    made = cloner.clone_graph(graph)
    made.inputs.clear()
    made.inputs.extend([*arguments, *captured[: len(inputs)]])
    for copy in captured[len(inputs) :]:
        made.register_initializer(copy)
    for value in given.values():
        if value.const_value is not None:
            made.register_initializer(value)
    for node in onnx_ir.traversal.RecursiveGraphIterator(made):
        for value in node.outputs:
            value.shape = None
    return made
