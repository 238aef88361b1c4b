"""A float16 graph computed in float32, with casts at its inputs and outputs: what quantization starts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["widen"]


def widen(graph: onnx_ir.Model) -> None:
    """Make every float16 value of the main graph float32, in place; inputs and outputs keep their types.

    Constants must be initializers. Does nothing to a graph without float16, or with operators that hold graphs.
    """
    import numpy as np
    import onnx_ir

    half, single = onnx_ir.DataType.FLOAT16, onnx_ir.DataType.FLOAT
    main = graph.graph
    values = [*main.inputs, *main.initializers.values(), *(out for node in main for out in node.outputs)]
    nested = any(attr.type.name in ("GRAPH", "GRAPHS") for node in main for attr in node.attributes.values())
    if nested or not any(value.dtype == half for value in values):
        return
    narrow = [value.dtype == half for value in main.outputs]
    for value in tuple(main.initializers.values()):
        if value.dtype == half and value.const_value is not None:
            value.const_value = onnx_ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = onnx_ir.TensorType(single)
    for node in main:
        fill = node.attributes.get("value")
        if is_op(node, "Cast") and node.attributes["to"].value == half:
            node.attributes["to"] = onnx_ir.AttrInt64("to", single)
        elif is_op(node, "ConstantOfShape") and fill is not None and fill.value.dtype == half:
            node.attributes["value"] = onnx_ir.AttrTensor(
                "value", onnx_ir.tensor(fill.value.numpy().astype(np.float32))
            )
        for value in node.outputs:
            if value.dtype == half:
                value.type = onnx_ir.TensorType(single)
    for value in main.inputs:
        if value.dtype == half and value.uses():
            cast = onnx_ir.node("Cast", [value], {"to": single}, name=f"{value.name}/widen")
            cast.outputs[0].name, cast.outputs[0].shape = f"{value.name}/float32", value.shape
            cast.outputs[0].type = onnx_ir.TensorType(single)
            for user, at in tuple(value.uses()):
                if user is not cast:
                    user.replace_input_with(at, cast.outputs[0])
            main.insert_before(main[0], cast)
    for at, value in enumerate(main.outputs):
        producer = value.producer()
        if narrow[at] and producer is not None:
            name = value.name
            cast = onnx_ir.node("Cast", [value], {"to": half}, name=f"{name}/narrow")
            value.name = f"{name}/float32"
            cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
            cast.outputs[0].type = onnx_ir.TensorType(half)
            main.append(cast)
            main.outputs[at] = cast.outputs[0]
