"""Types of 8 and fewer bits that kernels have no arithmetic for are bytes in Relax, one number in each.

    cast(x: narrow) = cast(decode(bytes of x))      cast(x) to narrow = bytes: encode(cast(x))

What only moves numbers moves bytes. In a library's interface too such a number is a byte: int4 and int2 with their sign
extended, the others in the low bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.movements import COPYING
from nncc.passes.rewriting import attribute, is_op
from nncc.passes.widen_integers import widen_integers

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["STORED", "hold_in_bytes"]

STORED = {
    "float8_e4m3fn": "uint8",
    "float8_e4m3fnuz": "uint8",
    "float8_e5m2": "uint8",
    "float8_e5m2fnuz": "uint8",
    "float8_e8m0fnu": "uint8",
    "float4_e2m1fn": "uint8",
    "int4": "int8",
    "uint4": "uint8",
    "int2": "int8",
    "uint2": "uint8",
}
"""By a type's name in numpy: that of the bytes which hold it."""


def _narrow(value: onnx_ir.Value | None) -> str:
    """The name of the type of a value that is held in bytes; empty for others."""
    name = value.dtype.numpy().name if value is not None and value.dtype else ""
    return name if name in STORED else ""


def hold_in_bytes(graph: onnx_ir.Model) -> bool:
    """Rewrite in place; whether there was anything to rewrite. What results has nodes that ONNX does not know.

    Raises ModelError for operators that compute on such types.
    """
    import onnx_ir

    values = [value for value in (*graph.graph.initializers.values(), *graph.graph.inputs) if _narrow(value)]
    nodes = [node for node in graph.graph if any(map(_narrow, (*node.inputs, *node.outputs)))]
    if not values and not nodes:
        return False
    for value in graph.graph.inputs:
        if _narrow(value) and "float" not in _narrow(value):
            _cut(graph.graph, value)
    for node in nodes:
        if is_op(node, "Cast"):
            _split_cast(node)
        elif is_op(node, "QuantizeLinear", "DequantizeLinear", *COPYING):
            continue
        elif is_op(node, "BitCast"):
            node.attributes["to"] = onnx_ir.AttrInt64("to", _byte_of(node.outputs[0]))
        else:
            name = next(filter(None, map(_narrow, (*node.inputs, *node.outputs))))
            raise ModelError(
                f"{node.op_type} `{node.name or node.outputs[0].name}` computes on {name}, which cannot be compiled",
                "cast to float or int8 before it",
            )
    for value in (*graph.graph.inputs, *(out for node in graph.graph for out in node.outputs)):
        maker = value.producer()
        if _narrow(value) and (maker is None or not is_op(maker, "QuantizeLinear", *COPYING)):
            _relabel(value)
    widen_integers(graph, interface=True)  # what QuantizeLinear makes is clipped
    for value in (
        *graph.graph.initializers.values(),
        *graph.graph.inputs,
        *(o for n in graph.graph for o in n.outputs),
    ):
        if _narrow(value):
            _relabel(value)
    return True


def _cut(graph: onnx_ir.Graph, value: onnx_ir.Value) -> None:
    """Take no more than its bits from the bytes of an input: what is in the others is the caller's affair."""
    import onnx_ir

    users = tuple(value.uses())
    node = onnx_ir.node("DecodeNarrow", [value], attributes={"format": _narrow(value)}, name=f"{value.name}/bits")
    node.outputs[0].name, node.outputs[0].shape = f"{value.name}/bits", value.shape
    node.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType[STORED[_narrow(value)].upper()])
    if first := next(iter(graph), None):
        graph.insert_before(first, node)
    for user, at in users:
        user.replace_input_with(at, node.outputs[0])


def _byte_of(value: onnx_ir.Value) -> int:
    """ONNX's number of the type that holds a value: its own unless it is narrow."""
    import onnx_ir

    assert value.dtype is not None
    name = _narrow(value)
    return int(onnx_ir.DataType[STORED[name].upper()]) if name else int(value.dtype)


def _relabel(value: onnx_ir.Value) -> None:
    import numpy as np
    import onnx_ir

    stored = np.dtype(STORED[_narrow(value)])
    if value.const_value is not None:
        array = value.const_value.numpy()
        array = array.astype(stored) if _narrow(value).startswith(("int", "uint")) else array.view(stored)
        value.const_value = onnx_ir.tensor(array, name=value.name)
    value.type = onnx_ir.TensorType(onnx_ir.DataType.from_numpy(stored))


def _split_cast(node: onnx_ir.Node) -> None:
    """A Cast from or to a narrow type as up to four nodes: decode, cast, cast, encode."""
    import onnx_ir

    x, out = node.inputs[0], node.outputs[0]
    assert x is not None and out.dtype is not None and node.graph is not None
    source, target = _narrow(x), _narrow(out)
    is_real = "float" in source
    steps: list[tuple[str, dict[str, int | str], str]] = []  # operator, attributes, type that it gives
    if source:
        held = "float32" if is_real else STORED[source]
        steps += [("DecodeNarrow", {"format": source}, held)] if is_real else []
    else:
        held = x.dtype.numpy().name if x.dtype else ""
    if target:
        wanted = ("float64" if held == "float64" else "float32") if "float" in target else "int32"
        attributes: dict[str, int | str] = {
            "format": target,
            "saturate": int(attribute(node, "saturate", 1)),
            "round_mode": str(attribute(node, "round_mode", "up")),
        }
        last = [("EncodeNarrow", attributes, STORED[target])]
    else:
        wanted, last = out.dtype.numpy().name, []
    if wanted != held or not (steps or last):
        steps.append(("Cast", {"to": _number(wanted)}, wanted))
    steps += last
    for op, given, gives in steps[:-1]:
        inner = onnx_ir.node(op, [x], attributes=given, name=f"{node.name or out.name}/{op}")
        x = inner.outputs[0]
        x.name, x.shape = f"{out.name}/{op}", out.shape
        x.type = onnx_ir.TensorType(onnx_ir.DataType(_number(gives)))
        node.graph.insert_before(node, inner)
    op, given, _ = steps[-1]
    node.replace_input_with(0, x)
    node.op_type = op
    node.attributes.clear()
    for name, value in given.items():
        node.attributes[name] = onnx_ir.convenience.convert_attribute(name, value)


def _number(dtype: str) -> int:
    """ONNX's number of a type by its name in numpy."""
    import onnx_ir

    named = {"bfloat16": onnx_ir.DataType.BFLOAT16}
    import numpy as np

    return int(named[dtype] if dtype in named else onnx_ir.DataType.from_numpy(np.dtype(dtype)))
