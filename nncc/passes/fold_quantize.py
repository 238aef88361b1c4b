"""QuantizeLinear(c; s, z) = c_q: weights that a model quantizes when it runs, as after training so, become integers.

The quotient is rounded in the scale's own type, half to even, as ONNX says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.grids import Grid, grid_of
from nncc.passes.rewriting import Report, add_constant, constant, is_op, substitute

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["fold_quantize", "quantized", "spread"]


def spread(entries: np.ndarray, grid: Grid, shape: tuple[int, ...]) -> np.ndarray:
    """Scales or zero points of a grid in a form that broadcasts to a tensor of `shape`."""
    import numpy as np

    if entries.ndim == 0:
        return entries
    if grid.block_size:
        repeated = np.repeat(entries, grid.block_size, axis=grid.axis)
        return np.take(repeated, range(shape[grid.axis]), axis=grid.axis)
    return entries.reshape([-1 if axis == grid.axis else 1 for axis in range(len(shape))])


def quantized(real: np.ndarray, grid: Grid) -> np.ndarray:
    """saturate(round_half_even(real / scale) + zero_point), in the type of the zero point."""
    import numpy as np

    low, high = grid.limits()
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        steps = np.rint(real / spread(grid.scale, grid, real.shape).astype(real.dtype)).astype(np.float64)
    points = steps + spread(grid.zero_point, grid, real.shape).astype(np.float64)
    return np.clip(np.nan_to_num(points, nan=0.0), low, high).astype(grid.zero_point.dtype)


def fold_quantize(graph: onnx_ir.Model) -> Report:
    """Fold in place."""
    report = Report()
    for node in tuple(graph.graph):
        if not is_op(node, "QuantizeLinear") or node.outputs[0].is_graph_output():
            continue
        real = constant(node.inputs[0])
        if real is None or real.dtype.name not in ("float32", "float16"):
            continue
        grid = grid_of(node)
        if grid is None or grid.dtype not in ("int8", "uint8", "int16", "uint16"):
            report.skip(node, "its scale or zero point is computed at run time")
            continue
        name = str(node.outputs[0].name)
        substitute(node.outputs[0], add_constant(graph.graph, quantized(real, grid), name))
        report.rewrites += 1
    return report
