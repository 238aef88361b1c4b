"""The vocabulary of graph passes: reports with reasons, constants, and replacing a value without losing its name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = [
    "Before",
    "Report",
    "add_constant",
    "attribute",
    "constant",
    "insert_before",
    "is_op",
    "label",
    "node_text",
    "only_use",
    "operand",
    "quiet",
    "scalar",
    "static_shape",
    "substitute",
]


@dataclass
class Report:
    """What one pass did: the number of rewrites, and for nodes it looked at and left, the reason."""

    rewrites: int = 0
    refusals: dict[str, str] = field(default_factory=dict)

    def skip(self, node: onnx_ir.Node, why: str) -> None:
        """Note that `node` was left as it is, and why."""
        self.refusals[node.name or str(node.outputs[0].name)] = why


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of onnx_ir and onnxscript out of stderr: what matters is in an error or a report."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def label(node: onnx_ir.Node) -> str:
    """A node's name, or that of its first output that has one, or its operator."""
    return node.name or next((str(value.name) for value in node.outputs if value.name), node.op_type)


def node_text(node: onnx_ir.Node) -> str:
    """A node for errors: its operator, and its name or that of its first output."""
    return f"{node.op_type} `{node.name or node.outputs[0].name}`"


def is_op(node: onnx_ir.Node | None, *ops: str) -> TypeGuard[onnx_ir.Node]:
    """Whether `node` is one of these operators of the standard domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in ops


def constant(value: onnx_ir.Value | None) -> np.ndarray | None:
    """The array behind an initializer or a Constant node; None for anything computed or missing."""
    import onnx_ir

    if value is None or value.is_graph_input():
        return None
    producer = value.producer()
    if producer is not None and not is_op(producer, "Constant"):
        return None
    tensor = onnx_ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.dtype == onnx_ir.DataType.STRING:
        return None
    return tensor.numpy()


def scalar(value: onnx_ir.Value | None) -> float | int | bool | None:
    """The one number that a constant holds; None where it is not constant or holds several."""
    array = constant(value)
    return None if array is None or array.size != 1 else array.reshape(()).item()


def attribute(node: onnx_ir.Node, name: str, default=None):
    """The plain value of an attribute (strings decoded), or `default`."""
    attr = node.attributes.get(name)
    if attr is None or attr.is_ref():
        return default
    return list(attr.value) if isinstance(attr.value, (list, tuple)) else attr.value


def static_shape(value: onnx_ir.Value | None) -> tuple[int, ...] | None:
    """The shape as numbers; None where any dimension is unknown."""
    if value is None or value.shape is None or not all(isinstance(d, int) and d >= 0 for d in value.shape):
        return None
    return tuple(d for d in value.shape if isinstance(d, int))


def operand(node: onnx_ir.Node, at: int = 0) -> onnx_ir.Value:
    """Operand `at` of a checked graph, which the operator's definition says is there."""
    value = node.inputs[at]
    assert value is not None
    return value


def only_use(value: onnx_ir.Value) -> onnx_ir.Node | None:
    """The one node that reads `value`, once; None if there are more, none, or if it is a graph output."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses))[0]


def _free_name(graph: onnx_ir.Graph, name: str) -> str:
    taken = graph.initializers
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def add_constant(graph: onnx_ir.Graph, array: np.ndarray, name: str) -> onnx_ir.Value:
    """A new initializer of `graph`; its name starts with `name` and is free."""
    import numpy as np
    import onnx_ir

    array = np.ascontiguousarray(array).reshape(array.shape)
    value = onnx_ir.Value(name=_free_name(graph, f"{name}/nncc"))
    value.const_value = onnx_ir.tensor(array, name=value.name)
    value.shape = onnx_ir.Shape(array.shape)
    value.type = onnx_ir.TensorType(value.const_value.dtype)
    graph.register_initializer(value)
    return value


def insert_before(
    at: onnx_ir.Node,
    op: str,
    inputs: Sequence[onnx_ir.Value | None],
    *,
    name: str,
    like: onnx_ir.Value | None = None,
    shape: Sequence[int] | None = None,
    **attributes,
) -> onnx_ir.Value:
    """Insert a one-output operator before `at` and return its output, typed as `like` (with `shape` if given)."""
    import onnx_ir

    node = onnx_ir.node(op, inputs, attributes={k: v for k, v in attributes.items() if v is not None}, name=name)
    out = node.outputs[0]
    out.name = f"{name}/nncc_{op}"
    if like is not None:
        out.type = like.type
        out.shape = onnx_ir.Shape(shape) if shape is not None else like.shape
    assert at.graph is not None
    at.graph.insert_before(at, node)
    return out


class Before:
    """Inserts operators before a node, named after it, whose types and shapes are left to inference."""

    def __init__(self, node: onnx_ir.Node) -> None:
        assert node.graph is not None
        self.node, self.graph, self._made = node, node.graph, 0
        self.name = label(node)

    def op(self, kind: str, *inputs: onnx_ir.Value, **attributes: Any) -> onnx_ir.Value:
        """The result of an operator."""
        self._made += 1
        return insert_before(self.node, kind, inputs, name=f"{self.name}/{self._made}", **attributes)

    def numbers(self, values: Sequence[int]) -> onnx_ir.Value:
        """A constant line of int64."""
        import numpy as np

        return add_constant(self.graph, np.array(values, np.int64), self.name)


def substitute(old: onnx_ir.Value, new: onnx_ir.Value) -> None:
    """Let everything that reads `old` read `new`, and remove the node that makes `old` if nothing needs it any more.

    A graph output keeps its name: `new` takes it over, or, where it cannot (an input, a constant, another output),
    an Identity stays between them.
    """
    node = old.producer()
    assert node is not None and node.graph is not None
    graph = node.graph
    if old.is_graph_output():
        producer = new.producer()
        if producer is not None and producer.graph is graph and not new.is_graph_output():
            name, old.name = old.name, f"{old.name}/replaced"
            new.name, new.type, new.shape = name, old.type or new.type, old.shape or new.shape
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        elif is_op(node, "Identity") and node.inputs[0] is new:
            for user, at in tuple(old.uses()):
                user.replace_input_with(at, new)
            return
        else:
            name, old.name = old.name, f"{old.name}/replaced"
            alias = insert_before(node, "Identity", [new], name=f"{name}/alias", like=old)
            alias.name = name
            old.replace_all_uses_with(alias, replace_graph_outputs=True)
            for user, at in tuple(alias.uses()):
                user.replace_input_with(at, new)
    else:
        old.replace_all_uses_with(new)
    if not any(out.uses() or out.is_graph_output() for out in node.outputs):
        graph.remove(node, safe=True)
