"""A short loop whose iterations are known is its body, again and again.

    Loop(n, v){ f(i, v) }  =  f(n-1, .. f(1, f(0, v)))       Scan(v, x){ f(v, x[t]) }  =  .. f(f(v, x[0]), x[1])

What is stacked becomes a concatenation. Loops that carry sequences are expanded even where they are long: lists have no
place in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.bodies import LoopNode, loop_node, subgraphs
from nncc.passes.grids import opset
from nncc.passes.infer_regions import always
from nncc.passes.rewriting import Report, add_constant, insert_before, is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["MOST_NODES", "expand_loops"]

MOST_NODES = 48
"""Operators that a loop may become: more are kept as a loop, whose body is compiled once."""
_MOST_NODES_OF_LISTS = 2000
"""The same for loops that cannot be kept."""
_MOST_NODES_OF_MODEL = 20_000
"""Nothing is expanded in a model that has or would have more: loops in loops multiply."""


def expand_loops(graph: onnx_ir.Model) -> Report:
    """Expand in place."""
    report = Report()
    size = _count(graph.graph)
    for node in tuple(graph.graph):
        if not is_op(node, "Loop", "Scan") or opset(graph) < 9:
            continue
        loop = loop_node(node)
        most = _MOST_NODES_OF_LISTS if _has_lists(loop) else MOST_NODES
        reason = _obstacle(loop, min(most, max(0, _MOST_NODES_OF_MODEL - size)))
        if reason:
            report.skip(node, reason)
            continue
        size += (loop.trips or 0) * _count(loop.body)
        _Expansion(graph, node, loop).expand()
        report.rewrites += 1
    return report


def _has_lists(loop: LoopNode) -> bool:
    import onnx_ir

    return any(
        isinstance(value.type, onnx_ir.SequenceType | onnx_ir.OptionalType)
        for value in (*loop.carried, *loop.body.inputs, *loop.body.outputs)
    )


def _obstacle(loop: LoopNode, most: int) -> str:
    if loop.trips is None or loop.condition is not None:
        return "how often it runs is known at run time only"
    if loop.has_counter and not always(loop.body.outputs[0], loop.body.inputs[1]):
        return "it may end early, which is known at run time only"
    if loop.trips == 0 and loop.stack_axes:
        return "it stacks nothing, and so nothing says of which type"
    nodes = loop.trips * max(1, _count(loop.body))
    return f"it would become {nodes} operators" if nodes > most else ""


def _count(graph: onnx_ir.Graph) -> int:
    return sum(1 + sum(map(_count, subgraphs(node))) for node in graph)


@dataclass
class _Expansion:
    """One loop on its way."""

    model: onnx_ir.Model
    node: onnx_ir.Node
    loop: LoopNode

    def expand(self) -> None:
        import numpy as np
        from onnx_ir._cloner import Cloner

        node, loop = self.node, self.loop
        graph = self.model.graph
        stem = node.name or str(node.outputs[0].name)
        carried = list(loop.carried)
        stacks: list[list[onnx_ir.Value]] = [[] for _ in loop.stack_axes]
        shared = {value: add_constant(graph, value.const_value.numpy(), f"{stem}/{value.name}")
                  for value in loop.body.initializers.values() if value.const_value is not None}  # fmt: skip
        for number in range(loop.trips or 0):
            given: list[onnx_ir.Value] = [*carried, *self.slices(number, stem)]
            if loop.has_counter:
                counter = add_constant(graph, np.array(number, np.int64), f"{stem}/{number}")
                given = [counter, add_constant(graph, np.array(True), f"{stem}/true"), *given]
            values: dict[onnx_ir.Value, onnx_ir.Value | None] = dict(zip(loop.body.inputs, given, strict=True))
            values |= shared

            def rename(made: onnx_ir.Node, mark: str = f"{stem}/{number}") -> None:
                made.name = f"{mark}/{made.name or made.op_type}"
                for value in made.outputs:
                    if value.name:
                        value.name = f"{mark}/{value.name}"

            cloner = Cloner(
                attr_map={}, value_map=values, metadata_props={}, post_process=rename, allow_outer_scope_values=True
            )
            for inner in loop.body:
                graph.insert_before(node, cloner.clone_node(inner))
            results = [values.get(value, value) or value for value in loop.body.outputs][loop.has_counter :]
            carried = results[: len(carried)]
            for stack, value in zip(stacks, results[len(carried) :], strict=True):
                stack.append(value)
        for at, (stack, axis, backwards) in enumerate(zip(stacks, loop.stack_axes, loop.stack_backwards, strict=True)):
            carried.append(self.stacked(stack[::-1] if backwards else stack, axis, f"{stem}/stack_{at}"))
        for old, new in zip(node.outputs, carried, strict=True):
            same = insert_before(node, "Identity", [new], name=f"{stem}/{old.name}", like=old)
            same.name, old.name = old.name, f"{old.name}/replaced"
            old.replace_all_uses_with(same, replace_graph_outputs=True)
        graph.remove(node, safe=True)

    def slices(self, number: int, stem: str) -> list[onnx_ir.Value]:
        """What iteration `number` gets of each scanned value."""
        import numpy as np

        found = []
        loop = self.loop
        for at, (value, axis, backwards) in enumerate(zip(loop.scanned, loop.scan_axes, loop.backwards, strict=True)):
            index = (loop.trips or 0) - 1 - number if backwards else number
            where = add_constant(self.model.graph, np.array(index, np.int64), f"{stem}/{number}/at_{at}")
            name = f"{stem}/{number}/slice_{at}"
            found.append(insert_before(self.node, "Gather", [value, where], name=name, axis=axis))
            found[-1].type = value.type
        return found

    def stacked(self, values: list[onnx_ir.Value], axis: int, stem: str) -> onnx_ir.Value:
        """One value of those of all iterations, along a new axis."""
        import numpy as np

        pieces = []
        for number, value in enumerate(values):
            name = f"{stem}/{number}"
            if opset(self.model) < 13:
                pieces.append(insert_before(self.node, "Unsqueeze", [value], name=name, axes=[axis]))
            else:
                where = add_constant(self.model.graph, np.array([axis], np.int64), f"{stem}/axis")
                pieces.append(insert_before(self.node, "Unsqueeze", [value, where], name=name))
            pieces[-1].type = value.type
        made = insert_before(self.node, "Concat", pieces, name=stem, axis=axis)
        made.type = values[0].type
        return made
