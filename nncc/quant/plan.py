"""Which operators compute on integers, and which activations are quantized for them.

Products are integer wherever they can be. What lies between them is integer where it comes from integers and goes to
integers: a normalization in the middle of a transformer stays float, and so does what follows the last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import constant, is_op, only_use, operand
from nncc.quant.operators import (
    clamps,
    data_inputs,
    is_arithmetic,
    is_float,
    is_function,
    is_movement,
    is_product,
)

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Plan", "bias_add", "candidates", "plan", "source"]


@dataclass(frozen=True)
class Plan:
    """What becomes of a graph.

    `nodes` compute on integers, in the graph's order. `values` are quantized, in order: between them lie single
    operators, operators with the bias and the clamp that belong to them, and chains that are functions of one value.
    `heads` says, for each quantized value, from which one it takes its scale: itself, or what it was moved from.
    """

    nodes: tuple[onnx_ir.Node, ...]
    values: tuple[onnx_ir.Value, ...]
    heads: Mapping[str, str]


def candidates(graph: onnx_ir.Model) -> list[onnx_ir.Node]:
    """Every node that could compute on integers, if what is around it does."""
    return [n for n in graph.graph if is_product(n) or is_arithmetic(n) or is_movement(n) or is_function(n)]


def bias_add(node: onnx_ir.Node) -> onnx_ir.Node | None:
    """The Add of a constant row that follows a MatMul, and only follows it: its bias."""
    if not is_op(node, "MatMul"):
        return None
    user = only_use(node.outputs[0])
    if user is None or not is_op(user, "Add"):
        return None
    row = constant(next(v for v in user.inputs if v is not node.outputs[0]))
    weight = constant(operand(node, 1))
    fits = row is not None and weight is not None and weight.ndim == 2 and row.shape == weight.shape[1:]
    return user if fits else None


def source(value: onnx_ir.Value) -> onnx_ir.Value:
    """What `value` was moved from, over any number of movements."""
    while (producer := value.producer()) is not None and is_movement(producer):
        value = operand(producer)
    return value


def plan(graph: onnx_ir.Model, is_integer: Callable[[onnx_ir.Node], bool] = lambda node: True) -> Plan:
    """The plan in which no node stays float but those for which `is_integer` is false, and those that must."""
    nodes = [node for node in candidates(graph) if is_integer(node)]
    integer = _connected(nodes)
    nodes = [node for node in nodes if node in integer]
    quantized = _quantized(_steps(nodes, integer))
    every = [*graph.graph.inputs, *(out for node in graph.graph for out in node.outputs)]
    values = [value for value in every if value in quantized]
    return Plan(tuple(nodes), tuple(values), _heads(values, integer))


def _connected(nodes: list[onnx_ir.Node]) -> set[onnx_ir.Node]:
    """Drop what has a float input or no integer reader, until nothing changes. Products are never dropped."""
    integer = set(nodes)
    while True:
        dropped = {node for node in integer if not is_product(node) and not _has_place(node, integer)}
        if not dropped:
            return integer
        integer -= dropped


def _has_place(node: onnx_ir.Node, integer: set[onnx_ir.Node]) -> bool:
    inputs = data_inputs(node)
    producers = [value.producer() for value in inputs]
    carried = bool(inputs) and all(producer is None or producer in integer for producer in producers)
    return carried and any(user in integer for out in node.outputs for user, _ in out.uses())


@dataclass(frozen=True)
class _Step:
    """An integer operator with the bias and the clamp that belong to it: what it reads, where its result is."""

    node: onnx_ir.Node
    inputs: tuple[onnx_ir.Value, ...]
    result: onnx_ir.Value

    @property
    def folds(self) -> bool:
        """Whether it is a function of one value if all that it reads is."""
        pair = is_op(self.node, "Add", "Mul", "Sub") and len(self.inputs) == len(self.node.inputs)
        return pair or is_function(self.node)


def _steps(nodes: list[onnx_ir.Node], integer: set[onnx_ir.Node]) -> list[_Step]:
    steps, absorbed = [], set()
    for node in nodes:
        if node in absorbed:
            continue
        result = node.outputs[0]
        if is_product(node) or (is_op(node, "Add", "Mul", "Sub") and not is_function(node)):
            if (add := bias_add(node)) is not None and add in integer:
                absorbed.add(add)
                result = add.outputs[0]
            if (clamp := clamps(result)) is not None and clamp in integer:
                absorbed.add(clamp)
                result = clamp.outputs[0]
        steps.append(_Step(node, tuple(data_inputs(node)), result))
    return steps


def _quantized(steps: list[_Step]) -> set[onnx_ir.Value]:
    """What integer operators read, and the ends of chains of functions of one value; within chains, nothing.

    The root of a value is the quantized value that it is a function of. What an operator that is no such function
    reads is its own root. That adds roots, which makes operators of two values out of functions of one: again, until
    nothing changes.
    """
    read: set[onnx_ir.Value] = set()
    while True:
        roots: dict[onnx_ir.Value, onnx_ir.Value] = {}
        origins: dict[onnx_ir.Value, onnx_ir.Value] = {}
        more: set[onnx_ir.Value] = set()
        for step in steps:
            found = {roots.get(value, value) for value in step.inputs}
            if step.folds and len(found) == 1:
                (origins[step.result],) = found
                roots[step.result] = step.result if step.result in read else origins[step.result]
            else:
                more |= set(step.inputs)
        if more <= read:
            break
        read |= more
    starts = {origins[value] for value in read if value in origins}
    convolved = {step.result for step in steps if is_op(step.node, "Conv", "ConvTranspose")}
    return {value for value in read | starts | convolved if is_float(value)}


def _heads(values: list[onnx_ir.Value], integer: set[onnx_ir.Node]) -> dict[str, str]:
    quantized, heads = set(values), {}
    for value in values:
        head, producer = value, value.producer()
        while producer is not None and producer in integer and is_movement(producer) and operand(producer) in quantized:
            head, producer = operand(producer), operand(producer).producer()
        heads[str(value.name)] = str(head.name)
    return heads
