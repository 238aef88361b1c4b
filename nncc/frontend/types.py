"""Element types of operands and outputs, as the operators' definitions allow them.

What is declared is what kernels are made for and what callers allocate: a model that says one thing and computes
another is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.rewriting import node_text

if TYPE_CHECKING:
    import onnx
    import onnx_ir

__all__ = ["check_operand_types", "check_outputs"]

_HINT = "export it again, or ask its author: ONNX Runtime refuses it too"


def check_operand_types(graph: onnx_ir.Model) -> None:
    """Raise ModelError for the first node of the standard domain that lacks an operand, or has one of a type that its
    definition does not take, or operands of several types where it wants one. Types that are not known are not looked
    at."""
    import onnx
    import onnx_ir

    version = graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 0))
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        if node.domain not in ("", "ai.onnx"):
            continue
        try:
            schema = onnx.defs.get_schema(node.op_type, version, "")
        except onnx.defs.SchemaError:
            continue
        _check_node(node, schema)


def _check_node(node: onnx_ir.Node, schema: onnx.defs.OpSchema) -> None:
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    bound: dict[str, str] = {}
    for at, value in enumerate(node.inputs):
        if not schema.inputs:
            continue
        parameter = schema.inputs[min(at, len(schema.inputs) - 1)]
        if value is None:
            if parameter.option != type(parameter.option).Optional:
                raise ModelError(
                    f"{node_text(node)} lacks input {at}, `{parameter.name}`, which is not optional", _HINT
                )
            continue
        kind = _type_text(value)
        if kind is None:
            continue
        takes = allowed.get(parameter.type_str, [parameter.type_str])
        what = node_text(node)
        if kind not in takes:
            raise ModelError(f"{what} cannot take `{value.name}`, which is {_plain(kind)}", _HINT)
        if parameter.type_str in allowed and parameter.is_homogeneous:
            first = bound.setdefault(parameter.type_str, kind)
            if first != kind:
                raise ModelError(
                    f"{what} has operands of {_plain(first)} and of {_plain(kind)}, which have to be of one type", _HINT
                )


def _type_text(value: onnx_ir.Value) -> str | None:
    """As definitions spell it, ``tensor(float)``; None for what is no tensor, or not known."""
    import onnx_ir

    if not isinstance(value.type, onnx_ir.TensorType) or value.dtype is None:
        return None
    if value.dtype == onnx_ir.DataType.UNDEFINED:
        return None
    return f"tensor({value.dtype.name.lower()})"


def _plain(kind: str) -> str:
    return kind.removeprefix("tensor(").removesuffix(")")


def check_outputs(graph: onnx_ir.Model) -> None:
    """Raise ModelError where an output is named twice, or declared as another type than its operator gives."""
    from nncc.passes.infer_shapes import infer_shapes

    names = [str(value.name) for value in graph.graph.outputs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ModelError(f"output `{twice[0]}` is named twice", "export the model with each output once")
    bare = graph.clone()
    for value in bare.graph.outputs:
        if value.producer() is not None:
            value.type = None
    infer_shapes(bare)
    for declared, found in zip(graph.graph.outputs, bare.graph.outputs, strict=True):
        if None not in (declared.dtype, found.dtype) and declared.dtype != found.dtype:
            said, computed = (str(each.dtype.name).lower() for each in (declared, found) if each.dtype is not None)
            raise ModelError(f"output `{declared.name}` is declared as {said}, and computed as {computed}", _HINT)
