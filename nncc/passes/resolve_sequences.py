"""Lists of tensors that are known while compiling: who reads an element reads the tensor.

    at([x, y, z], 1) = y      length([x, y, z]) = 3      concat([x, y], axis) = Concat(x, y)
    split(x, [2, 3]) = [x[:2], x[2:]]      map([x, y]){f} = [f(x), f(y)]      Optional(x) = x

A list is what SequenceConstruct and its like make; positions and sizes must be constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nncc.passes.bodies import subgraphs
from nncc.passes.grids import opset
from nncc.passes.rewriting import Report, add_constant, attribute, constant, insert_before, scalar, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["resolve_sequences"]

_MOST = 512
"""Elements of a list: a longer one stays as it is, and is refused."""


def resolve_sequences(graph: onnx_ir.Model, open_outputs: bool = False) -> Report:
    """Rewrite in place every operator that reads a list of known tensors, and remove what only made it.

    With `open_outputs`, an output that is a list becomes as many outputs, ``x[0]``, ``x[1]`` ...
    """
    report = Report()
    lists: dict[onnx_ir.Value, list[onnx_ir.Value]] = {}
    for node in tuple(graph.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        made = _MAKERS[node.op_type](graph, node, lists) if node.op_type in _MAKERS else None
        found = _READERS[node.op_type](graph, node, lists) if node.op_type in _READERS else None
        if made is not None and len(made) <= _MOST:
            lists[node.outputs[0]] = made
        elif found is not None:
            _put(node, found)
            report.rewrites += 1
        elif node.op_type == "SequenceMap":
            report.rewrites += _map(graph, node, lists)
    for value in tuple(graph.graph.outputs) if open_outputs else ():
        elements = lists.get(value, _held(value))
        if elements is not None:
            _open(graph, value, elements)
            report.rewrites += 1
    for node in reversed(tuple(graph.graph)):
        if node.op_type in _MAKERS and not any(out.uses() or out.is_graph_output() for out in node.outputs):
            graph.graph.remove(node, safe=True)
    return report


def _put(node: onnx_ir.Node, found: onnx_ir.Value) -> None:
    """Let what reads the result of `node` read `found`."""
    old = node.outputs[0]
    same = insert_before(node, "Identity", [found], name=f"{old.name}/resolved", like=found)
    same.type, same.shape = same.type or old.type, same.shape or old.shape
    same.name, old.name = old.name, f"{old.name}/replaced"
    old.replace_all_uses_with(same, replace_graph_outputs=True)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _held(value: onnx_ir.Value) -> list[onnx_ir.Value] | None:
    """What an Optional of a tensor holds."""
    maker = value.producer()
    if maker is None or maker.op_type != "Optional" or not maker.inputs or maker.inputs[0] is None:
        return None
    import onnx_ir

    held = maker.inputs[0]
    return [held] if isinstance(held.type, onnx_ir.TensorType) else None


def _open(graph: onnx_ir.Model, value: onnx_ir.Value, elements: list[onnx_ir.Value]) -> None:
    """Put the elements of a list in the place of an output."""
    import onnx_ir

    outputs = graph.graph.outputs
    at = next(n for n, output in enumerate(outputs) if output is value)
    made = []
    for number, element in enumerate(elements):
        node = onnx_ir.node("Identity", [element], name=f"{value.name}/{number}")
        graph.graph.append(node)
        made.append(node.outputs[0])
        made[-1].name, made[-1].type, made[-1].shape = f"{value.name}[{number}]", element.type, element.shape
    outputs[at : at + 1] = made


Lists = dict["onnx_ir.Value", list["onnx_ir.Value"]]


def _list_of(value: onnx_ir.Value | None, lists: Lists) -> list[onnx_ir.Value] | None:
    return None if value is None else lists.get(value)


def _construct(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> list[onnx_ir.Value] | None:
    return [value for value in node.inputs if value is not None]


def _empty(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> list[onnx_ir.Value] | None:
    return []


def _position(node: onnx_ir.Node, at: int, length: int, last: int) -> int | None:
    """The constant position that operand `at` says, from -length to `last`; the end where there is no operand."""
    if at >= len(node.inputs) or node.inputs[at] is None:
        return last
    position = scalar(node.inputs[at])
    if position is None or not -length <= position <= last:
        return None
    return int(position) + length if position < 0 else int(position)


def _insert(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> list[onnx_ir.Value] | None:
    before, element = _list_of(node.inputs[0], lists), node.inputs[1]
    position = None if before is None else _position(node, 2, len(before), len(before))
    if before is None or position is None or element is None:
        return None
    return [*before[:position], element, *before[position:]]


def _erase(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> list[onnx_ir.Value] | None:
    before = _list_of(node.inputs[0], lists)
    position = None if not before else _position(node, 1, len(before), len(before) - 1)
    return None if before is None or position is None else before[:position] + before[position + 1 :]


def _same(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> list[onnx_ir.Value] | None:
    return _list_of(node.inputs[0], lists) if node.inputs else None


def _split(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> list[onnx_ir.Value] | None:
    """SplitToSequence: parts of the given sizes, of one size and a smaller last one, or single ones."""
    import numpy as np

    value = node.inputs[0]
    shape = static_shape(value)
    if value is None or shape is None:
        return None
    axis = int(attribute(node, "axis", 0)) % len(shape)
    sizes = [1] * shape[axis]
    single = len(node.inputs) < 2 or node.inputs[1] is None
    if not single:
        given = constant(node.inputs[1])
        if given is None:
            return None
        if given.ndim == 0:
            size = int(given)
            if size < 1:
                return None
            sizes = [min(size, shape[axis] - at) for at in range(0, shape[axis], size)]
        else:
            sizes = [int(n) for n in given]
    if len(sizes) > _MOST or sum(sizes) != shape[axis] or min(sizes, default=0) < 0:
        return None
    squeezed = single and not attribute(node, "keepdims", 1)
    found, begin = [], 0
    for number, size in enumerate(sizes):
        name = f"{node.outputs[0].name}/{number}"
        part = (*shape[:axis], size, *shape[axis + 1 :])
        if squeezed:
            index = add_constant(graph.graph, np.array(begin, np.int64), name)
            rest = shape[:axis] + shape[axis + 1 :]
            found.append(insert_before(node, "Gather", [value, index], name=name, like=value, shape=rest, axis=axis))
        else:
            bounds = [add_constant(graph.graph, np.array([n], np.int64), name) for n in (begin, begin + size, axis)]
            found.append(insert_before(node, "Slice", [value, *bounds], name=name, like=value, shape=part))
        begin += size
    return found


def _at(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> onnx_ir.Value | None:
    elements = _list_of(node.inputs[0], lists)
    position = None if not elements else _position(node, 1, len(elements), len(elements) - 1)
    return None if elements is None or position is None else elements[position]


def _length(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> onnx_ir.Value | None:
    import numpy as np

    elements = _list_of(node.inputs[0], lists)
    if elements is None:
        return None
    return add_constant(graph.graph, np.array(len(elements), np.int64), str(node.outputs[0].name))


def _concat(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> onnx_ir.Value | None:
    import numpy as np

    elements = _list_of(node.inputs[0], lists)
    if not elements:
        return None
    axis, name = int(attribute(node, "axis", 0)), str(node.outputs[0].name)
    if attribute(node, "new_axis", 0):
        if opset(graph) < 13:
            pieces = [
                insert_before(node, "Unsqueeze", [value], name=f"{name}/{n}", axes=[axis])
                for n, value in enumerate(elements)
            ]
        else:
            where = add_constant(graph.graph, np.array([axis], np.int64), f"{name}/axis")
            pieces = [
                insert_before(node, "Unsqueeze", [value, where], name=f"{name}/{n}") for n, value in enumerate(elements)
            ]
        for piece, value in zip(pieces, elements, strict=True):
            piece.type = value.type
        elements = pieces
    made = insert_before(node, "Concat", elements, name=f"{name}/pieces", axis=axis)
    made.type = elements[0].type
    return made


def _element(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> onnx_ir.Value | None:
    """OptionalGetElement of an Optional that holds a tensor."""
    maker = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    if maker is None or maker.op_type != "Optional" or not maker.inputs:
        return None
    value = maker.inputs[0]
    return None if value is None or value in lists else value


def _has(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> onnx_ir.Value | None:
    """OptionalHasElement: what is no Optional has itself."""
    import numpy as np
    import onnx_ir

    value = node.inputs[0] if node.inputs else None
    maker = value.producer() if value is not None else None
    holds = value is not None
    if maker is not None and maker.op_type == "Optional":
        holds = bool(maker.inputs) and maker.inputs[0] is not None
    elif value is not None and value not in lists and not isinstance(value.type, onnx_ir.TensorType):
        return None
    return add_constant(graph.graph, np.array(holds), str(node.outputs[0].name))


def _map(graph: onnx_ir.Model, node: onnx_ir.Node, lists: Lists) -> int:
    """SequenceMap: the body once for each element; what is no list is the same each time. Whether it was done."""
    from onnx_ir._cloner import Cloner

    body = node.attributes["body"].as_graph()
    given = [value for value in node.inputs if value is not None]
    first = _list_of(given[0], lists) if given else None
    if first is None or len(first) * max(1, sum(1 + len(list(subgraphs(n))) for n in body)) > _MOST:
        return 0
    columns = [lists.get(value) for value in given]
    if any(column is not None and len(column) < len(first) for column in columns):
        return 0
    results: list[list[onnx_ir.Value]] = [[] for _ in node.outputs]
    stem = node.name or str(node.outputs[0].name)
    for number in range(len(first)):
        arguments = [value if column is None else column[number] for value, column in zip(given, columns, strict=True)]
        values: dict[onnx_ir.Value, onnx_ir.Value | None] = dict(zip(body.inputs, arguments, strict=True))
        for name, value in body.initializers.items():
            if value.const_value is not None:
                values[value] = add_constant(graph.graph, value.const_value.numpy(), f"{stem}/{name}")

        def rename(made: onnx_ir.Node, mark: str = f"{stem}/{number}") -> None:
            made.name = f"{mark}/{made.name or made.op_type}"
            for value in made.outputs:
                value.name = f"{mark}/{value.name}" if value.name else value.name

        cloner = Cloner(
            attr_map={}, value_map=values, metadata_props={}, post_process=rename, allow_outer_scope_values=True
        )
        for inner in body:
            graph.graph.insert_before(node, cloner.clone_node(inner))
        for result, value in zip(results, body.outputs, strict=True):
            result.append(values.get(value) or value)
    for out, elements in zip(node.outputs, results, strict=True):
        lists[out] = elements
        made = insert_before(node, "SequenceConstruct", elements, name=f"{stem}/{out.name}")
        made.name, out.name = out.name, f"{out.name}/replaced"
        made.type = out.type
        lists[made] = elements
        out.replace_all_uses_with(made, replace_graph_outputs=True)
    graph.graph.remove(node, safe=True)
    return 1


_MAKERS: dict[str, Callable[[onnx_ir.Model, onnx_ir.Node, Lists], list[onnx_ir.Value] | None]] = {
    "Identity": _same,
    "Optional": _same,
    "OptionalGetElement": _same,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SplitToSequence": _split,
}
"""By operator, the list that it makes; None where that is not known."""

_READERS: dict[str, Callable[[onnx_ir.Model, onnx_ir.Node, Lists], onnx_ir.Value | None]] = {
    "ConcatFromSequence": _concat,
    "OptionalGetElement": _element,
    "OptionalHasElement": _has,
    "SequenceAt": _at,
    "SequenceLength": _length,
}
"""By operator, the tensor that it gives; None where that is not known."""
