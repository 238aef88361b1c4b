"""move(DQ(q)) = DQ(move(q)): what only moves elements moves integers, and dequantization is where numbers are needed.

With Q(DQ(q)) = q what stands between two quantizations of one scale becomes a movement of integers; and what stands
between weights and the operator that reads them moves the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.grids import Grid, grid_of, operand_or_none, opset, same_grid
from nncc.passes.movements import axis_after, moves, moves_integers
from nncc.passes.rewriting import Report, add_constant, attribute, constant, is_op, operand

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["sink_dequantize"]


def _producers(node: onnx_ir.Node) -> list[onnx_ir.Node] | None:
    """The dequantizations that all data of `node` come from; None where others are among them."""
    values = node.inputs if is_op(node, "Concat") else node.inputs[:1]
    found = []
    for value in values:
        producer = value.producer() if value is not None else None
        if not is_op(producer, "DequantizeLinear") or producer.graph is not node.graph:
            return None
        found.append(producer)
    return found or None


def _filling(node: onnx_ir.Node, grid: Grid) -> np.ndarray | str | None:
    """The integer that a Pad fills with; None where it fills with none, or why the grid has no such integer."""
    import numpy as np

    if not is_op(node, "Pad") or attribute(node, "mode", "constant") != "constant":
        return None
    given = operand_or_none(node, 2)
    value = np.zeros((), grid.scale.dtype) if given is None else constant(given)
    if value is None:
        return "what it pads with is computed at run time"
    low, high = grid.limits()
    q = (
        round(float(value.reshape(())) / float(grid.scale)) + int(grid.zero_point)
        if np.isfinite(value).all()
        else high + 1
    )
    back = np.asarray(q - int(grid.zero_point)).astype(grid.scale.dtype) * grid.scale
    if not low <= q <= high or back != value.reshape(()):
        return "what it pads with is not a number of the grid"
    return np.array(q, grid.zero_point.dtype)


def _refusal(node: onnx_ir.Node, grid: Grid | None, grids: list[Grid | None], version: int) -> str | None:
    if grid is None or not all(same_grid(grid, other) for other in grids):
        return "its operands have different scales or zero points, or such that are computed at run time"
    if not grid.whole and axis_after(node, grid) is None:
        return "the axis of the scales is none of its result"
    if not moves_integers(node, grid.dtype, version):
        return f"it has no form for {grid.dtype}"
    filling = _filling(node, grid)
    return filling if isinstance(filling, str) else None


def sink_dequantize(graph: onnx_ir.Model) -> Report:
    """Move dequantizations, in place, behind the movements that read them; other readers keep their own."""
    report = Report()
    version = opset(graph)
    for node in tuple(graph.graph):
        if not moves(node) or (before := _producers(node)) is None:
            continue
        grids = [grid_of(producer) for producer in before]
        grid = grids[0]
        if why := _refusal(node, grid, grids, version):
            report.skip(node, why)
            continue
        assert grid is not None
        _sink(node, before, grid)
        report.rewrites += 1
    return report


def _sink(node: onnx_ir.Node, before: list[onnx_ir.Node], grid: Grid) -> None:
    import numpy as np
    import onnx_ir

    graph = node.graph
    assert graph is not None
    name = str(node.outputs[0].name)
    filling = _filling(node, grid)
    if isinstance(filling, np.ndarray):
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, add_constant(graph, filling, f"{name}/filling"))
    axis = None if grid.whole else axis_after(node, grid)
    scale, zero = operand(before[0], 1), operand(before[0], 2)
    integers = onnx_ir.TensorType(operand(before[0]).dtype)  # type: ignore[arg-type]
    for at, producer in enumerate(before):
        node.replace_input_with(at, operand(producer))
    for at, out in enumerate(node.outputs):
        real, out.type = out.type, integers
        if not out.uses() and not out.is_graph_output():
            continue
        dequantize = onnx_ir.node(
            "DequantizeLinear",
            [out, scale, zero],
            {} if axis is None else {"axis": axis},
            name=f"{name}/dequantize_{at}",
        )
        after = dequantize.outputs[0]
        after.name, after.type, after.shape = f"{out.name}/nncc_DequantizeLinear", real, out.shape
        if out.is_graph_output():
            after.name, out.name = out.name, f"{out.name}/moved"
        out.replace_all_uses_with(after, replace_graph_outputs=True)
        dequantize.replace_input_with(0, out)
        graph.insert_after(node, dequantize)
    for producer in set(before):
        if producer.graph is not None and not any(o.uses() or o.is_graph_output() for o in producer.outputs):
            producer.graph.remove(producer, safe=True)
