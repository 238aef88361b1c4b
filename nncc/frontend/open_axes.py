"""Which axis of a value is open because the data say how much an operator selects, and what others may do with it.

Such a value has the largest shape that it may get, and what is selected at the beginning of one axis; behind it, an
operator computes something that nobody reads. So an operator may use it that computes what is at a place of the axis
from what is at that place of its operands alone, or from operands without such an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from nncc.passes.rewriting import attribute, constant, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["OpenAxis", "Refused", "Use", "open_outputs_of"]


class OpenAxis(NamedTuple):
    """The axis of a value that is open, and the name of its dimension."""

    axis: int
    dim: str


@dataclass(frozen=True)
class Use:
    """A node that uses values with open axes."""

    node: onnx_ir.Node
    known: Mapping[str, OpenAxis]
    """By name of the value."""
    why = "how much is selected decides what it computes"
    """A reason against most uses."""

    def open(self, at: int) -> OpenAxis | None:
        """The open axis of an operand."""
        value = self.node.inputs[at] if at < len(self.node.inputs) else None
        return None if value is None else self.known.get(str(value.name))

    def shape(self, at: int) -> tuple[int, ...]:
        found = static_shape(self.node.inputs[at])
        if found is None:
            raise Refused("the shape of an operand is not known")
        return found

    @property
    def result(self) -> tuple[int, ...]:
        """The shape of the first output."""
        found = static_shape(self.node.outputs[0])
        if found is None:
            raise Refused("the shape of its output is not known")
        return found

    def only(self, at: int) -> OpenAxis:
        """The open axis of operand `at`, which no other operand may have."""
        found = self.open(at)
        if found is None or any(self.open(other) for other in range(len(self.node.inputs)) if other != at):
            raise Refused(self.why)
        return found

    def ints(self, name: str, at: int) -> list[int] | None:
        """What is an attribute in older opsets and a constant operand in newer ones; None where it is missing."""
        given = attribute(self.node, name)
        if given is not None:
            return [int(value) for value in given]
        if at >= len(self.node.inputs) or self.node.inputs[at] is None:
            return None
        array = constant(self.node.inputs[at])
        if array is None:
            raise Refused(f"its {name} are not constant")
        return [int(value) for value in array.reshape(-1)]


class Refused(Exception):
    """An operator cannot use a value with an open axis in this way; the message says why."""


def open_outputs_of(use: Use) -> OpenAxis | str:
    """The open axis of the outputs of a node, of which an input has one; or why it cannot have it."""
    rule = RULES.get(use.node.op_type) if use.node.domain in ("", "ai.onnx") else None
    if rule is None:
        return use.why
    try:
        return rule(use)
    except Refused as refused:
        return str(refused)


def _elementwise(use: Use) -> OpenAxis:
    """Axes are aligned at the last one; what is not open there has one element for all."""
    rank, found = len(use.result), set()
    for at in range(len(use.node.inputs)):
        if (each := use.open(at)) is not None:
            found.add(OpenAxis(rank - len(use.shape(at)) + each.axis, each.dim))
    if len(found) > 1:
        raise Refused("its operands are open in several ways")
    (result,) = found
    for at, value in enumerate(use.node.inputs):
        axis = result.axis - rank + (len(use.shape(at)) if value is not None else 0)
        if value is not None and use.open(at) is None and axis >= 0 and use.shape(at)[axis] != 1:
            raise Refused("another operand has as many elements as may be selected, not as many as are")
    return result


def _transpose(use: Use) -> OpenAxis:
    axis, dim = use.only(0)
    order = attribute(use.node, "perm") or list(range(len(use.shape(0))))[::-1]
    return OpenAxis(order.index(axis), dim)


def _squeeze(use: Use) -> OpenAxis:
    (axis, dim), shape = use.only(0), use.shape(0)
    axes = use.ints("axes", 1)
    removed = {a % len(shape) for a in axes} if axes is not None else {a for a, d in enumerate(shape) if d == 1}
    if axis in removed:
        raise Refused(use.why)
    return OpenAxis(axis - sum(a < axis for a in removed), dim)


def _unsqueeze(use: Use) -> OpenAxis:
    axis, dim = use.only(0)
    rank = len(use.result)
    added = {a % rank for a in use.ints("axes", 1) or []}
    return OpenAxis([a for a in range(rank) if a not in added][axis], dim)


def _reshape(use: Use) -> OpenAxis:
    """The open axis stays one, and the target does not say how long it is."""
    (axis, dim), shape, result = use.only(0), use.shape(0), use.result
    target = constant(use.node.inputs[1])
    if target is None:
        raise Refused("its target is not constant")
    for at, size in enumerate(target.reshape(-1)):
        copied = size == 0 and at == axis and not attribute(use.node, "allowzero", 0)
        if (size == -1 or copied) and result[at] == shape[axis] and prod(result[:at]) == prod(shape[:axis]):
            return OpenAxis(at, dim)
    raise Refused(use.why)


def _gather(use: Use) -> OpenAxis:
    """Rows of what is selected, or what is selected as rows of something else."""
    rank, axis = len(use.shape(0)), int(attribute(use.node, "axis", 0))
    axis %= max(1, rank)
    if use.open(1) is not None:
        found = use.only(1)
        return OpenAxis(axis + found.axis, found.dim)
    found = use.only(0)
    if found.axis == axis:
        raise Refused(use.why)
    return OpenAxis(found.axis + (len(use.shape(1)) - 1 if found.axis > axis else 0), found.dim)


def _gather_nd(use: Use) -> OpenAxis:
    found = use.only(1)
    if attribute(use.node, "batch_dims", 0) or found.axis == len(use.shape(1)) - 1:
        raise Refused(use.why)
    return found


def _gather_elements(use: Use) -> OpenAxis:
    found = use.only(1)
    if found.axis != int(attribute(use.node, "axis", 0)) % len(use.shape(1)):
        raise Refused(use.why)
    return found


def _slice(use: Use) -> OpenAxis:
    found, shape = use.only(0), use.shape(0)
    starts, ends = use.ints("starts", 1) or [], use.ints("ends", 2) or []
    axes = use.ints("axes", 3)
    axes = list(range(len(starts))) if axes is None else axes
    steps = use.ints("steps", 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        whole = start == 0 and end >= shape[found.axis] and step == 1
        if axis % len(shape) == found.axis and not whole:
            raise Refused(use.why)
    return found


def _concat(use: Use) -> OpenAxis:
    found = {use.open(at) for at in range(len(use.node.inputs))}
    if len(found) > 1:
        raise Refused("its operands are open in several ways")
    (result,) = found
    if result is None or result.axis == int(attribute(use.node, "axis", 0)) % len(use.result):
        raise Refused(use.why)
    return result


def _split(use: Use) -> OpenAxis:
    found = use.only(0)
    if found.axis == int(attribute(use.node, "axis", 0)) % len(use.shape(0)):
        raise Refused(use.why)
    return found


def _reduce(use: Use) -> OpenAxis:
    (axis, dim), rank = use.only(0), len(use.shape(0))
    if use.node.op_type.startswith("Arg"):
        axes = [int(attribute(use.node, "axis", 0))]
    else:
        axes = use.ints("axes", 1) or ([] if attribute(use.node, "noop_with_empty_axes", 0) else list(range(rank)))
    reduced = {a % rank for a in axes}
    if axis in reduced:
        raise Refused(use.why)
    return OpenAxis(axis if attribute(use.node, "keepdims", 1) else axis - sum(a < axis for a in reduced), dim)


def _along(use: Use) -> OpenAxis:
    """What computes along an axis behind the open one, or before opset 13 along all from there on."""
    found, rank = use.only(0), len(use.shape(0))
    axis = attribute(use.node, "axis")
    if found.axis >= (min(1, rank - 1) if axis is None else int(axis) % rank):
        raise Refused(use.why)
    return found


def _cumulative(use: Use) -> OpenAxis:
    """Sums of what is before, which what is behind does not change."""
    found = use.only(0)
    if attribute(use.node, "reverse", 0):
        raise Refused(use.why)
    return found


def _product(use: Use) -> OpenAxis:
    """Rows that are multiplied by a matrix, and what is the same for all rows added."""
    found, rank = use.only(0), len(use.shape(0))
    added = use.shape(2) if len(use.node.inputs) > 2 else ()
    for_all = len(added) < 2 or added[0] == 1
    if found.axis == rank - 1 or len(use.shape(1)) != 2 or attribute(use.node, "transA", 0) or not for_all:
        raise Refused(use.why)
    return found


_ELEMENTWISE = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "Cast", "Ceil", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "PRelu",
    "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub",
    "Sum", "Tan", "Tanh", "Where", "Xor",
)  # fmt: skip
_REDUCTIONS = (
    "ArgMax", "ArgMin", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
RULES: Mapping[str, Callable[[Use], OpenAxis]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    "Concat": _concat,
    "CumSum": _cumulative,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "Gemm": _product,
    "LogSoftmax": _along,
    "MatMul": _product,
    "Reshape": _reshape,
    "Slice": _slice,
    "Softmax": _along,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators that may use what is selected."""
