"""Products in front of Relu or Clip: least squares that do not care how far beyond the bounds a sum lies.

With bounds l and h (Relu: 0 and infinity), a sum p = x w that is to be y is wrong by

    (p - y)^2 where l < y < h,   max(0, p - l)^2 where y <= l,   max(0, h - p)^2 where y >= h

which is convex, and no less than the error behind the bounds. Each step is plain least squares to targets, in the three
cases y, min(p, l) and max(p, h). It is a step down the gradient in the metric of the inputs, which Nesterov's momentum
speeds up. Layers fitted through their nonlinearity are from Zhang et al. 2015 (arXiv:1505.06798).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import constant, is_op

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["bounds_behind", "fitted_within", "ridge"]

_STEPS = 20


def bounds_behind(node: onnx_ir.Node) -> tuple[float, float] | None:
    """What Relu or Clip limits the output of `node` to; None where something else reads it too, or bounds are open."""
    out = node.outputs[0]
    uses = tuple(out.uses())
    if len(uses) != 1 or out.is_graph_output():
        return None
    reader = uses[0][0]
    if is_op(reader, "Relu"):
        return 0.0, float("inf")
    if not is_op(reader, "Clip") or uses[0][1] != 0 or len(reader.inputs) < 2:
        return None
    found = []
    for at, missing in ((1, -float("inf")), (2, float("inf"))):
        value = reader.inputs[at] if at < len(reader.inputs) else None
        array = None if value is None else constant(value)
        if value is not None and array is None:
            return None
        found.append(missing if array is None else float(array))
    return found[0], found[1]


def ridge(gram: np.ndarray, size: int, damping: float) -> np.ndarray:
    """X^T X, [..., n, n], with what keeps weights near those there were: damped by a part of the mean square of the
    first `size` columns, the others, a bias, hardly at all. A copy."""
    import numpy as np

    gram = gram.copy()
    diagonal = np.einsum("...ii->...i", gram)
    mean = diagonal[..., :size].mean(axis=-1, keepdims=True)
    diagonal[..., :size] += damping * mean
    diagonal += 1e-9 * np.maximum(mean, 1e-12)
    return gram


def fitted_within(
    inputs: np.ndarray,
    wanted: np.ndarray,
    start: np.ndarray,
    fitted: np.ndarray,
    damping: float,
    bounds: tuple[float, float],
    size: int,
) -> np.ndarray:
    """The change of `start`, [..., n, outputs], that brings `inputs` [..., positions, n] to `wanted` within the bounds.

    `fitted` is the change by plain least squares, which it begins with. LinAlgError where there is no solution.
    """
    import numpy as np

    low, high = bounds
    turned = np.swapaxes(inputs, -1, -2)
    inverse = np.linalg.inv(ridge(turned @ inputs, size, damping))
    from_inputs = inverse @ turned
    base = inputs @ start
    change = ahead = fitted
    for step in range(1, _STEPS + 1):
        now = base + inputs @ ahead
        targets = np.where(wanted <= low, np.minimum(now, low), np.where(wanted >= high, np.maximum(now, high), wanted))
        before, change = change, from_inputs @ (targets - base)
        ahead = change + (step - 1) / (step + 2) * (change - before)
    return change
