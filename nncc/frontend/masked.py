"""Operators that compute along an open axis, of what is selected alone: what lies behind it is masked.

With V the truth of each place of the axis, whether it is selected (all are, as ONNX sees it), and 0, 1 or an infinity,
which change nothing:

    reduce(y)      ->  reduce(where(V, y, e))         mean(y)         ->  sum(where(V, y, 0)) / sum(V)
    softmax(y)     ->  softmax(where(V, y, -inf))     argmax(y)       ->  argmax(where(V, y, -inf))
    y[a:b]         ->  compress(y, a < cumsum(V) <= b)
    compress(y, c) ->  compress(y, c and V)           nonzero(y)      ->  nonzero(where(V, y, 0))
    shape(y)       ->  [.., sum(V), ..]               nms(boxes, s)   ->  nms(boxes, where(V, s, -inf))
    y[i]           ->  y[where(i < 0, i + sum(V), i)]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nncc.frontend.open_axes import OpenAxis, Refused, Use
from nncc.passes.rewriting import Before, add_constant, attribute, is_op, operand, substitute

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["MASKED", "mask"]


Outputs = Mapping["onnx_ir.Node", "OpenAxis | None"]
"""The open axis of the outputs of some nodes; None where they have none, or decide it themselves."""


def mask(use: Use, selecting: Mapping[str, onnx_ir.Node]) -> Outputs:
    """Rewrite a node that computes along an open axis, in place; those of the nodes in its stead that need no rule.

    `selecting` has, by dimension, the operator that decides it. Raises Refused.
    """
    rewrite = MASKED.get(use.node.op_type) if use.node.domain in ("", "ai.onnx") else None
    if rewrite is None:
        raise Refused(use.why)
    words = _Masks(use.node, selecting)
    rewrite(use, words)
    return words.known


class _Masks(Before):
    """Operators before a node, among them masks."""

    def __init__(self, node: onnx_ir.Node, selecting: Mapping[str, onnx_ir.Node]) -> None:
        super().__init__(node)
        self.selecting = selecting
        self.known: dict[onnx_ir.Node, OpenAxis | None] = {}
        """Of nodes whose operands are masked."""

    def closed(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """The value of an operator that is none to be masked."""
        node = value.producer()
        assert node is not None
        self.known[node] = None
        return value

    def selected(self, dim: str) -> onnx_ir.Value:
        """The truth of each place of a dimension: what is behind the selected ones is -1, of counts 0, or false."""
        node = self.selecting[dim]
        if is_op(node, "NonZero", "NonMaxSuppression"):
            axis = 0 if is_op(node, "NonZero") else 1
            line = self.op("Gather", node.outputs[0], self.scalar(0), axis=axis)
            return self.op("GreaterOrEqual", line, self.numbers([0]))
        if is_op(node, "Compress"):
            condition = operand(node, 1)
            truth = self.closed(self.op("Compress", condition, condition, axis=0))
            truth.type = condition.type
            return truth
        raise Refused("how much Unique selects is not known to other operators")

    def scalar(self, value: int) -> onnx_ir.Value:
        import numpy as np

        return add_constant(self.graph, np.array(value, np.int64), self.name)

    def count(self, dim: str) -> onnx_ir.Value:
        """How much is selected, a line of one int64."""
        import onnx_ir

        truth = self.op("Cast", self.selected(dim), to=int(onnx_ir.DataType.INT64))
        return self.closed(self.op("ReduceSum", truth, self.numbers([0]), keepdims=1))

    def masked(self, value: onnx_ir.Value, found: OpenAxis, rank: int, otherwise: float) -> onnx_ir.Value:
        """The value with something else behind what is selected; infinities of integers are their ends."""
        import numpy as np

        assert value.dtype is not None
        dtype = value.dtype.numpy()
        if dtype.kind in "iu":
            ends = np.iinfo(dtype)
            otherwise = int(min(max(otherwise, ends.min), ends.max))
        elif dtype.kind == "b":
            otherwise = otherwise > 0
        target = [1] * rank
        target[found.axis] = -1
        truth = self.op("Reshape", self.selected(found.dim), self.numbers(target))
        return self.op("Where", truth, value, add_constant(self.graph, np.array(otherwise, dtype), self.name))


_INFINITE = float("inf")
_NEUTRAL = {
    "ReduceL1": 0, "ReduceL2": 0, "ReduceLogSumExp": -_INFINITE, "ReduceMax": -_INFINITE, "ReduceMin": _INFINITE,
    "ReduceProd": 1, "ReduceSum": 0, "ReduceSumSquare": 0, "ArgMax": -_INFINITE, "ArgMin": _INFINITE,
    "Softmax": -_INFINITE, "LogSoftmax": -_INFINITE,
}  # fmt: skip
"""What changes nothing, by operator."""


def _first_masked(use: Use, words: _Masks) -> OpenAxis:
    found = use.only(0)
    value = words.masked(operand(use.node), found, len(use.shape(0)), _NEUTRAL[use.node.op_type])
    use.node.replace_input_with(0, value)
    return found


def _reduction(use: Use, words: _Masks) -> None:
    _first_masked(use, words)
    words.known[use.node] = None


def _along(use: Use, words: _Masks) -> None:
    found, rank = use.only(0), len(use.shape(0))
    if found.axis != int(attribute(use.node, "axis", -1)) % rank or found.axis != rank - 1:
        raise Refused(use.why)  # before opset 13, axes from there on are one
    words.known[use.node] = _first_masked(use, words)


def _mean(use: Use, words: _Masks) -> None:
    """Only along the open axis."""
    found, rank = use.only(0), len(use.shape(0))
    axes = use.ints("axes", 1)
    if axes is None or [axis % rank for axis in axes] != [found.axis]:
        raise Refused("it is along other axes too")
    value = words.masked(operand(use.node), found, rank, 0)
    keepdims = int(attribute(use.node, "keepdims", 1))
    total = words.closed(words.op("ReduceSum", value, words.numbers([found.axis]), keepdims=keepdims))
    dtype = operand(use.node).dtype
    assert dtype is not None
    count = words.op("Cast", words.count(found.dim), to=int(dtype))
    mean = words.op("Div", total, count)
    mean.type = use.node.outputs[0].type
    substitute(use.node.outputs[0], mean)


def _slice(use: Use, words: _Masks) -> None:
    """Along the open axis alone, from places that are counted from its beginning."""
    found = use.only(0)
    starts, ends, axes = (use.ints(name, at) for at, name in enumerate(("starts", "ends", "axes"), 1))
    steps = use.ints("steps", 4) or [1]
    along = [axis % len(use.shape(0)) for axis in axes] if axes is not None else [0]
    if starts is None or ends is None or len(starts) != 1 or along != [found.axis] or steps != [1]:
        raise Refused("it is along several axes, or has steps")
    if starts[0] < 0 or ends[0] < 0:
        raise Refused("its places are counted from the end")
    import onnx_ir

    truth = words.op("Cast", words.selected(found.dim), to=int(onnx_ir.DataType.INT64))
    places = words.op("CumSum", truth, words.scalar(0))
    after = words.op("Greater", places, words.numbers([starts[0]]))
    until = words.op("LessOrEqual", places, words.numbers([min(ends[0], 2**62)]))
    taken = words.op("And", words.op("And", after, until), words.selected(found.dim))
    result = words.closed(words.op("Compress", operand(use.node), taken, axis=found.axis))
    result.type = use.node.outputs[0].type
    substitute(use.node.outputs[0], result)


def _gather(use: Use, words: _Masks) -> None:
    """Rows of what is selected: their places, which may be open too, count from its end where they are negative."""
    found, chosen = use.open(0), use.open(1)
    if found is None or found.axis != int(attribute(use.node, "axis", 0)) % len(use.shape(0)):
        raise Refused(use.why)
    places = operand(use.node, 1)
    assert places.dtype is not None
    count = words.op("Cast", words.count(found.dim), to=int(places.dtype))
    if not use.shape(1):
        count = words.op("Squeeze", count, words.numbers([0]))
    zero = words.op("Sub", count, count)
    behind = words.op("Less", places, zero)
    use.node.replace_input_with(1, words.op("Where", behind, words.op("Add", places, count), places))
    words.known[use.node] = None if chosen is None else OpenAxis(found.axis + chosen.axis, chosen.dim)


def _compress(use: Use, words: _Masks) -> None:
    """By a condition that is as long as what is selected."""
    data, condition, axis = use.open(0), use.open(1), attribute(use.node, "axis")
    if condition is None or (data is not None and (data.dim != condition.dim or axis is None)):
        raise Refused(use.why)
    if data is not None and data.axis != int(axis) % len(use.shape(0)):
        raise Refused(use.why)
    use.node.replace_input_with(1, words.op("And", operand(use.node, 1), words.selected(condition.dim)))
    words.known[use.node] = None


def _non_zero(use: Use, words: _Masks) -> None:
    found = use.only(0)
    use.node.replace_input_with(0, words.masked(operand(use.node), found, len(use.shape(0)), 0))
    words.known[use.node] = None


def _boxes(use: Use, words: _Masks) -> None:
    """Boxes of which only some are selected: the others have no score."""
    boxes, scores = use.open(0), use.open(1)
    if boxes is None or scores is None or boxes.dim != scores.dim or (boxes.axis, scores.axis) != (1, 2):
        raise Refused(use.why)
    use.node.replace_input_with(1, words.masked(operand(use.node, 1), scores, 3, -_INFINITE))
    words.known[use.node] = None


def _shape(use: Use, words: _Masks) -> None:
    found, shape = use.only(0), use.shape(0)
    start, end = int(attribute(use.node, "start", 0)), int(attribute(use.node, "end", len(shape)))
    sizes = [words.count(found.dim) if axis == found.axis else words.numbers([n]) for axis, n in enumerate(shape)]
    sizes = sizes[slice(start, end)]
    made = words.op("Concat", *sizes, axis=0)
    made.type = use.node.outputs[0].type
    substitute(use.node.outputs[0], made)


MASKED: Mapping[str, Callable[[Use, _Masks], None]] = {
    **dict.fromkeys(_NEUTRAL, _reduction),
    "Compress": _compress,
    "Gather": _gather,
    "LogSoftmax": _along,
    "NonMaxSuppression": _boxes,
    "NonZero": _non_zero,
    "ReduceMean": _mean,
    "Shape": _shape,
    "Slice": _slice,
    "Softmax": _along,
}
"""Operators that may compute along an open axis."""
