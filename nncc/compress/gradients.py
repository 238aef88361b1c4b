"""Gradients of an ONNX graph as an ONNX graph: reverse mode, with a rule an operator, run by ONNX Runtime.

For y the outputs and v given arrays of their shapes, what is computed is the gradient of the sum of v * y. Behind an
operator without a rule no gradient is known, and so of all that it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.compress.tape import UNKNOWN, Tape
from nncc.passes.rewriting import attribute, constant

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["GRADIENTS", "backward"]


def backward(tape: Tape, outputs: Mapping[str, str]) -> None:
    """Go back from the outputs, for each of which the name of v is given; `tape.of` then knows the gradients."""
    for name, gradient in outputs.items():
        tape.put(name, gradient)
    for node in reversed(tape.nodes):
        given = tape.behind(node)
        if not any(given):
            continue
        found = None if UNKNOWN in given or any(given[1:]) else _by_rule(tape, node, str(given[0]))
        for at, value in enumerate(node.inputs):
            if value is not None and constant(value) is None:
                tape.add(value, UNKNOWN if found is None else found[at] if at < len(found) else None)


def _by_rule(tape: Tape, node: onnx_ir.Node, gradient: str) -> Sequence[str | None] | None:
    """The gradients of the inputs of a node; None where there is no rule for it as it is."""
    rule = GRADIENTS.get(node.op_type) if node.domain == "" else None
    try:
        return None if rule is None else rule(tape, node, gradient)
    except (_NoRule, KeyError):
        return None


class _NoRule(Exception):
    """A form of an operator that its rule does not cover."""


def _only_first(node: onnx_ir.Node) -> None:
    """Raise _NoRule where an operand beside the first is no constant, for rules that say nothing of it."""
    if any(value is not None and constant(value) is None for value in node.inputs[1:]):
        raise _NoRule


def _same(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    return [g]


def _add(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    return [tape.reduced(g, value, node.outputs[0]) for value in node.inputs if value is not None]


def _sub(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    left, right = _add(tape, node, g)
    return [left, tape.op("Neg", str(right))]


def _mul(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    left, right = (value for value in node.inputs if value is not None)
    products = tape.op("Mul", g, str(right.name)), tape.op("Mul", g, str(left.name))
    return [tape.reduced(each, value, node.outputs[0]) for each, value in zip(products, (left, right), strict=True)]


def _div(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    left, right = (value for value in node.inputs if value is not None)
    over = tape.op("Div", g, str(right.name))
    lower = tape.op("Neg", tape.op("Mul", over, str(node.outputs[0].name)))
    return [tape.reduced(over, left, node.outputs[0]), tape.reduced(lower, right, node.outputs[0])]


_Rule = Callable[[Tape, "onnx_ir.Node", str], "Sequence[str | None]"]


def _slope(slope: Callable[[Tape, onnx_ir.Node, str, str], str]) -> _Rule:
    """The rule of a function of one number, of `slope(tape, node, x, y)`, its derivative."""

    def rule(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
        _only_first(node)
        x, y = node.inputs[0], node.outputs[0]
        assert x is not None
        return [tape.op("Mul", g, slope(tape, node, str(x.name), str(y.name)))]

    return rule


def _relu(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    return tape.op("Cast", tape.op("Greater", x, tape.const(0.0)), to=1)


def _clip(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    return tape.op("Cast", tape.op("Equal", x, y), to=1)


def _leaky(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    below = float(attribute(node, "alpha", 0.01))
    return tape.op("Where", tape.op("Greater", x, tape.const(0.0)), tape.const(1.0), tape.const(below))


def _sigmoid(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    return tape.op("Mul", y, tape.op("Sub", tape.const(1.0), y))


def _tanh(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    return tape.op("Sub", tape.const(1.0), tape.op("Mul", y, y))


def _erf(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    return tape.op("Mul", tape.const(1.1283791670955126), tape.op("Exp", tape.op("Neg", tape.op("Mul", x, x))))


def _hard_sigmoid(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    inside = tape.op("And", tape.op("Greater", y, tape.const(0.0)), tape.op("Less", y, tape.const(1.0)))
    return tape.op("Where", inside, tape.const(float(attribute(node, "alpha", 0.2))), tape.const(0.0))


def _hard_swish(tape: Tape, node: onnx_ir.Node, x: str, y: str) -> str:
    inside = tape.op("Add", tape.op("Div", x, tape.const(3.0)), tape.const(0.5))
    high = tape.op("Where", tape.op("Greater", x, tape.const(3.0)), tape.const(1.0), inside)
    return tape.op("Where", tape.op("Less", x, tape.const(-3.0)), tape.const(0.0), high)


def _conv(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    """The transposed convolution by the same weights, cut to the input: [0, full) without its pads."""
    _only_first(node)
    x, weight = node.inputs[0], node.inputs[1]
    assert x is not None and weight is not None
    rank, where = len(tape.shape(x)) - 2, _geometry(node)
    strides, dilations, pads = (where[name] or [int(name != "pads")] * rank * (1 + (name == "pads"))
                                for name in ("strides", "dilations", "pads"))  # fmt: skip
    wide = tape.op("ConvTranspose", g, str(weight.name), strides=strides, dilations=dilations,
                   group=int(attribute(node, "group", 1)))  # fmt: skip
    return [_inside(tape, wide, x, pads, strides)]


def _geometry(node: onnx_ir.Node) -> dict[str, list[int] | None]:
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise _NoRule
    found = {name: attribute(node, name) for name in ("strides", "dilations", "pads")}
    return {name: None if value is None else [int(each) for each in value] for name, value in found.items()}


def _inside(tape: Tape, wide: str, x: onnx_ir.Value, pads: Sequence[int], strides: Sequence[int]) -> str:
    """Of the gradient of a padded input that of the input: without pads, with zeros where no window reached."""
    rank = len(strides)
    behind = [0, 0, *([0] * rank), 0, 0, *(pads[rank + at] + strides[at] for at in range(rank))]
    padded = tape.op("Pad", wide, tape.ints(*behind))
    sizes = tape.op("Slice", tape.op("Shape", str(x.name)), tape.ints(2), tape.ints(2 + rank))
    start = tape.ints(*pads[:rank])
    return tape.op("Slice", padded, start, tape.op("Add", sizes, start), tape.ints(*range(2, 2 + rank)))


def _conv_transpose(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    _only_first(node)
    weight = node.inputs[1]
    if weight is None or attribute(node, "output_shape") is not None:
        raise _NoRule
    where = {name: value for name, value in _geometry(node).items() if value is not None}
    return [tape.op("Conv", g, str(weight.name), group=int(attribute(node, "group", 1)), **where)]


def _gemm(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    _only_first(node)
    weight = node.inputs[1]
    if weight is None or attribute(node, "transA", 0):
        raise _NoRule
    transposed, alpha = int(attribute(node, "transB", 0)), float(attribute(node, "alpha", 1.0))
    return [tape.op("Gemm", g, str(weight.name), transB=1 - transposed, alpha=alpha)]


def _matmul(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    left, right = node.inputs
    assert left is not None and right is not None
    ranks = len(tape.shape(left)), len(tape.shape(right))
    broadcast = tape.shape(left)[:-2] != tape.shape(node.outputs[0])[:-2]
    if min(ranks) < 2 or (ranks[0] != ranks[1] and ranks[1] != 2) or broadcast:
        raise _NoRule
    turned = [_turned(tape, value) for value in (right, left)]
    found: list[str | None] = [tape.op("MatMul", g, turned[0])]
    if constant(right) is None:
        if ranks[0] != ranks[1] or tape.shape(right)[:-2] != tape.shape(left)[:-2]:
            raise _NoRule
        found.append(tape.op("MatMul", turned[1], g))
    return found


def _turned(tape: Tape, value: onnx_ir.Value) -> str:
    rank = len(tape.shape(value))
    return tape.op("Transpose", str(value.name), perm=[*range(rank - 2), rank - 1, rank - 2])


def _reshape(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    assert node.inputs[0] is not None
    return [tape.op("Reshape", g, tape.op("Shape", str(node.inputs[0].name)))]


def _transpose(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    rank = len(tape.shape(node.outputs[0]))
    perm = attribute(node, "perm") or list(reversed(range(rank)))
    return [tape.op("Transpose", g, perm=[list(perm).index(axis) for axis in range(rank)])]


def _concat(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    axis = int(attribute(node, "axis")) % len(tape.shape(node.outputs[0]))
    found: list[str | None] = []
    start = tape.ints(0)
    for value in node.inputs:
        assert value is not None
        size = tape.op("Slice", tape.op("Shape", str(value.name)), tape.ints(axis), tape.ints(axis + 1))
        end = tape.op("Add", start, size)
        found.append(tape.op("Slice", g, start, end, tape.ints(axis)))
        start = end
    return found


def _mean(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    """Of GlobalAveragePool, and of ReduceMean with its axes kept: the same part for each."""
    x = node.inputs[0]
    assert x is not None
    if node.op_type == "ReduceMean" and not attribute(node, "keepdims", 1):
        raise _NoRule
    many = tape.op("Div", tape.op("Size", str(x.name)), tape.op("Size", str(node.outputs[0].name)))
    return [tape.op("Expand", tape.op("Div", g, tape.op("Cast", many, to=1)), tape.op("Shape", str(x.name)))]


def _average_pool(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    """A depthwise convolution by equal weights; not where pads are left out of the mean."""
    import numpy as np

    x, window = node.inputs[0], [int(size) for size in attribute(node, "kernel_shape")]
    assert x is not None
    where, rank = _geometry(node), len(window)
    pads = where["pads"] or [0] * (2 * rank)
    if attribute(node, "ceil_mode", 0) or (any(pads) and not attribute(node, "count_include_pad", 0)):
        raise _NoRule
    channels, strides = tape.shape(x)[1], where["strides"] or [1] * rank
    weight = tape.const(np.full((channels, 1, *window), 1 / np.prod(window)))
    return [_inside(tape, tape.op("ConvTranspose", g, weight, strides=strides, group=channels), x, pads, strides)]


def _max_pool(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    """To the largest of each window, to all of several equal ones: place by place of the window."""
    import numpy as np

    x, y, window = node.inputs[0], str(node.outputs[0].name), [int(size) for size in attribute(node, "kernel_shape")]
    assert x is not None
    where, rank, channels = _geometry(node), len(window), tape.shape(x)[1]
    if attribute(node, "ceil_mode", 0) or set(where["dilations"] or [1]) != {1}:
        raise _NoRule
    pads, strides = where["pads"] or [0] * (2 * rank), where["strides"] or [1] * rank
    around = [0, 0, *pads[:rank], 0, 0, *pads[rank:]]
    padded = tape.op("Pad", str(x.name), tape.ints(*around), tape.const(-3e38))
    sizes = tape.op("Slice", tape.op("Shape", y), tape.ints(2), tape.ints(2 + rank))
    last = tape.op("Mul", tape.op("Sub", sizes, tape.ints(1)), tape.ints(*strides))
    axes, wide = tape.ints(*range(2, 2 + rank)), ""
    for place in np.ndindex(*window):
        first = tape.ints(*place)
        end = tape.op("Add", tape.op("Add", last, first), tape.ints(1))
        taken = tape.op("Equal", tape.op("Slice", padded, first, end, axes, tape.ints(*strides)), y)
        spread = np.zeros((channels, 1, *window))
        spread[(slice(None), 0) + place] = 1  # noqa: RUF005 - a star in an index is for Python 3.11
        share = tape.op("Mul", g, tape.op("Cast", taken, to=1))
        part = tape.op("ConvTranspose", share, tape.const(spread), strides=strides, group=channels)
        wide = tape.op("Add", wide, part) if wide else part
    return [_inside(tape, wide, x, pads, strides)]


def _softmax(tape: Tape, node: onnx_ir.Node, g: str) -> list[str | None]:
    axis, y = int(attribute(node, "axis", -1)), str(node.outputs[0].name)
    inner = tape.op("ReduceSum", tape.op("Mul", g, y), tape.ints(axis), keepdims=1)
    return [tape.op("Mul", y, tape.op("Sub", g, inner))]


GRADIENTS: Mapping[str, _Rule] = {
    "Identity": _same,
    "Dropout": _same,
    "Add": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Relu": _slope(_relu),
    "Clip": _slope(_clip),
    "LeakyRelu": _slope(_leaky),
    "Sigmoid": _slope(_sigmoid),
    "Tanh": _slope(_tanh),
    "Erf": _slope(_erf),
    "HardSigmoid": _slope(_hard_sigmoid),
    "HardSwish": _slope(_hard_swish),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Concat": _concat,
    "GlobalAveragePool": _mean,
    "ReduceMean": _mean,
    "AveragePool": _average_pool,
    "MaxPool": _max_pool,
    "Softmax": _softmax,
}
"""By operator of the standard domain: ``rule(tape, node, g)`` gives the gradients of its inputs, of that of its output;
those of constants do not matter."""
