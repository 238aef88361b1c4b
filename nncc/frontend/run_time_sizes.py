"""Sizes that inputs say while the library runs, as selections: these have a largest size, and operators behind them.

slice(x, start, end)   ->  compress(x, start' <= i < end')    of the places i of the axis, both within it
topk(x, k)             ->  compress(topk(x, n), i < k)        of all n elements in order, values and indices alike
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nncc.passes.rewriting import Before, attribute, is_op, scalar, static_shape, substitute

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["select_run_time_sizes"]


def select_run_time_sizes(graph: onnx_ir.Model, computed: set[str]) -> bool:
    """Rewrite Slice along one axis, forwards, and TopK, in place, where one of the `computed` values says how much;
    whether there were any.

    Of TopK, more elements than there are are all of them, where ONNX has no result.
    """
    done = False
    for node in tuple(graph.graph):
        if is_op(node, "Slice") and _any_of(node.inputs[1:], computed):
            done |= _slice(node)
        elif is_op(node, "TopK") and _any_of(node.inputs[1:2], computed):
            done |= _top_k(node)
    return done


def _any_of(values: Sequence[onnx_ir.Value | None], computed: set[str]) -> bool:
    return any(value is not None and str(value.name) in computed for value in values)


def _within(words: Before, place: onnx_ir.Value, size: int) -> onnx_ir.Value:
    """A place of an axis, as int64, counted from its end where it is negative; the nearest end where it is none."""
    import onnx_ir

    place = words.op("Cast", place, to=int(onnx_ir.DataType.INT64))
    zero, n = words.numbers([0]), words.numbers([size])
    place = words.op("Where", words.op("Less", place, zero), words.op("Add", place, n), place)
    return words.op("Min", words.op("Max", place, zero), n)


def _slice(node: onnx_ir.Node) -> bool:
    shape = static_shape(node.inputs[0])
    starts, ends, axes, steps = [*node.inputs[1:], None, None, None][:4]
    axis = 0 if axes is None else scalar(axes)
    step = 1 if steps is None else scalar(steps)
    if shape is None or axis is None or step is None or any(static_shape(value) != (1,) for value in (starts, ends)):
        return False
    axis, step = int(axis), int(step)
    if step < 1 or not -len(shape) <= axis < len(shape) or not shape[axis]:
        return False
    assert starts is not None and ends is not None and node.inputs[0] is not None
    words, size = Before(node), shape[axis]
    start, end = _within(words, starts, size), _within(words, ends, size)
    places = words.numbers(range(size))
    taken = words.op("And", words.op("GreaterOrEqual", places, start), words.op("Less", places, end))
    if step > 1:
        far = words.op("Mod", words.op("Sub", places, start), words.numbers([step]))
        taken = words.op("And", taken, words.op("Equal", far, words.numbers([0])))
    _replace(node.outputs[0], words, node.inputs[0], taken, axis % len(shape))
    return True


def _top_k(node: onnx_ir.Node) -> bool:
    import onnx_ir

    shape = static_shape(node.inputs[0])
    axis = int(attribute(node, "axis", -1))
    k = node.inputs[1]
    if shape is None or not -len(shape) <= axis < len(shape) or not shape[axis] or static_shape(k) != (1,):
        return False
    assert k is not None
    words = Before(node)
    taken = words.op("Less", words.numbers(range(shape[axis])), k)
    whole = onnx_ir.Node(
        node.domain,
        "TopK",
        [node.inputs[0], words.numbers([shape[axis]])],
        list(node.attributes.values()),
        num_outputs=2,
        name=f"{words.name}/whole",
    )
    words.graph.insert_before(node, whole)
    for number, (old, new) in enumerate(zip(node.outputs, whole.outputs, strict=True)):
        new.name, new.type, new.shape = f"{words.name}/whole_{number}", old.type, onnx_ir.Shape(shape)
    for old, new in zip(tuple(node.outputs), whole.outputs, strict=True):
        if old.uses() or old.is_graph_output():
            _replace(old, words, new, taken, axis % len(shape))
    return True


def _replace(old: onnx_ir.Value, words: Before, source: onnx_ir.Value, taken: onnx_ir.Value, axis: int) -> None:
    """Let `old` be what is taken of `source` along an axis."""
    selected = words.op("Compress", source, taken, axis=axis)
    selected.type = old.type
    substitute(old, selected)
