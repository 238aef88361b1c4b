"""Some nodes of a graph as a model of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nncc.ir import Model
from nncc.passes.bodies import subgraphs
from nncc.passes.rewriting import static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["boundary", "part"]


def part(model: Model, nodes: Sequence[onnx_ir.Node]) -> Model | None:
    """The model of these nodes of the main graph, constants included: what they read of others are its inputs, what
    others read of them, and outputs of the whole, its outputs, in the order of the nodes.

    None where the type or the shape of one of these values is not known.
    """
    import onnx_ir

    from nncc.frontend.specs import specs

    found = boundary(model, nodes)
    if found is None:
        return None
    extracted = onnx_ir.convenience.extract(model.graph.graph, *found)
    whole = onnx_ir.Model(extracted, ir_version=model.graph.ir_version)
    return Model(whole, model.name, specs(extracted.inputs, "input"), specs(extracted.outputs, "output"))


def boundary(model: Model, nodes: Sequence[onnx_ir.Node]) -> tuple[list[onnx_ir.Value], list[onnx_ir.Value]] | None:
    """The inputs and outputs of `part`, or None."""
    graph = model.graph.graph
    inside = set(nodes)
    made = {value for node in nodes for value in node.outputs}
    inputs = list(dict.fromkeys(v for node in nodes for v in _read(node) if v not in made and not _is_constant(v)))
    wanted = {v for node in graph if node not in inside for v in _read(node)} | set(graph.outputs)
    outputs = [value for node in nodes for value in node.outputs if value in wanted]
    if not outputs or any(value.dtype is None or static_shape(value) is None for value in (*inputs, *outputs)):
        return None
    return inputs, outputs


def _is_constant(value: onnx_ir.Value) -> bool:
    return value.const_value is not None and value.producer() is None


def _read(node: onnx_ir.Node) -> Iterable[onnx_ir.Value]:
    """What a node reads of the main graph, in its subgraphs too."""
    import onnx_ir

    main = node.graph
    for value in node.inputs:
        if value is not None:
            yield value
    for inner in subgraphs(node):
        for each in onnx_ir.traversal.RecursiveGraphIterator(inner):
            yield from (value for value in each.inputs if value is not None and value.graph is main)
