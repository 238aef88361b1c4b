"""Copies of graphs that show what is inside them, and take inner values as inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nncc.quant.correspond import Pair, quantization, rounded

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["isolated", "shown_name", "with_outputs"]

_SHOWN = "/nncc_shown"


def shown_name(name: str) -> str:
    """The name of the output that shows the value `name`."""
    return f"{name}{_SHOWN}"


def with_outputs(graph: onnx_ir.Model, names: Sequence[str], dequantize: bool = True) -> onnx_ir.Model:
    """A copy whose last outputs are the values of these names; integers with a scale are dequantized, if wished."""
    copy = graph.clone()
    values = {str(v.name): v for node in copy.graph for v in node.outputs if v.name}
    shown = {name: _shown(copy, values[name], dequantize) for name in dict.fromkeys(names)}
    copy.graph.outputs.extend(shown[name] for name in names)
    return _pruned(copy, len(names))


def _shown(graph: onnx_ir.Model, value: onnx_ir.Value, dequantize: bool = True) -> onnx_ir.Value:
    """A value that can be one more output: dequantized where it holds integers, else a copy."""
    import onnx_ir

    scale = quantization(value) if dequantize else None
    inputs = [value, *(each for each in scale if each is not None)] if scale else [value]
    node = onnx_ir.node("DequantizeLinear" if scale else "Identity", inputs)
    node.outputs[0].name = shown_name(str(value.name))
    node.outputs[0].type = None if scale else value.type
    graph.graph.append(node)
    return node.outputs[0]


def isolated(
    graph: onnx_ir.Model, pairs: Sequence[Pair], group: Sequence[Pair]
) -> tuple[onnx_ir.Model, dict[str, str]]:
    """A copy in which whatever reads a paired tensor reads an input instead; its last outputs are the group's tensors.

    Also which tensor of the float model each new input wants.
    """
    import onnx_ir

    copy = graph.clone()
    values = {str(v.name): v for node in copy.graph for v in node.outputs if v.name}
    shown = [_shown(copy, values[pair.seen]) for pair in group]
    fed: dict[str, str] = {}
    for pair in pairs:
        value = values[pair.made]
        uses = [use for each in (value, *rounded(value)) for use in each.uses()]
        users = [(node, at) for node, at in uses if not str(node.outputs[0].name).endswith(_SHOWN)]
        if value.name != pair.seen:
            users = [(node, at) for node, at in users if node.op_type != "QuantizeLinear" or at]
        if not users:
            continue
        new = onnx_ir.Value(name=f"{pair.made}/nncc_float", type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT))
        copy.graph.inputs.append(new)
        fed[str(new.name)] = pair.name
        scale = quantization(value)
        if scale is not None:
            node = onnx_ir.node("QuantizeLinear", [new, *(each for each in scale if each is not None)])
            node.outputs[0].name = f"{pair.made}/nncc_rounded"
            copy.graph.insert_before(users[0][0], node)
            new = node.outputs[0]
        for node, at in users:
            node.replace_input_with(at, new)
    copy.graph.outputs.extend(shown)
    copy = _pruned(copy, len(group))
    left = {str(value.name) for value in copy.graph.inputs}
    return copy, {name: wanted for name, wanted in fed.items() if name in left}


def _pruned(graph: onnx_ir.Model, keep: int) -> onnx_ir.Model:
    """The graph with only its last `keep` outputs, and what they need."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    del graph.graph.outputs[: len(graph.graph.outputs) - keep]
    graph.graph.sort()
    RemoveUnusedNodesPass()(graph)
    for value in tuple(graph.graph.inputs):
        if not value.uses():
            graph.graph.inputs.remove(value)
    return graph
