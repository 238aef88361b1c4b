"""Lists of tensors among a model's inputs and outputs are as many tensors: ``x[0]``, ``x[1]``, ...

A library takes and gives tensors of known shapes. Of a list that goes in, `--shape` says how many there are, and how
large; one that comes out has the length that the model gives it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.frontend.binding import bind_hint
from nncc.passes.rewriting import attribute, is_op, label, scalar, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["check_lists", "open_inputs", "open_outputs"]

_ROUNDS = 10
"""Over the passes that find out what a list holds."""
_MOST = 4096
"""Tensors of a list that something is split into: each becomes nodes of the graph."""


def check_lists(graph: onnx_ir.Model) -> None:
    """Raises ModelError where a tensor is split into more parts than a graph can hold as such."""
    import onnx_ir

    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        shape = static_shape(node.inputs[0]) if is_op(node, "SplitToSequence") and node.inputs else None
        if not shape:
            continue
        size = shape[int(attribute(node, "axis", 0)) % len(shape)]
        step = scalar(node.inputs[1]) if len(node.inputs) > 1 else 1
        if step is not None and size > _MOST * max(int(step), 1):
            raise ModelError(f"`{label(node)}` makes a list of more than {_MOST:,} tensors", "cut the model before it")


def open_inputs(
    graph: onnx_ir.Model, shape: Mapping[str, Sequence[int | str]], bound: Collection[str] = ()
) -> dict[str, Sequence[int | str]]:
    """Replace, in place, inputs that are lists or optional by tensors; `shape` without the names that say how many.

    Tensors that are `bound` need no shape. Raises ModelError where nothing says how many tensors a list has.
    """
    import onnx_ir

    rest = dict(shape)
    main = graph.graph
    for value in tuple(main.inputs):
        optional = isinstance(value.type, onnx_ir.OptionalType)
        inner = value.type.elem_type if isinstance(value.type, onnx_ir.OptionalType) else value.type
        is_list = isinstance(inner, onnx_ir.SequenceType)
        if not optional and not is_list:
            continue
        name = str(value.name)
        empty = rest.pop(f"{name}[]", None) is not None
        words = {*rest, *bound}
        numbers = sorted(int(m[1]) for word in words if (m := re.fullmatch(re.escape(name) + r"\[(\d{1,6})\]", word)))
        if numbers != list(range(len(numbers))) or (is_list and not numbers and not empty):
            raise ModelError(
                f"input `{name}` is a list of tensors",
                f"say how large each is, `--shape {name}[0]=... --shape {name}[1]=...`, or `--shape {name}[]=` if it "
                "is always empty",
            )
        if not is_list and not empty and name not in words:
            raise ModelError(
                f"input `{name}` is optional",
                f"say how large it is, `--shape {name}=...`, or `--shape {name}[]=` if it is never there",
            )
        element = inner.elem_type if isinstance(inner, onnx_ir.SequenceType) else inner
        if not isinstance(element, onnx_ir.TensorType):
            raise ModelError(f"input `{name}` is a list of lists", "nncc takes tensors, and lists of them")
        at = main.inputs.index(value)
        names = [] if empty else [f"{name}[{n}]" for n in numbers] if is_list else [name]
        given = [
            onnx_ir.Value(name=each, type=onnx_ir.TensorType(element.dtype), shape=None if is_list else value.shape)
            for each in names
        ]
        value.name = f"{name}/given"
        main.inputs[at : at + 1] = given
        _make(graph, value, given, is_list, optional)
    return rest


def _make(
    graph: onnx_ir.Model, value: onnx_ir.Value, given: list[onnx_ir.Value], is_list: bool, optional: bool
) -> None:
    """Let the operators of a list or an optional value give what reads `value`."""
    import onnx_ir

    main, name = graph.graph, str(value.name)
    nodes = []
    made = list(given)
    inner = value.type.elem_type if isinstance(value.type, onnx_ir.OptionalType) else value.type
    if is_list and (given or not optional):
        if given:
            nodes.append(onnx_ir.node("SequenceConstruct", given, name=f"{name}/list"))
        else:
            dtype = inner.dtype if inner is not None else onnx_ir.DataType.FLOAT
            nodes.append(onnx_ir.node("SequenceEmpty", [], attributes={"dtype": int(dtype)}, name=f"{name}/list"))
        made = [nodes[-1].outputs[0]]
        made[0].name, made[0].type = f"{name}/list", inner
    if optional:
        kind = onnx_ir.TypeAndShape(inner, None)
        attributes = [] if made else [onnx_ir.Attr("type", onnx_ir.AttributeType.TYPE_PROTO, kind)]
        nodes.append(onnx_ir.Node("", "Optional", made, attributes, num_outputs=1, name=f"{name}/optional"))
        made = [nodes[-1].outputs[0]]
        made[0].name, made[0].type = f"{name}/optional", value.type
    first = next(iter(main), None)
    for node in nodes:
        if first is None:
            main.append(node)
        else:
            main.insert_before(first, node)
    value.replace_all_uses_with(made[0], replace_graph_outputs=True)


def open_outputs(graph: onnx_ir.Model) -> None:
    """Replace, in place, outputs that are lists by their tensors; ModelError where it is not known what they hold."""
    import onnx_ir

    from nncc.passes.expand_loops import expand_loops
    from nncc.passes.fold_constants import fold_constants
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.resolve_sequences import resolve_sequences

    def lists() -> list[onnx_ir.Value]:
        kinds = onnx_ir.SequenceType | onnx_ir.OptionalType
        return [value for value in graph.graph.outputs if isinstance(value.type, kinds)]

    passes = (expand_loops, lambda g: resolve_sequences(g, open_outputs=True), fold_constants)
    try:
        for _ in range(_ROUNDS):
            if not lists():
                return
            infer_shapes(graph)
            if not sum(pass_(graph).rewrites for pass_ in passes):
                break
    except ModelError as error:
        raise ModelError(error.message, bind_hint(graph, error.hint)) from error
    left = lists()
    if left:
        raise ModelError(
            f"output `{left[0].name}` is a list of tensors, and how many it has is known at run time only",
            bind_hint(graph, "cut the model before it"),
        )
