"""What each operator does with channels: one rule an operator, `RULES` names them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nncc.compress import movement_rules as move
from nncc.compress.groups import Flow
from nncc.passes.rewriting import attribute, constant, operand

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["RULES", "unknown"]


def unknown(flow: Flow, node: onnx_ir.Node) -> None:
    """Channels that go in stay; what comes out carries none."""
    flow.stay(node, f"`{node.name}` is a {node.op_type}, of which channels cannot be removed")


def _pass(flow: Flow, node: onnx_ir.Node) -> None:
    """The first output carries what the first input does."""
    for axis, units in flow.of(node.inputs[0]).items():
        flow.put(node.outputs[0], axis, units)


# Products with weights


def conv(flow: Flow, node: onnx_ir.Node) -> None:
    """Channels of axis 1 are read and new ones made; a grouped convolution goes by whole groups."""
    _convolution(flow, node, makes=0, reads=1)


def conv_transpose(flow: Flow, node: onnx_ir.Node) -> None:
    """The same, with weights of shape [channels in, channels out / groups, ...]."""
    _convolution(flow, node, makes=1, reads=0)


def _convolution(flow: Flow, node: onnx_ir.Node, makes: int, reads: int) -> None:
    data, weight = operand(node), operand(node, 1)
    shape, out = flow.shape(weight), node.outputs[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if constant(weight) is None or shape is None or (bias is not None and constant(bias) is None):
        return flow.stay(node, f"the weights of `{node.name}` are no constants")
    groups = int(attribute(node, "group", 1))
    carried = dict(flow.of(data))
    read = carried.pop(1, None)
    for axis, units in carried.items():
        if axis == 0:
            flow.put(out, 0, units)
        else:
            flow.freeze(units, f"`{node.name}` convolves along them")
    if groups == 1:
        made = flow.fresh(shape[makes], str(node.name))
        if read is not None:
            flow.site(node, 1, reads, read, "reads")
        flow.site(node, 1, makes, made, "makes")
    elif read is None:
        return None
    else:
        made = _grouped(flow, read, groups, shape[0] // groups if makes == 0 else shape[1])
        flow.site(node, 1, 0, made if makes == 0 else read)
    if bias is not None:
        flow.site(node, 2, 0, made)
    return flow.put(out, 1, made)


def _grouped(flow: Flow, read: np.ndarray, groups: int, width: int) -> np.ndarray:
    """Units of the outputs of a grouped convolution: the channels that a group reads and makes are one."""
    rows = read.reshape(groups, -1)
    for column in range(1, rows.shape[1]):
        flow.unite(rows[:, 0], rows[:, column])
    return rows[:, 0].repeat(width)


def matmul(flow: Flow, node: onnx_ir.Node) -> None:
    """x @ W reads the last axis of x and makes it new; W @ x the one before; x @ y unites axes that are summed over."""
    left, right, out = operand(node), operand(node, 1), node.outputs[0]
    shapes = flow.shape(left), flow.shape(right), flow.shape(out)
    if shapes[0] is None or shapes[1] is None or shapes[2] is None or min(len(shapes[0]), len(shapes[1])) < 2:
        return flow.stay(node, f"the shapes of `{node.name}` are not known, or those of vectors")
    rank = len(shapes[2])
    if constant(right) is not None and len(shapes[1]) == 2:
        return _product(flow, node, left, 1, (0, 1), rank - 1, len(shapes[0]) - 1)
    if constant(left) is not None and len(shapes[0]) == 2:
        return _product(flow, node, right, 0, (1, 0), rank - 2, len(shapes[1]) - 2)
    if constant(left) is not None or constant(right) is not None:
        return flow.stay(node, f"`{node.name}` has a batch of weights")
    a = {axis - len(shapes[0]): units for axis, units in flow.of(left).items()}
    b = {axis - len(shapes[1]): units for axis, units in flow.of(right).items()}
    flow.together(node, [a.pop(-1, None), b.pop(-2, None)])
    for axis in range(-rank, -2):
        sizes = [shape[axis] if len(shape) >= -axis else 1 for shape in shapes[:2]]  # type: ignore[arg-type,index]
        units = [each.pop(axis, None) for each, size in zip((a, b), sizes, strict=True) if size > 1]
        if (found := flow.together(node, units)) is not None:
            flow.put(out, rank + axis, found)
    for axis, units_ in ((-2, a.get(-2)), (-1, b.get(-1))):
        if units_ is not None:
            flow.put(out, rank + axis, units_)
    return None


def _product(
    flow: Flow,
    node: onnx_ir.Node,
    data: onnx_ir.Value,
    weight: int,
    weight_axes: tuple[int, int],
    out_axis: int,
    data_axis: int,
) -> None:
    """A matrix product with weights: `weight_axes` are the axes that read and make, `data_axis` is read."""
    carried = dict(flow.of(data))
    read = carried.pop(data_axis, None)
    shape = flow.shape(node.inputs[weight])
    assert shape is not None
    if read is not None:
        flow.site(node, weight, weight_axes[0], read, "reads")
    made = flow.fresh(shape[weight_axes[1]], str(node.name))
    flow.site(node, weight, weight_axes[1], made, "makes")
    flow.put(node.outputs[0], out_axis, made)
    for axis, units in carried.items():
        flow.put(node.outputs[0], axis, units)


def gemm(flow: Flow, node: onnx_ir.Node) -> None:
    """alpha x @ W + beta b; with transA or weights that are computed, nothing is known."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    shape = flow.shape(bias)
    known = constant(operand(node, 1)) is not None and (bias is None or constant(bias) is not None)
    if not known or attribute(node, "transA", 0) or (bias is not None and (shape is None or len(shape) > 2)):
        return flow.stay(node, f"the weights of `{node.name}` are no constants, or its data is transposed")
    transposed = bool(attribute(node, "transB", 0))
    _product(flow, node, operand(node), 1, (1, 0) if transposed else (0, 1), 1, 1)
    made = flow.of(node.outputs[0]).get(1)
    if made is not None and shape:
        if len(shape) == 2 and shape[0] != 1:
            return flow.freeze(made, f"the bias of `{node.name}` is a matrix")
        if shape[-1] != 1:
            flow.site(node, 2, len(shape) - 1, made)
    return None


# Element by element, and along channels


def elementwise(flow: Flow, node: onnx_ir.Node) -> None:
    """Operands that carry channels on the same axis of the output are united; constants are cut with them."""
    out = node.outputs[0]
    if len(node.inputs) == 1:
        return _pass(flow, node)
    given = [(at, value, flow.shape(value)) for at, value in enumerate(node.inputs) if value is not None]
    if any(shape is None for _, _, shape in given):
        return flow.stay(node, f"the shapes of `{node.name}` are not known")
    rank = max(len(shape) for _, _, shape in given if shape is not None)
    for axis in range(rank):
        met: list[np.ndarray | None] = []
        constants = []
        for at, value, shape in given:
            own = axis - rank + len(shape or ())
            if shape is None or own < 0 or shape[own] == 1:
                continue
            if constant(value) is not None:
                constants.append((at, own))
            else:
                met.append(flow.of(value).get(own))
        units = flow.together(node, met)
        if units is not None:
            for at, own in constants:
                flow.site(node, at, own, units)
            flow.put(out, axis, units)
    return None


def batch_norm(flow: Flow, node: onnx_ir.Node) -> None:
    """Scale, shift, mean and variance go along with the channels of axis 1."""
    units = flow.of(node.inputs[0]).get(1)
    if units is not None:
        if any(constant(value) is None for value in node.inputs[1:]):
            return flow.stay(node, f"the scales of `{node.name}` are no constants")
        for at in range(1, len(node.inputs)):
            flow.site(node, at, 0, units)
    return _pass(flow, node)


def softmax(flow: Flow, node: onnx_ir.Node) -> None:
    """Only along another axis than that of the channels; before opset 13 it took all behind its axis."""
    rank = len(flow.shape(node.inputs[0]) or ())
    axis = int(attribute(node, "axis", -1 if flow.opset >= 13 else 1)) % max(rank, 1)
    for at, units in flow.of(node.inputs[0]).items():
        if at == axis or (flow.opset < 13 and at >= axis):
            flow.freeze(units, f"`{node.name}` normalizes over them")
    _pass(flow, node)


def layer_norm(flow: Flow, node: onnx_ir.Node) -> None:
    """Only over other axes than that of the channels."""
    rank = len(flow.shape(node.inputs[0]) or ())
    axis = int(attribute(node, "axis", -1)) % max(rank, 1)
    for at, units in flow.of(node.inputs[0]).items():
        if at >= axis:
            flow.freeze(units, f"`{node.name}` normalizes over them")
    _pass(flow, node)


def pool(flow: Flow, node: onnx_ir.Node) -> None:
    """Batch and channels pass; what lies in the window stays."""
    for axis, units in flow.of(node.inputs[0]).items():
        if axis > 1:
            flow.freeze(units, f"`{node.name}` pools along them")
    _pass(flow, node)
    for value in node.outputs[1:]:
        if value.uses() or value.is_graph_output():
            flow.stay(node, f"the indices of `{node.name}` are used")


def reduce(flow: Flow, node: onnx_ir.Node) -> None:
    """Over other axes than that of the channels."""
    shape = flow.shape(node.inputs[0])
    axes = attribute(node, "axes")
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        found = constant(node.inputs[1])
        if found is None:
            return flow.stay(node, f"the axes of `{node.name}` are no constants")
        axes = found.reshape(-1).tolist()
    if shape is None:
        return flow.stay(node, f"the shape of `{node.name}` is not known")
    over = {axis % len(shape) for axis in axes} if axes else set(range(len(shape)))
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        over = set()
    kept = attribute(node, "keepdims", 1)
    for axis, units in flow.of(node.inputs[0]).items():
        if axis in over:
            flow.freeze(units, f"`{node.name}` reduces over them")
        else:
            flow.put(node.outputs[0], axis if kept else axis - sum(each < axis for each in over), units)
    return None


_ELEMENTWISE = (
    "Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg",
    "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt",
    "Sub", "Sum", "Tanh", "ThresholdedRelu", "Where",
)  # fmt: skip
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool")
_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
               "ReduceSumSquare")  # fmt: skip


RULES: Mapping[str, Callable[[Flow, onnx_ir.Node], None]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "MatMul": matmul,
    "Gemm": gemm,
    "BatchNormalization": batch_norm,
    "InstanceNormalization": batch_norm,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "LayerNormalization": layer_norm,
    **dict.fromkeys(_ELEMENTWISE, elementwise),
    **dict.fromkeys(_POOLS, pool),
    **dict.fromkeys(_REDUCTIONS, reduce),
    "Concat": move.concat,
    "Split": move.split,
    "Slice": move.slice_,
    "Gather": move.gather,
    "Pad": move.pad,
    "Resize": move.resize,
    "Transpose": move.transpose,
    "Flatten": move.reshape,
    "Reshape": move.reshape,
    "Squeeze": move.reshape,
    "Unsqueeze": move.reshape,
    "Shape": move.shape_of,
}
"""By operator of the standard domain: ``rule(flow, node)``. What is not here is `unknown`."""
