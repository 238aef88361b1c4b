"""(q - z) = ((q + 128) - (z + 128)): activations of int8 as uint8, or back. Exact; nothing else changes.

Processors differ in what they multiply: VNNI takes uint8 by int8, Arm's dot products int8 by int8. Weights stay int8.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nncc.passes.grids import operand_or_none
from nncc.passes.movements import data_operands, moves
from nncc.passes.rewriting import Report, add_constant, attribute, constant, is_op

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["to_signed", "to_unsigned"]


def _linked(value: onnx_ir.Value) -> dict[onnx_ir.Value, None]:
    """The values that must have the type of `value`: those that movements connect it with, in a fixed order."""
    found, todo = {value: None}, [value]
    while todo:
        current = todo.pop()
        near: list[onnx_ir.Value | None] = []
        producer = current.producer()
        if producer is not None and moves(producer):
            near += [producer.inputs[at] for at in data_operands(producer)]
        for user, at in current.uses():
            if moves(user) and at in data_operands(user):
                near += [*user.outputs, *(user.inputs[other] for other in data_operands(user))]
        for other in near:
            if other is not None and other not in found:
                found[other] = None
                todo.append(other)
    return found


def _obstacle(values: Iterable[onnx_ir.Value]) -> str | None:
    """Why these values cannot change their type; None where they can."""
    for value in values:
        if value.is_graph_input() or value.is_graph_output():
            return f"`{value.name}` is an input or output of the model"
        producer = value.producer()
        if producer is None:
            if value.const_value is None:
                return f"`{value.name}` is not known"
        elif not (is_op(producer, "QuantizeLinear") or moves(producer)):
            return f"`{value.name}` is computed by {producer.op_type}"
        elif is_op(producer, "QuantizeLinear") and constant(operand_or_none(producer, 2)) is None:
            return f"the zero point of `{value.name}` is computed at run time"
        for user, at in value.uses():
            if is_op(user, "DequantizeLinear") and at == 0:
                if constant(operand_or_none(user, 2)) is None:
                    return f"the zero point of `{value.name}` is computed at run time"
            elif not (moves(user) and at in data_operands(user)):
                return f"`{value.name}` is read by {user.op_type}"
            elif (
                is_op(user, "Pad")
                and attribute(user, "mode", "constant") == "constant"
                and operand_or_none(user, 2) is None
            ):
                return f"`{user.name}` pads with the integer zero"
    return None


def _shift(graph: onnx_ir.Model, old: str, new: str, by: int) -> Report:
    import numpy as np
    import onnx_ir

    report = Report()
    main = graph.graph
    wanted = onnx_ir.DataType.from_numpy(np.dtype(new))
    seen: set[onnx_ir.Value] = set()

    def moved(value: onnx_ir.Value | None) -> onnx_ir.Value:
        array = constant(value)
        assert array is not None and value is not None
        return add_constant(main, (array.astype(np.int16) + by).astype(new), str(value.name))

    for node in tuple(main):
        start = node.outputs[0]
        if not is_op(node, "QuantizeLinear") or start in seen or start.dtype is None or start.dtype.numpy() != old:
            continue
        values = _linked(start)
        seen |= values.keys()
        if why := _obstacle(values):
            report.skip(node, why)
            continue
        for value in values:
            producer = value.producer()
            readers = tuple(value.uses())
            if is_op(producer, "QuantizeLinear"):
                producer.attributes.pop("output_dtype", None)
                producer.replace_input_with(2, moved(producer.inputs[2]))
                report.rewrites += 1
            if producer is None:
                shifted = moved(value)
                for user, at in readers:
                    user.replace_input_with(at, shifted)
            else:
                value.type = onnx_ir.TensorType(wanted)
            for user, at in readers:
                if at == 0 and is_op(user, "DequantizeLinear"):
                    user.replace_input_with(2, moved(user.inputs[2]))
                    report.rewrites += 1
    return report


def to_unsigned(graph: onnx_ir.Model) -> Report:
    """Quantize activations to uint8 in place of int8, in place, with zero points 128 higher.

    Left as they are, with the reason in the report: integers that are inputs or outputs of the model, or that an
    operator reads or makes that is neither a (de)quantization nor a movement. Weights are not activations.
    """
    return _shift(graph, "int8", "uint8", 128)


def to_signed(graph: onnx_ir.Model) -> Report:
    """Quantize activations to int8 in place of uint8, in place, with zero points 128 lower: `to_unsigned` backwards."""
    return _shift(graph, "uint8", "int8", -128)
