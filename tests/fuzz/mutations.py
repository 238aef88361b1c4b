"""Models that lie: small changes of valid ONNX graphs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import onnx
from onnx import AttributeProto, TensorProto
from wire import changed_fields

__all__ = ["MUTATIONS", "mutated"]

_SIZES = (-(2**63), -1, 0, 1, 2, 3, 7, 64, 65537, 2**31 - 1, 2**31, 2**40, 2**62)
_INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 100, 2**31 - 1, 2**40, 2**63 - 1)
_FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e-45, 3.4e38, 0.5, 1e6)
_NAMES = ("", " ", "x", "../../outside", "/tmp/outside", "a\nb", "é" * 40, "0", 'quote"', "a" * 4096)


def mutated(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> bytes:
    """A file made of `model` by one to four mutations; `pool` has models that parts are taken from."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        rng.choice(MUTATIONS)(changed, rng, pool)
    data = changed.SerializeToString()
    chance = rng.random()
    if chance < 0.1:
        return _bytes(data, rng)
    return changed_fields(data, rng) if chance < 0.2 else data


def _bytes(data: bytes, rng: random.Random) -> bytes:
    """Some bytes other than they were, doubled, or gone."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        if not changed:
            break
        at = rng.randrange(len(changed))
        way = rng.randrange(3)
        if way == 0:
            changed[at] = rng.randrange(256)
        elif way == 1:
            changed[at:at] = changed[at : at + rng.randint(1, 64)]
        else:
            del changed[at : at + rng.randint(1, 64)]
    return bytes(changed)


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Of the graph and its subgraphs."""
    found = list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                found += _nodes(attribute.g)
    return found


def _pick(items: Sequence[Any], rng: random.Random) -> Any:
    return rng.choice(items) if items else None


def _tensors(model: onnx.ModelProto) -> list[TensorProto]:
    inside = [a.t for node in _nodes(model.graph) for a in node.attribute if a.type == AttributeProto.TENSOR]
    return [*model.graph.initializer, *inside]


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output, *model.graph.value_info]


def _names(model: onnx.ModelProto) -> list[str]:
    found = [value.name for value in (*model.graph.input, *model.graph.initializer)]
    return found + [name for node in _nodes(model.graph) for name in node.output]


def attribute_value(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """Another number or word in an attribute."""
    attribute = _pick([a for node in _nodes(model.graph) for a in node.attribute], rng)
    if attribute is None:
        return
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(_INTEGERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice(_FLOATS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"\xff\xfe", b"NOTSET", b"SAME_UPPER", b"constant", b"a" * 5000))
    elif attribute.type == AttributeProto.INTS:
        values = list(attribute.ints)
        way = rng.randrange(3)
        if values and way == 0:
            values[rng.randrange(len(values))] = rng.choice(_INTEGERS)
        elif values and way == 1:
            values.pop()
        else:
            values.append(rng.choice(_INTEGERS))
        attribute.ints[:] = values


def attribute_type(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """An attribute that says it is of another type, that is gone, or that another node has."""
    node = _pick([node for node in _nodes(model.graph) if node.attribute], rng)
    if node is None:
        return
    way = rng.randrange(3)
    at = rng.randrange(len(node.attribute))
    if way == 0:
        node.attribute[at].type = rng.choice(range(15))
    elif way == 1:
        del node.attribute[at]
    else:
        other = _pick([n for m in pool for n in m.graph.node if n.attribute], rng)
        node.attribute.append(rng.choice(other.attribute))


def operator(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """A node that is another operator, or of another domain."""
    node = _pick(_nodes(model.graph), rng)
    if node is None:
        return
    if rng.random() < 0.8:
        node.op_type = rng.choice(rng.choice(pool).graph.node).op_type
    else:
        node.domain = rng.choice(("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "nowhere"))


def operand(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """An operand that is another value, absent, one more or one less; cycles come of it."""
    node = _pick(_nodes(model.graph), rng)
    if node is None:
        return
    side = node.output if rng.random() < 0.2 else node.input
    way = rng.randrange(4)
    names = _names(model)
    if way == 0 and side:
        side[rng.randrange(len(side))] = rng.choice((*names, "", "unknown"))
    elif way == 1 and side:
        side.pop()
    elif way == 2:
        side.append(rng.choice((*names, "", "unknown")))
    elif len(side) > 1:
        side[0], side[-1] = side[-1], side[0]


def shape(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """Another size, rank or element type of an input, an output or an inner value."""
    value = _pick([v for v in _values(model) if v.type.HasField("tensor_type")], rng)
    if value is None:
        return
    kind = value.type.tensor_type
    way = rng.randrange(5)
    if way == 0:
        kind.elem_type = rng.choice(range(26))
    elif way == 1 and kind.shape.dim:
        rng.choice(kind.shape.dim).dim_value = rng.choice(_SIZES)
    elif way == 2 and kind.shape.dim:
        del kind.shape.dim[rng.randrange(len(kind.shape.dim))]
    elif way == 3:
        for _ in range(rng.choice((1, 1, 9, 70))):
            kind.shape.dim.add().dim_value = rng.choice(_SIZES)
    else:
        kind.ClearField("shape")


def tensor(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """A constant whose claims and contents do not go together."""
    found = _pick(_tensors(model), rng)
    if found is None:
        return
    way = rng.randrange(6)
    if way == 0:
        found.data_type = rng.choice(range(27))
    elif way == 1:
        found.dims.append(rng.choice(_SIZES))
    elif way == 2 and found.dims:
        found.dims[rng.randrange(len(found.dims))] = rng.choice(_SIZES)
    elif way == 3:
        found.raw_data = bytes(rng.randrange(256) for _ in range(rng.choice((0, 1, 3, 4, 8, 64))))
    elif way == 4:
        found.data_location = TensorProto.EXTERNAL
        for key, text in (("location", rng.choice(_NAMES)), ("offset", "0"), ("length", str(rng.choice(_SIZES)))):
            entry = found.external_data.add()
            entry.key, entry.value = key, text
    else:
        found.ClearField("dims")


def constant_numbers(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """Integers of a constant, which may be a shape, axes or indices, are others."""
    found = _pick([t for t in _tensors(model) if t.data_type == TensorProto.INT64], rng)
    if found is None:
        return
    if found.raw_data and len(found.raw_data) % 8 == 0:
        numbers = [
            int.from_bytes(found.raw_data[i : i + 8], "little", signed=True) for i in range(0, len(found.raw_data), 8)
        ]
        numbers[rng.randrange(len(numbers))] = rng.choice(_INTEGERS)
        found.raw_data = b"".join(number.to_bytes(8, "little", signed=True) for number in numbers)
    elif found.int64_data:
        found.int64_data[rng.randrange(len(found.int64_data))] = rng.choice(_INTEGERS)


def input_to_constant(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """An input, of a few elements, becomes a constant of odd numbers."""
    value = _pick(list(model.graph.input), rng)
    if value is None or not value.type.HasField("tensor_type"):
        return
    kind = value.type.tensor_type
    sizes = [d.dim_value for d in kind.shape.dim]
    if kind.elem_type != TensorProto.INT64 or len(sizes) > 1 or any(not 0 <= size <= 16 for size in sizes):
        return
    count = sizes[0] if sizes else 1
    made = onnx.helper.make_tensor(value.name, kind.elem_type, sizes, [rng.choice(_INTEGERS) for _ in range(count)])
    model.graph.initializer.append(made)


def graph_edges(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """Inputs and outputs that are missing, doubled, or have other names."""
    side = rng.choice((model.graph.input, model.graph.output))
    way = rng.randrange(3)
    if way == 0 and side:
        del side[rng.randrange(len(side))]
    elif way == 1 and side:
        side.append(rng.choice(side))
    elif side:
        rng.choice(side).name = rng.choice((*_NAMES, *_names(model)))


def node_order(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """Nodes doubled, gone, in another order, or from another model."""
    nodes = model.graph.node
    way = rng.randrange(4)
    if way == 0 and nodes:
        nodes.append(rng.choice(nodes))
    elif way == 1 and nodes:
        del nodes[rng.randrange(len(nodes))]
    elif way == 2:
        shuffled = list(nodes)
        rng.shuffle(shuffled)
        del nodes[:]
        nodes.extend(shuffled)
    else:
        nodes.append(rng.choice(rng.choice(pool).graph.node))


def names(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """A graph, a node or a value with a name that means something elsewhere."""
    way = rng.randrange(3)
    if way == 0:
        model.graph.name = rng.choice(_NAMES)
    elif way == 1 and model.graph.node:
        rng.choice(model.graph.node).name = rng.choice(_NAMES)
    elif found := _names(model):
        old, new = rng.choice(found), rng.choice(_NAMES)
        for value in (*_values(model), *model.graph.initializer):
            value.name = new if value.name == old else value.name
        for node in _nodes(model.graph):
            for side in (node.input, node.output):
                side[:] = [new if name == old else name for name in side]


def versions(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """Versions of the format and of the operators."""
    way = rng.randrange(3)
    if way == 0:
        model.ir_version = rng.choice((-1, 0, 1, 3, 4, 8, 10, 2**31))
    elif way == 1 and model.opset_import:
        rng.choice(model.opset_import).version = rng.choice((-1, 0, 1, 6, 7, 9, 11, 13, 17, 21, 25, 10**6))
    else:
        del model.opset_import[:]


def longer(model: onnx.ModelProto, rng: random.Random, pool: Sequence[onnx.ModelProto]) -> None:
    """A chain of many operators behind the last one."""
    if not model.graph.output or not model.graph.output[0].name:
        return
    name = model.graph.output[0].name
    count = rng.choice((10, 100, 400))
    for at in range(count):
        node = model.graph.node.add()
        node.op_type = rng.choice(("Neg", "Abs", "Identity"))
        node.input.append(name)
        name = f"chain_{at}"
        node.output.append(name)
    model.graph.output[0].name = name


MUTATIONS: tuple[Callable[[onnx.ModelProto, random.Random, Sequence[onnx.ModelProto]], None], ...] = (
    attribute_value, attribute_value, attribute_type, operator, operand, operand, shape, shape, tensor,
    constant_numbers, constant_numbers, input_to_constant, graph_edges, node_order, names, versions, longer,
)  # fmt: skip
"""Each changes a model in place, or does nothing where it has nothing to change; what is there twice is tried twice as
often."""
