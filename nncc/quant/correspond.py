"""Which tensor of a quantized model stands for which of its float model: by name, else by position.

Tools keep the float tensor's name on the operator's output, with QuantizeLinear and DequantizeLinear behind it, or on
the DequantizeLinear itself; files with QLinear operators name the integers ``<name>_quantized``. What counts is what
the operators behind read: the value after DequantizeLinear.
"""

from __future__ import annotations

import difflib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import constant, only_use

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["Pair", "correspondence", "quantization", "rounded"]

_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOAT_OF = {"QLinearConv": "Conv", "QLinearMatMul": "MatMul", "QGemm": "Gemm", "ConvInteger": "Conv"}
"""Operators on integers whose float operator has not simply the name without ``QLinear``."""
_SCALE_AT = {
    "QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6, "QLinearAdd": 6, "QLinearMul": 6, "QGemm": 7,
    "QLinearConcat": 0, "QLinearGlobalAveragePool": 3, "QLinearAveragePool": 3, "QLinearSigmoid": 3,
    "QLinearLeakyRelu": 3, "QLinearSoftmax": 3,
}  # fmt: skip
"""Which input is the scale of the output; the zero point comes next."""
_FOLDABLE = ("BatchNormalization", "Add", "Sub", "Mul", "Div", "Relu", "Clip")
_SAME_SCALE = ("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Identity")


@dataclass(frozen=True)
class Pair:
    """A tensor of the float model and what stands for it in the other model."""

    name: str
    """The float model's tensor."""
    seen: str
    """The other model's value that operators behind read: dequantized, or integers."""
    made: str
    """The other model's value that its layer makes: the same, or what is rounded to it."""
    op_type: str
    """Of the float model's node that makes it."""
    node: str
    """That node's name, or the tensor's where it has none."""
    by: str
    """name | position"""


def correspondence(model: onnx_ir.Model, other: onnx_ir.Model) -> tuple[Pair, ...]:
    """The tensors that both models have, in the order of the float model's nodes.

    Inputs, constants and tensors inside control flow do not count. Tools fold a batch norm into the convolution before
    it, or drop a Relu that the rounding of its input does as well, and keep the name of either: then the pairs of all
    tensors that it may be have the same `made`. Where names give less than half of the convolutions and matrix
    products, operators are aligned by their order.
    """
    values = {str(v.name): v for node in other.graph for v in node.outputs if v.name}
    pairs: list[Pair] = []
    for node in _layers(model):
        for value in node.outputs:
            if not value.name:
                continue
            found = values.get(value.name) or values.get(f"{value.name}_quantized")
            if found is not None:
                pairs += [_pair(each, found, "name") for each in (value, *_folded(value, values))]
    weighted = [str(node.outputs[0].name) for node in _layers(model) if node.op_type in _WEIGHTED]
    known = {pair.name for pair in pairs}
    if 2 * sum(name in known for name in weighted) < len(weighted):
        pairs += _by_position(model, other, pairs)
    order = {str(v.name): at for at, v in enumerate(v for node in model.graph for v in node.outputs)}
    return tuple(sorted(pairs, key=lambda pair: order[pair.name]))


def quantization(value: onnx_ir.Value) -> tuple[onnx_ir.Value, onnx_ir.Value | None] | None:
    """Scale and zero point (None for 0) of a value that an operator on integers makes; None for any other value."""
    node = value.producer()
    for _ in range(20):
        if node is None:
            return None
        if node.op_type in _SCALE_AT:
            at = _SCALE_AT[node.op_type]
            scale = node.inputs[at] if at < len(node.inputs) else None
            return None if scale is None else (scale, node.inputs[at + 1] if at + 1 < len(node.inputs) else None)
        if node.op_type not in _SAME_SCALE or node.inputs[0] is None:
            return None
        node = node.inputs[0].producer()
    return None


def _layers(graph: onnx_ir.Model) -> Iterator[onnx_ir.Node]:
    return (node for node in graph.graph if node.op_type not in (*_ROUNDING, "Constant"))


def _label(value: onnx_ir.Value) -> tuple[str, str]:
    node = value.producer()
    assert node is not None
    return node.op_type, node.name or str(value.name)


def _pair(value: onnx_ir.Value, found: onnx_ir.Value, by: str) -> Pair:
    seen = (*rounded(found), found)[0]
    return Pair(str(value.name), str(seen.name), str(found.name), *_label(value), by)


def rounded(value: onnx_ir.Value) -> list[onnx_ir.Value]:
    """What QuantizeLinear and then DequantizeLinear make of `value`: nothing, one value, or one for each reader."""
    whole = [node.outputs[0] for node, at in value.uses() if node.op_type == "QuantizeLinear" and at == 0]
    readers = [use for each in whole for use in each.uses()]
    return [node.outputs[0] for node, at in readers if node.op_type == "DequantizeLinear" and at == 0]


def _folded(value: onnx_ir.Value, names: Container[str]) -> Iterator[onnx_ir.Value]:
    """Values that may have gone into `value`: of batch norms, scales, shifts and clamps that follow it, it alone, and
    that the other model has no name for."""
    for _ in range(4):
        user = only_use(value)
        if user is None or user.op_type not in _FOLDABLE or str(user.outputs[0].name) in names:
            return
        if len(user.inputs) == 2 and all(constant(v) is None for v in user.inputs):
            return
        value = user.outputs[0]
        yield value


def _by_position(model: onnx_ir.Model, other: onnx_ir.Model, pairs: list[Pair]) -> list[Pair]:
    ours, theirs = list(_layers(model)), list(_layers(other))
    kinds = [node.op_type for node in ours]
    other_kinds = [_FLOAT_OF.get(node.op_type, node.op_type.removeprefix("QLinear")) for node in theirs]
    known, taken = {pair.name for pair in pairs}, {pair.made for pair in pairs}
    found = []
    for a, b, size in difflib.SequenceMatcher(None, kinds, other_kinds, autojunk=False).get_matching_blocks():
        for at in range(size):
            value, match = ours[a + at].outputs[0], theirs[b + at].outputs[0]
            if value.name and match.name and value.name not in known and match.name not in taken:
                found.append(_pair(value, match, "position"))
    return found
