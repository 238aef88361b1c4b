"""Q(DQ(x; s, z); s, z) = x. Q(clip(x, a, b)) = Q(x) where Q(a) is the smallest integer and Q(b) the largest.

So Q(relu(x)) = Q(x) where the zero point is the smallest integer; and clip(DQ(q)) = DQ(q) where no number of the grid
is outside of [a, b].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.fold_quantize import quantized
from nncc.passes.grids import Grid, grid_of, operand_or_none, same_grid
from nncc.passes.rewriting import Report, is_op, only_use, operand, scalar, substitute

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["drop_implied_clips", "drop_requantize"]


def _exact(grid: Grid) -> bool:
    """Whether Q(DQ(q)) = q in floating point for every q: (q - z) * s / s is off by less than half a step.

    Each of the two roundings is off by at most half an eps of the steps, of which there are `farthest`.
    """
    import numpy as np

    low, high = grid.limits()
    zero = grid.zero_point.astype(np.int64)
    farthest = int(np.maximum(high - zero, zero - low).max())
    try:
        info = np.finfo(grid.scale.dtype)
    except ValueError:  # a float type that numpy does not know
        return False
    largest = float(grid.scale.max()) * farthest
    return float(info.eps) * farthest < 0.4 and largest < float(info.max) and float(grid.scale.min()) > 0


def drop_requantize(graph: onnx_ir.Model) -> Report:
    """Drop, in place, a QuantizeLinear of what a DequantizeLinear with the same parameters gives."""
    report = Report()
    for node in tuple(graph.graph):
        if not is_op(node, "QuantizeLinear"):
            continue
        before = operand(node).producer()
        if not is_op(before, "DequantizeLinear") or before.graph is not node.graph:
            continue
        grid = grid_of(node)
        if grid is None or not same_grid(grid, grid_of(before)) or operand(before).dtype != node.outputs[0].dtype:
            report.skip(node, "it gives another scale, zero point or type than the dequantization before it")
            continue
        if not _exact(grid):
            report.skip(node, f"{grid.scale.dtype} does not hold all of its numbers exactly enough")
            continue
        substitute(node.outputs[0], operand(before))
        report.rewrites += 1
    return report


def _bounds(node: onnx_ir.Node) -> tuple[float, float] | None:
    """The bounds of a Relu or a Clip; None where it is neither or they are not constant."""
    import math

    if is_op(node, "Relu"):
        return 0.0, math.inf
    if not is_op(node, "Clip"):
        return None
    found = []
    for at, missing in ((1, -math.inf), (2, math.inf)):
        value = operand_or_none(node, at)
        bound = missing if value is None else scalar(value)
        if bound is None or math.isnan(bound):
            return None
        found.append(float(bound))
    return (found[0], found[1]) if found[0] <= found[1] else None


def _implied(grid: Grid, low: float, high: float) -> bool:
    """Whether quantizing gives the smallest integer for all of `low` and below, the largest for `high` and above."""
    import numpy as np

    edges = np.array([low, high], grid.scale.dtype)
    smallest, largest = quantized(edges, grid)
    return (int(smallest), int(largest)) == grid.limits()


def _within(grid: Grid, low: float, high: float) -> bool:
    """Whether every number of the grid is in [low, high]."""
    import numpy as np

    steps = np.array(grid.limits(), np.int64) - grid.zero_point.astype(np.int64)
    least, most = steps.astype(grid.scale.dtype) * grid.scale
    return bool(low <= least and most <= high)


def drop_implied_clips(graph: onnx_ir.Model) -> Report:
    """Drop, in place, a Relu or Clip that the quantization after it, or the dequantization before it, does anyway."""
    report = Report()
    for node in tuple(graph.graph):
        bounds = _bounds(node)
        if bounds is None or operand(node).dtype is None or not operand(node).dtype.is_floating_point():  # type: ignore[union-attr]
            continue
        user, before = only_use(node.outputs[0]), operand(node).producer()
        after = grid_of(user) if is_op(user, "QuantizeLinear") and user.inputs[0] is node.outputs[0] else None
        given = grid_of(before) if is_op(before, "DequantizeLinear") else None
        implied = after is not None and after.whole and _implied(after, *bounds)
        if implied or (given is not None and given.whole and _within(given, *bounds)):
            substitute(node.outputs[0], operand(node))
        else:
            if after is not None:
                report.skip(node, "the quantization after it reaches beyond its bounds")
            continue
        report.rewrites += 1
    return report
