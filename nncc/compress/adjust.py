"""What changes in an operator beside its weights when channels go: sizes that stand in constants and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.compress.linear import set_constant
from nncc.compress.movement_rules import sliced_axes
from nncc.passes.rewriting import add_constant, attribute, constant

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies

__all__ = ["ADJUST", "Cutting"]


@dataclass(frozen=True)
class Cutting:
    """A graph that is being cut, of which `keep` says for each unit whether it stays."""

    graph: onnx_ir.Graph
    found: Dependencies
    keep: np.ndarray

    def kept(self, value: onnx_ir.Value | None, axis: int) -> np.ndarray | None:
        """Which positions of an axis stay; None where all do."""
        units = None if value is None else self.found.axes.get(str(value.name), {}).get(axis)
        if units is None:
            return None
        mask = self.keep[units]
        return None if mask.all() else mask


def _set_int(node: onnx_ir.Node, name: str, number: int | list[int]) -> None:
    import onnx_ir

    attr = onnx_ir.AttrInt64(name, number) if isinstance(number, int) else onnx_ir.AttrInt64s(name, number)
    node.attributes[name] = attr


def _group(cutting: Cutting, node: onnx_ir.Node) -> None:
    """As many groups fewer as the part of the channels that goes: all groups have one size."""
    groups = int(attribute(node, "group", 1))
    mask = cutting.kept(node.inputs[0], 1)
    if groups > 1 and mask is not None:
        _set_int(node, "group", groups * int(mask.sum()) // len(mask))


def _reshape(cutting: Cutting, node: onnx_ir.Node) -> None:
    """A size that is written out becomes the new one; -1 and 0 find it themselves."""
    target = constant(node.inputs[1])
    if target is None:
        return
    sizes = target.copy()
    for axis in range(len(sizes)):
        mask = cutting.kept(node.outputs[0], axis)
        if mask is not None and sizes[axis] > 0:
            sizes[axis] = mask.sum()
    if (sizes != target).any():
        set_constant(node, 1, sizes)


def _resize(cutting: Cutting, node: onnx_ir.Node) -> None:
    """Sizes as those of a Reshape; they may be of some axes only."""
    sizes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if sizes is None:
        return
    axes = attribute(node, "axes") or list(range(len(sizes)))
    changed = sizes.copy()
    for at, axis in enumerate(axes):
        mask = cutting.kept(node.outputs[0], axis)
        if mask is not None:
            changed[at] = mask.sum()
    if (changed != sizes).any():
        set_constant(node, 3, changed)


def _slice(cutting: Cutting, node: onnx_ir.Node) -> None:
    """From as many as are kept before the start, to as many as are kept before the end."""
    import numpy as np

    shape = cutting.found.shapes.get(str(node.inputs[0].name)) if node.inputs[0] is not None else None
    ranges = None if shape is None else sliced_axes(node, shape)
    if shape is None or not ranges:
        return
    starts, ends = (np.array(constant(node.inputs[at])).reshape(-1) for at in (1, 2))
    changed = False
    for at, (axis, (start, end, _)) in enumerate(ranges.items()):
        mask = cutting.kept(node.inputs[0], axis)
        if mask is not None:
            starts[at], ends[at], changed = mask[:start].sum(), mask[:end].sum(), True
    if changed:
        set_constant(node, 1, starts)
        set_constant(node, 2, ends)


def _split(cutting: Cutting, node: onnx_ir.Node) -> None:
    """The sizes that are left, written out."""
    import numpy as np

    first = node.inputs[0]
    shape = cutting.found.shapes.get(str(first.name)) if first is not None else None
    if shape is None:
        return None
    axis = int(attribute(node, "axis", 0)) % len(shape)
    mask = cutting.kept(first, axis)
    if mask is None:
        return None
    sizes, start = [], 0
    for value in node.outputs:
        end = start + cutting.found.shapes[str(value.name)][axis]
        sizes.append(int(mask[start:end].sum()))
        start = end
    opset = cutting.graph.opset_imports.get("", 1)
    if opset < 13:
        return _set_int(node, "split", sizes)
    node.attributes.pop("num_outputs", None)
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        return set_constant(node, 1, np.array(sizes, np.int64))
    node.resize_inputs(2)
    return node.replace_input_with(1, add_constant(cutting.graph, np.array(sizes, np.int64), f"{node.name}/sizes"))


ADJUST: Mapping[str, Callable[[Cutting, onnx_ir.Node], None]] = {
    "Conv": _group,
    "ConvTranspose": _group,
    "Reshape": _reshape,
    "Resize": _resize,
    "Slice": _slice,
    "Split": _split,
}
"""By operator, what is done to a node before its constants are cut."""
