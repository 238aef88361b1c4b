"""Channels through operators that only move values. How their constants change with a cut is in `adjust.py`."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from nncc.compress.groups import Flow
from nncc.passes.rewriting import attribute, constant, is_op, operand, static_shape

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["concat", "gather", "pad", "reshape", "resize", "shape_of", "slice_", "sliced_axes", "split", "transpose"]


def concat(flow: Flow, node: onnx_ir.Node) -> None:
    """Arrays of units one behind the other; on other axes, they are united. Operands without channels stay whole."""
    import numpy as np

    shapes = [flow.shape(value) for value in node.inputs]
    if any(shape is None for shape in shapes):
        return flow.stay(node, f"the shapes of `{node.name}` are not known")
    rank = len(shapes[0] or ())
    along = int(attribute(node, "axis", 1)) % max(rank, 1)
    for axis in range(rank):
        met = [flow.of(value).get(axis) for value in node.inputs]
        if axis != along:
            units = flow.together(node, met)
            if units is not None:
                flow.put(node.outputs[0], axis, units)
        elif any(units is not None for units in met):
            sizes = [shape[axis] for shape in shapes if shape is not None]
            parts = [
                flow.fixed(size, "it is no channel") if units is None else units
                for units, size in zip(met, sizes, strict=True)
            ]
            flow.put(node.outputs[0], axis, np.concatenate(parts))
    return None


def split(flow: Flow, node: onnx_ir.Node) -> None:
    """Each output has its part of the units."""
    shape = flow.shape(node.inputs[0])
    sizes = [flow.shape(value) for value in node.outputs]
    if shape is None or any(each is None for each in sizes):
        return flow.stay(node, f"the shapes of `{node.name}` are not known")
    along = int(attribute(node, "axis", 0)) % len(shape)
    for axis, units in flow.of(node.inputs[0]).items():
        first = 0
        for value, each in zip(node.outputs, sizes, strict=True):
            assert each is not None
            last = first + each[along] if axis == along else len(units)
            flow.put(value, axis, units[first:last])
            first = last if axis == along else 0
    if along in flow.of(node.inputs[0]) and len(node.inputs) > 1 and constant(node.inputs[1]) is None:
        flow.stay(node, f"the sizes of `{node.name}` are no constants")
    return None


def sliced_axes(node: onnx_ir.Node, shape: tuple[int, ...]) -> dict[int, tuple[int, int, int]] | None:
    """By axis, the start, end and step of a Slice, within the tensor; None where they are not constants."""
    operands = [constant(value) for value in node.inputs[1:]]
    if len(node.inputs) < 3 or any(array is None for array, v in zip(operands, node.inputs[1:], strict=True) if v):
        return None
    starts, ends = (array.reshape(-1).tolist() for array in operands[:2] if array is not None)
    axes = operands[2].tolist() if len(operands) > 2 and operands[2] is not None else range(len(starts))
    steps = operands[3].tolist() if len(operands) > 3 and operands[3] is not None else [1] * len(starts)
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        found[axis % len(shape)] = (*slice(start, end, step).indices(shape[axis % len(shape)])[:2], step)
    return found


def slice_(flow: Flow, node: onnx_ir.Node) -> None:
    """A range of the units; with steps they stay."""
    shape = flow.shape(node.inputs[0])
    ranges = None if shape is None else sliced_axes(node, shape)
    if shape is None or ranges is None:
        return flow.stay(node, f"the range of `{node.name}` is no constant")
    for axis, units in flow.of(node.inputs[0]).items():
        start, end, step = ranges.get(axis, (0, len(units), 1))
        if step != 1:
            flow.freeze(units, f"`{node.name}` takes them in steps of {step}")
        else:
            flow.put(node.outputs[0], axis, units[start:end])
    return None


def gather(flow: Flow, node: onnx_ir.Node) -> None:
    """Along another axis than that of the channels. Sizes that are picked from a Shape: see `shape_of`."""
    shape, indices = flow.shape(node.inputs[0]), flow.shape(node.inputs[1])
    if shape is None or indices is None:
        return flow.stay(node, f"the shapes of `{node.name}` are not known")
    along = int(attribute(node, "axis", 0)) % max(len(shape), 1)
    flow.freeze_value(node.inputs[1], f"`{node.name}` takes them as indices")
    for axis, units in flow.of(node.inputs[0]).items():
        if axis == along:
            flow.freeze(units, f"`{node.name}` picks some of them")
        else:
            flow.put(node.outputs[0], axis if axis < along else axis + len(indices) - 1, units)
    return None


def shape_of(flow: Flow, node: onnx_ir.Node) -> None:
    """Sizes that are computed: only where those of other axes are picked from them."""
    carried = flow.of(node.inputs[0])
    if not carried:
        return
    rank = len(flow.shape(node.inputs[0]) or ())
    first, last, _ = slice(attribute(node, "start", 0), attribute(node, "end")).indices(rank)
    out = node.outputs[0]
    read: set[int] = set()
    for user, at in out.uses():
        picked = constant(user.inputs[1]) if is_op(user, "Gather") and at == 0 else None
        places = range(last - first) if picked is None else picked.reshape(-1).tolist()
        read.update(range(first, last)[place] for place in places)
    for axis, units in carried.items():
        if axis in read or out.is_graph_output():
            flow.freeze(units, f"`{node.name}` reads how many there are")


def pad(flow: Flow, node: onnx_ir.Node) -> None:
    """Beside the channels, not between them."""
    shape = flow.shape(node.inputs[0])
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "pads")
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if shape is None or pads is None or (axes is None and len(node.inputs) > 3 and node.inputs[3] is not None):
        return flow.stay(node, f"the pads of `{node.name}` are no constants")
    amounts = [int(each) for each in pads]
    half = len(amounts) // 2
    at = [int(axis) % len(shape) for axis in axes] if axes is not None else list(range(half))
    padded = {axis for axis, low, high in zip(at, amounts[:half], amounts[half:], strict=True) if low or high}
    for axis, units in flow.of(node.inputs[0]).items():
        if axis in padded:
            flow.freeze(units, f"`{node.name}` pads them")
        else:
            flow.put(node.outputs[0], axis, units)
    return None


def resize(flow: Flow, node: onnx_ir.Node) -> None:
    """Along other axes than that of the channels."""
    before, after = flow.shape(node.inputs[0]), flow.shape(node.outputs[0])
    if before is None or after is None:
        return flow.stay(node, f"the shapes of `{node.name}` are not known")
    sizes = node.inputs[3] if len(node.inputs) > 3 else None
    for axis, units in flow.of(node.inputs[0]).items():
        if before[axis] != after[axis] or attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize":
            flow.freeze(units, f"`{node.name}` resizes along them")
        elif sizes is not None and constant(sizes) is None:
            flow.freeze(units, f"the sizes of `{node.name}` are no constants")
        else:
            flow.put(node.outputs[0], axis, units)
    return None


def transpose(flow: Flow, node: onnx_ir.Node) -> None:
    """Axis perm[i] becomes axis i."""
    shape = flow.shape(node.inputs[0])
    if shape is None:
        return flow.stay(node, f"the shape of `{node.name}` is not known")
    perm = attribute(node, "perm") or list(reversed(range(len(shape))))
    for axis, units in flow.of(node.inputs[0]).items():
        flow.put(node.outputs[0], perm.index(axis), units)
    return None


def reshape(flow: Flow, node: onnx_ir.Node) -> None:
    """Axes that are merged repeat each unit for all positions beside it; an axis that is split is cut by blocks.

    Of [heads, size] the axis of the heads carries the units, and all channels of a head become one: of several axes,
    one that needs nothing united, else the last but one.
    """
    import numpy as np

    carried = flow.of(node.inputs[0])
    if not carried:
        return None
    before, after = flow.shape(node.inputs[0]), flow.shape(node.outputs[0])
    if before is None or after is None or 0 in before:
        return flow.stay(node, f"the shape of `{node.name}` is not known, or it is empty")
    finding = None if not is_op(node, "Reshape") or constant(operand(node, 1)) is not None else _found_axis(flow, node)
    for olds, news in blocks(before, after):
        inside = [axis for axis in olds if axis in carried]
        if not inside:
            continue
        if len(inside) > 1:
            for axis in inside:
                flow.freeze(carried[axis], f"`{node.name}` mixes channels of two axes")
            continue
        sizes = [before[axis] for axis in olds]
        at = olds.index(inside[0])
        units = carried[inside[0]].reshape([-1 if each == at else 1 for each in range(len(olds))])
        whole = np.broadcast_to(units, sizes).reshape([after[axis] for axis in news])
        axis = _carrier(whole)
        rows = np.moveaxis(whole, axis, 0).reshape(whole.shape[axis], -1)
        for column in range(1, rows.shape[1]):
            if not np.array_equal(rows[:, 0], rows[:, column]):
                flow.unite(rows[:, 0], rows[:, column])
        if finding is not None and news[axis] != finding:
            flow.freeze(rows, f"the shape of `{node.name}` is computed")
        else:
            flow.put(node.outputs[0], news[axis], rows[:, 0].copy())
    return None


def _found_axis(flow: Flow, node: onnx_ir.Node) -> int:
    """Of a Reshape whose shape is put together from parts, the axis that is -1, and so follows what is cut; -1 where
    there is none, or it is not known."""
    parts = operand(node, 1).producer()
    if not is_op(parts, "Concat"):
        return -1
    at = 0
    for value in parts.inputs:
        shape, array = flow.shape(value) or static_shape(value), constant(value)
        if shape is None or len(shape) != 1:
            return -1
        if array is not None and -1 in array:
            return at + array.tolist().index(-1)
        at += shape[0]
    return -1


def _carrier(units: np.ndarray) -> int:
    """The axis whose positions will be the units."""
    import numpy as np

    large = [axis for axis in range(units.ndim) if units.shape[axis] > 1]
    for axis in large:
        rows = np.moveaxis(units, axis, 0).reshape(units.shape[axis], -1)
        if (rows == rows[:, :1]).all():
            return axis
    return large[-2] if len(large) > 1 else large[0]


def blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Runs of axes with as many elements before as after a reshape, as short as can be; axes of size 1 are left out."""
    olds = [axis for axis, size in enumerate(before) if size != 1]
    news = [axis for axis, size in enumerate(after) if size != 1]
    found = []
    i = j = 0
    while i < len(olds) and j < len(news):
        a, b = i + 1, j + 1
        while (left := prod(before[axis] for axis in olds[i:a])) != (
            right := prod(after[axis] for axis in news[j:b])
        ) and (a < len(olds) or b < len(news)):
            if (left < right and a < len(olds)) or b == len(news):
                a += 1
            else:
                b += 1
        found.append((olds[i:a], news[j:b]))
        i, j = a, b
    return found
