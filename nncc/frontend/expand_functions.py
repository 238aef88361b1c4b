"""Operators that ONNX defines by others are replaced by their definition, unless nncc compiles them as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError
from nncc.frontend.definitions import UnknownShape
from nncc.frontend.foreign import OPSET, foreign_definition, is_defined
from nncc.passes.rewriting import attribute, node_text, quiet

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["COMPILED", "expand_functions"]

COMPILED = frozenset(
    {
        "AffineGrid",
        "Clip",
        "DepthToSpace",
        "DynamicQuantizeLinear",
        "Elu",
        "Gelu",
        "GreaterOrEqual",
        "HardSigmoid",
        "HardSwish",
        "LayerNormalization",
        "LeakyRelu",
        "LessOrEqual",
        "LogSoftmax",
        "Mish",
        "PRelu",
        "Range",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceSumSquare",
        "Relu",
        "Selu",
        "Shrink",
        "Softmax",
        "Softplus",
        "Softsign",
        "SpaceToDepth",
        "ThresholdedRelu",
    }
)
"""Operators with a definition that are compiled as they are; what `_whole` says of a node goes before."""

_DEFINING = ("", "ai.onnx", "ai.onnx.preview")
"""Domains whose definitions onnx has."""

MOST_EXPANSIONS = 100_000
"""Nodes that are replaced, those of definitions included."""


def _whole(node: onnx_ir.Node) -> bool:
    """Whether a node of an operator in `COMPILED` is of the form that is compiled."""
    if node.op_type == "LayerNormalization":  # mean and deviation are outputs too
        return not any(out.uses() or out.is_graph_output() for out in node.outputs[1:])
    if node.op_type == "SpaceToDepth":  # TVM's importer knows no other order
        return attribute(node, "mode", "DCR") == "DCR"
    return True


def _definition(node: onnx_ir.Node, version: int) -> onnx.FunctionProto | None:
    """The body of an operator in this opset, by the types of its operands; None where ONNX has none."""
    import onnx

    from nncc.frontend.converters import CONVERTERS

    if is_defined(node):
        return foreign_definition(node, version)
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    if not (schema.has_function or schema.has_context_dependent_function):
        return None
    written = _written_for(schema, node, version)
    if written or node.op_type in CONVERTERS:  # Bernoulli's of opset 15 has its probabilities the wrong way round
        return written
    if older := [v for v in _written_versions(schema) if v < version]:
        written = _written_for(schema, node, max(older))
        if written and not all(_unchanged(each, max(older), version) for each in written.node):
            return None
    return written


def _written_versions(schema: Any) -> list[int]:
    """The opsets that the definitions of an operator were written for."""
    return schema.function_opset_versions if schema.has_function else schema.context_dependent_function_opset_versions


def _written_for(schema: Any, node: onnx_ir.Node, version: int) -> onnx.FunctionProto | None:
    """The definition in this opset; None where onnx has none, as an operator in it has a newer version."""
    import onnx
    import onnx_ir

    if schema.has_function:
        text = schema.get_function_with_opset_version(version)
    else:
        proto = onnx_ir.to_proto(node)
        given = {entry.name for entry in proto.attribute}
        proto.attribute.extend(
            entry.default_value
            for name, entry in schema.attributes.items()
            if name not in given and entry.default_value.name
        )
        text = schema.get_context_dependent_function_with_opset_version(
            version, proto.SerializeToString(), [_type(value) for value in node.inputs]
        )
    return onnx.FunctionProto.FromString(text) if text else None


def _unchanged(node: onnx.NodeProto, old: int, new: int) -> bool:
    """Whether a node of opset `old` says the same in `new`: newer versions of most operators only take more types.

    Its operands have the same names, what it says of its attributes is allowed, and what it does not say has the same
    default.
    """
    import onnx

    try:
        before, after = (onnx.defs.get_schema(node.op_type, version, node.domain) for version in (old, new))
    except onnx.defs.SchemaError:
        return False
    said = {entry.name for entry in node.attribute}
    count = len(node.input)
    return (
        not after.deprecated
        and [x.name for x in before.inputs[:count]] == [x.name for x in after.inputs[:count]]
        and [x.name for x in before.outputs] == [x.name for x in after.outputs][: len(before.outputs)]
        and said <= after.attributes.keys()
        and all(
            name in said or (name in after.attributes and after.attributes[name].default_value == entry.default_value)
            for name, entry in before.attributes.items()
        )
    )


def _checked_definition(node: onnx_ir.Node, version: int) -> onnx.FunctionProto | None:
    """The same; whatever onnx says of operands that do not fit is a ModelError."""
    try:
        return _definition(node, version)
    except ModelError:
        raise
    except Exception as error:  # onnx raises RuntimeError and others of its own
        where = f"{node.op_type} `{node.name or node.outputs[0].name}`"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ModelError(f"{where} cannot be replaced by its definition: {reason}") from error


def _type(value: onnx_ir.Value | None) -> bytes:
    import onnx
    import onnx_ir

    if value is None or value.type is None:
        return b""
    described = onnx.ValueInfoProto()
    onnx_ir.serde.serialize_value_into(described, value)
    return described.type.SerializeToString()


def _defaults(node: onnx_ir.Node, graph: onnx_ir.Model) -> Any:
    """What the standard says of the attributes of a node."""
    import onnx

    if node.domain not in _DEFINING:  # its definition was made of them
        return {}
    return onnx.defs.get_schema(node.op_type, graph.opset_imports[node.domain], node.domain).attributes


def _localize(graph: onnx_ir.Model, node: onnx_ir.Node, body: onnx.FunctionProto, number: int) -> None:
    """Make `node` the call of a function of its own in the model."""
    import onnx
    import onnx_ir

    for at, out in enumerate(node.outputs):
        out.name = out.name or f"{node.name or node.outputs[0].name}/output_{at}"
    for name, entry in _defaults(node, graph).items():
        if name not in node.attributes and entry.default_value.name:
            node.attributes[name] = onnx_ir.serde.deserialize_attribute(entry.default_value)
    for name, given in tuple(node.attributes.items()):
        if given.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS):
            del node.attributes[name]  # its nodes are in the body
    body.domain, body.name = "nncc.definitions", f"{node.op_type}_{number}"
    for entry in body.opset_import:  # the definition holds for the model's opset, or there would be none
        entry.version = graph.opset_imports.get(entry.domain, entry.version)
    del body.output[len(node.outputs) :]
    made = {name for inner in body.node for name in inner.output} | set(body.input)
    for name in body.output:
        if name not in made:  # an optional output that nobody asked for
            body.node.append(onnx.helper.make_node("Constant", [], [name], value_float=0.0))
    function = onnx_ir.serde.deserialize_function(body)
    for inner in function:
        for out in inner.outputs:
            out.name = f"{node.name or node.outputs[0].name}/{out.name}"
    graph.functions[function.identifier()] = function
    graph.opset_imports["nncc.definitions"] = 1
    node.domain, node.op_type = body.domain, body.name


def _prepare_for_definitions(graph: onnx_ir.Model) -> None:
    """Raise the opset to that which definitions of other domains are written for, where the model has such operators,
    and replace those on integers, whose results have shapes then."""
    import onnx_ir

    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.integer_matmuls import integer_matmuls
    from nncc.passes.qoperators import qoperators_to_qdq
    from nncc.passes.raise_opset import raise_opset

    nodes = onnx_ir.traversal.RecursiveGraphIterator(graph.graph)
    node = next(filter(is_defined, nodes), None)
    if node is None:
        return
    if not {"", "ai.onnx"} & set(graph.opset_imports):  # the model has no operator of the standard's
        graph.opset_imports[""] = OPSET
    if why := raise_opset(graph, OPSET):
        raise ModelError(
            f"{node_text(node)} cannot be replaced by its definition: {why}", "export it with a newer opset"
        )
    if qoperators_to_qdq(graph).rewrites + integer_matmuls(graph).rewrites:
        infer_shapes(graph)


def expand_functions(graph: onnx_ir.Model) -> int:
    """Replace, in place, operators by their definitions until none is left to replace; the number of replacements.

    Types of all values have to be known; those of new ones are inferred. The opset may be raised, and then the graph in
    the model is another. Raises ModelError.
    """
    import onnx_ir
    from onnx_ir.passes.common import InlinePass

    from nncc.passes.infer_shapes import infer_shapes

    _prepare_for_definitions(graph)
    total = 0
    while True:
        found = 0
        waiting: UnknownShape | None = None
        for node in tuple(onnx_ir.traversal.RecursiveGraphIterator(graph.graph)):
            version = graph.opset_imports.get(node.domain)
            if is_defined(node):
                try:
                    body = _checked_definition(node, graph.opset_imports[""])
                except UnknownShape as unknown:  # others before it may say once they are replaced
                    waiting, body = waiting or unknown, None
            elif version is None or node.domain not in _DEFINING or (node.op_type in COMPILED and _whole(node)):
                continue
            else:
                body = _checked_definition(node, version)
            if body is not None:
                found += 1
                _localize(graph, node, body, total + found)
        if not found:
            if waiting is not None:
                raise waiting
            return total
        total += found
        if total > MOST_EXPANSIONS:
            raise ModelError(f"the model has over {MOST_EXPANSIONS:,} operators that stand for others")
        try:
            with quiet():
                InlinePass()(graph)
        except Exception as error:  # onnx_ir wraps whatever went wrong in a function body
            raise ModelError(f"the definition of an operator cannot be inserted: {error.__cause__ or error}") from error
        graph.opset_imports.pop("nncc.definitions", None)
        infer_shapes(graph)
