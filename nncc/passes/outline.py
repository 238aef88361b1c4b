"""Control flow that is left at run time stands beside the graph: its bodies are models of their own.

    If(c){..|..}, Loop(M, c, v..){..}, Scan(v.., x..){..}  ->  Region(c | M | c, v.., x.., captured..){name}

`nncc.passes.specialize` makes a network of each body, and `nncc.codegen.flatten` steps of the calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from nncc.errors import ModelError
from nncc.frontend.binding import bind_hint
from nncc.frontend.tensors import LARGEST
from nncc.ir import Model, Region, TensorSpec
from nncc.passes.bodies import branch_bodies, is_region, loop_body, loop_node
from nncc.passes.infer_regions import always, as_model
from nncc.passes.rewriting import insert_before, is_op, static_shape

if TYPE_CHECKING:
    import onnx_ir

    from nncc.target import Target

__all__ = ["DOMAIN", "outline", "refuse_regions"]

DOMAIN = "nncc"
"""Of the operator ``Region``, whose attribute ``name`` names one."""

_CUT = "cut the model before it"


def outline(model: Model) -> tuple[Model, dict[str, Region]]:
    """The model with its control flow as calls, and the regions by their names; bodies are Models, simplified.

    Raises ModelError for shapes that change from iteration to iteration or differ between branches, and for what is
    stacked by a loop whose number of iterations is not known.
    """
    if not any(is_region(node) for node in model.graph.graph):
        return model, {}
    graph = model.graph.clone()
    regions: dict[str, Region] = {}
    for node in tuple(graph.graph):
        if is_region(node):
            name = f"{node.op_type.lower()}_{len(regions)}"
            make = _branch if is_op(node, "If") else _loop
            try:
                regions[name] = make(node, name, graph)
            except ModelError as error:
                word = f"in {node.op_type} `{node.name or node.outputs[0].name}`"
                message = error.message if error.message.startswith("in ") else f"{word}: {error.message}"
                raise ModelError(message, bind_hint(model.graph, error.hint)) from error
    return replace(model, graph=graph), regions


def refuse_regions(model: Model, regions: Mapping[str, Region], target: Target) -> None:
    """ModelError where a model has control flow left and the target is a GPU, whose programs have none."""
    if regions and target.hardware.multiprocessors:
        raise ModelError(
            f"the model decides at run time what it computes ({len(regions)} x If, Loop or Scan), which cannot be "
            f"compiled for `{target.name}`",
            bind_hint(model.graph, "compile it for a processor: `nncc targets` lists targets"),
        )


def _simplified(body: onnx_ir.Graph, name: str, like: onnx_ir.Model) -> Model:
    """A body as a Model, simplified; ModelError where a shape is not known."""
    from nncc.frontend.specs import specs
    from nncc.passes.fold_constants import fold_constants
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.simplify import simplify

    graph = as_model(body, like)
    inputs = specs(graph.graph.inputs, "input")
    for _ in range(4):
        if not fold_constants(graph).rewrites:
            break
        infer_shapes(graph)
    return simplify(Model(graph, name, inputs, specs(graph.graph.outputs, "output")))


def _replace(node: onnx_ir.Node, name: str, inputs: Sequence[onnx_ir.Value], outputs: Sequence[TensorSpec]) -> None:
    """Put a call of a region in the place of `node`."""
    import onnx_ir

    graph = node.graph
    assert graph is not None
    call = onnx_ir.Node(
        DOMAIN, "Region", inputs, [onnx_ir.AttrString("name", name)], num_outputs=len(outputs), name=node.name or name
    )
    graph.insert_before(node, call)
    for old, new, spec in zip(node.outputs, call.outputs, outputs, strict=True):
        new.name, old.name = old.name, f"{old.name}/replaced"
        new.type = (
            onnx_ir.TensorType(onnx_ir.DataType.from_numpy(np.dtype(spec.dtype))) if old.type is None else old.type
        )
        new.shape = onnx_ir.Shape(spec.shape)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _branch(node: onnx_ir.Node, name: str, graph: onnx_ir.Model) -> Region:
    bodies, captured = branch_bodies(node)
    then, other = (
        _simplified(body, f"{name}_{word}", graph) for body, word in zip(bodies, ("then", "else"), strict=True)
    )
    for one, two in zip(then.outputs, other.outputs, strict=True):
        if (one.dtype, one.shape) != (two.dtype, two.shape):
            raise ModelError(f"one branch gives {_form(one)}, the other {_form(two)}", _CUT)
    condition = node.inputs[0]
    assert condition is not None
    _replace(node, name, [condition, *captured], then.outputs)
    return Region("branch", (then, other), then.outputs)


def _form(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{'x'.join(map(str, spec.shape))}]"


def _loop(node: onnx_ir.Node, name: str, graph: onnx_ir.Model) -> Region:
    import onnx_ir

    loop = loop_node(node)
    if not loop.has_counter and loop.trips is None:
        raise ModelError("the shape of what it scans is not known", _CUT)
    made, captured = loop_body(loop)
    body = _simplified(made, name, graph)
    count, results = len(loop.carried), list(body.outputs)
    conditional = loop.has_counter and not always(body.graph.graph.outputs[0])
    if loop.has_counter:
        follows = results.pop(0)
        if follows.dtype != "bool" or prod(follows.shape) != 1:
            raise ModelError(f"its condition is {_form(follows)}, which is not one bool", _CUT)
        if not conditional:
            body = _without_first_output(body)
    for begin, end in zip(body.inputs[1:], results[:count], strict=False):
        if (begin.dtype, begin.shape) != (end.dtype, end.shape):
            raise ModelError(f"`{begin.name}` is {_form(begin)} before an iteration and {_form(end)} after it", _CUT)
    for slice_, axis in zip(results[count:], loop.stack_axes, strict=True):
        if not -len(slice_.shape) - 1 <= axis <= len(slice_.shape):
            raise ModelError(f"what it stacks has {len(slice_.shape) + 1} axes, among them no {axis}", _CUT)
    condition = loop.condition
    if conditional and condition is None:
        condition = insert_before(node, "Identity", [_true(node)], name=f"{name}_condition")
        condition.type = onnx_ir.TensorType(onnx_ir.DataType.BOOL)
    stacked = results[count:]
    if stacked and (loop.trips is None or conditional or condition is not None):
        raise ModelError(
            f"how often it runs is known at run time only, and so the length of its output "
            f"`{node.outputs[count].name}`",
            _CUT,
        )
    scanned = [_axis_first(node, value, axis) for value, axis in zip(loop.scanned, loop.scan_axes, strict=True)]
    outputs = [replace(spec, name=str(value.name)) for spec, value in zip(results[:count], node.outputs, strict=False)]
    for value, spec, axis in zip(node.outputs[count:], stacked, loop.stack_axes, strict=True):
        outputs.append(replace(spec, name=str(value.name), shape=(loop.trips or 0, *spec.shape)))
        if outputs[-1].nbytes > LARGEST:
            raise ModelError(f"its output `{value.name}` would have the form {_form(outputs[-1])}: over 2^40 bytes")
        _axis_back(value, len(spec.shape) + 1, axis, outputs[-1])
    arguments = [v for v in (loop.most, condition) if v is not None] + [*loop.carried, *scanned, *captured]
    _replace(node, name, arguments, outputs)
    return Region(
        "loop",
        (body,),
        tuple(outputs),
        loop.trips,
        loop.most is not None,
        condition is not None,
        count,
        loop.backwards,
        loop.stack_backwards,
    )


def _true(node: onnx_ir.Node) -> onnx_ir.Value:
    from nncc.passes.rewriting import add_constant

    assert node.graph is not None and not isinstance(node.graph, type(None))
    return add_constant(node.graph, np.array(True), f"{node.name or node.outputs[0].name}/true")  # type: ignore[arg-type]


def _without_first_output(body: Model) -> Model:
    """The body without its condition."""
    del body.graph.graph.outputs[0]
    return replace(body, outputs=body.outputs[1:])


def _axis_first(node: onnx_ir.Node, value: onnx_ir.Value, axis: int) -> onnx_ir.Value:
    """`value` with its axis `axis` in front."""
    shape = static_shape(value)
    if shape is None:
        raise ModelError(f"the shape of `{value.name}` is not known", _CUT)
    axis %= len(shape)
    if axis == 0:
        return value
    perm = [axis, *(a for a in range(len(shape)) if a != axis)]
    return insert_before(
        node, "Transpose", [value], name=f"{value.name}/scanned", like=value, shape=[shape[a] for a in perm], perm=perm
    )


def _axis_back(value: onnx_ir.Value, rank: int, axis: int, spec: TensorSpec) -> None:
    """Let what reads `value` read it with its first axis at `axis`, where that is another."""
    import onnx_ir

    axis %= rank
    if axis == 0:
        return
    perm = [*range(1, axis + 1), 0, *range(axis + 1, rank)]
    node = value.producer()
    assert node is not None and node.graph is not None
    moved = onnx_ir.node("Transpose", [value], attributes={"perm": perm}, name=f"{value.name}/stacked")
    node.graph.insert_after(node, moved)
    out = moved.outputs[0]
    name, value.name = value.name, f"{value.name}/first"
    out.name, out.type = name, value.type
    out.shape = onnx_ir.Shape([spec.shape[a] for a in perm])
    for user, at in tuple(value.uses()):
        if user is not moved:
            user.replace_input_with(at, out)
    outputs = node.graph.outputs
    for at, output in enumerate(outputs):
        if output is value:
            outputs[at] = out
