"""Weights fitted anew to what is left of their inputs, by least squares over calibration samples.

Layer by layer, in the order of the graph: given the inputs X' that a layer now gets (from layers that are refitted
already), and the outputs Y that the original has, W' = argmin |X' W' - Y|^2 + r |W' - W|^2. Reconstruction of pruned
layers is from He et al. 2017 (arXiv:1707.06168); fitting to the original's outputs from the pruned inputs keeps errors
from adding up, as in asymmetric reconstruction (Zhang et al. 2015, arXiv:1505.06798). Of layers in front of Relu or
Clip only what passes counts, see `nncc.compress.rectified`, unless they get zeros: the surgeon's second-order model is
that of plain least squares. Held out, SQNR: a keyword spotter with half of its multiplications 12.4 dB plain and 14.5
dB so, a classifier of images with 58 % of them 18.2 and 18.3; one with 67 % of its weights zero 9.4 and 8.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.compress.linear import Linear, linear, values
from nncc.compress.patches import patches
from nncc.compress.rectified import bounds_behind, fitted_within, ridge
from nncc.compress.surgeon import Problem
from nncc.passes.rewriting import is_op, operand

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies
    from nncc.quant.request import Tell

__all__ = ["DAMPINGS", "Operation", "refit"]

DAMPINGS = (1e-2, 1e-1, 1e-3)
"""Ridges r that are tried, as parts of the mean square of the inputs: fewer samples want larger ones."""
_MOST_ROWS = 60_000
"""Positions of all samples together that a layer is fitted to; of more, as many are drawn from each sample."""
_MOST_SAMPLES = 256
_MOST_STEPPED, _MOST_NUMBERS = 16_384, 2**24
"""Positions that a layer in front of Relu is fitted to step by step, and their inputs together: they are in memory."""

Operation = Callable[[Problem], "np.ndarray"]
"""A matrix with zeros, the bias in its last row, that does nearly what the problem asks for."""
NO_OPERATIONS: Mapping[str, Operation] = {}


def refit(
    graph: onnx_ir.Model,
    smaller: onnx_ir.Model,
    found: Dependencies,
    keep: np.ndarray,
    samples: Sequence[Mapping[str, np.ndarray]],
    damping: float = DAMPINGS[0],
    seed: int = 0,
    tell: Tell = lambda done, total, what: None,
    operations: Mapping[str, Operation] = NO_OPERATIONS,
) -> onnx_ir.Model:
    """A copy of `smaller`, which was cut from `graph`, with weights and biases fitted anew.

    All convolutions, Gemm and MatMul with constant weights behind the first cut are fitted; of depthwise convolutions
    each channel, of other grouped ones none. Layers with more than 4608 inputs stay as they are. `operations` says by
    name which layers get zeros, and how, given what would be best without.
    """
    result = smaller.clone()
    originals = {str(node.name): node for node in graph.graph}
    touched = _behind_cuts(result, found, keep, operations)
    nodes = [node for node in result.graph if str(node.name) in touched]
    given = samples[:: max(1, -(-len(samples) // _MOST_SAMPLES))]
    for done, node in enumerate(nodes):
        layer = linear(node)
        if layer is None:
            continue
        tell(done, len(nodes), str(node.name))
        out = str(node.outputs[0].name)
        rank = len(found.shapes.get(out, (0, 0)))
        made = found.axes.get(out, {}).get(rank - 1 if is_op(node, "MatMul") else 1)
        mask = None if made is None else keep[made]
        before = values(graph, str(originals[str(node.name)].outputs[0].name), given)
        now = values(result, str(operand(node).name), given)
        operation = operations.get(str(node.name))
        bounds = bounds_behind(node) if operation is None else None
        solved = _solve(layer, now, before, mask, len(given), damping, seed, bounds)
        if solved is None:
            continue
        gram, change = solved
        whole = layer.whole() + change
        layer.write(whole if operation is None else operation(Problem(gram, whole, len(layer.matrix))))
    return result


def _behind_cuts(
    graph: onnx_ir.Model, found: Dependencies, keep: np.ndarray, operations: Mapping[str, Operation]
) -> set[str]:
    """Names of nodes that are cut themselves, or whose inputs are others than before."""
    cut = {name for name, axes in found.axes.items() if any(not keep[units].all() for units in axes.values())}
    changed: set[str] = set()
    names = set()
    for node in graph.graph:
        given = any(value is not None and (value.name in cut or value.name in changed) for value in node.inputs)
        if given or str(node.name) in operations:
            names.add(str(node.name))
            changed.update(str(value.name) for value in node.outputs)
    return names


def _solve(
    layer: Linear,
    now: Iterator[np.ndarray],
    before: Iterator[np.ndarray],
    mask: np.ndarray | None,
    count: int,
    damping: float,
    seed: int,
    bounds: tuple[float, float] | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    """The damped X^T X, and what to add to the matrix, with a last row for the bias if there is one.

    With `bounds`, sums that are to lie beyond them may lie anywhere there.
    """
    import numpy as np

    rng = np.random.default_rng(seed)
    most = max(1, _MOST_ROWS // max(count, 1))
    gram: np.ndarray | None = None
    right: np.ndarray | None = None
    kept: list[list[np.ndarray]] = []
    width = max(1, int(np.prod(layer.matrix.shape[:-1])))
    share = max(1, min(_MOST_STEPPED, _MOST_NUMBERS // width) // max(1, count))
    for x, y in zip(now, before, strict=True):
        inputs, outputs = patches(layer.node, x), _rows(layer.node, y)
        if mask is not None:
            outputs = outputs[:, mask]
        if len(outputs) > most:
            places = np.sort(rng.choice(len(outputs), most, replace=False))
            inputs, outputs = inputs[..., places, :], outputs[places]
        inputs = inputs.astype(np.float64)
        if layer.bias is not None:
            inputs = np.concatenate([inputs, np.ones((*inputs.shape[:-1], 1))], axis=-1)
        wanted = outputs.T[..., None] if layer.matrix.ndim == 3 else outputs
        rest = wanted - inputs @ layer.whole()
        turned = np.swapaxes(inputs, -1, -2)
        gram = turned @ inputs if gram is None else gram + turned @ inputs
        right = turned @ rest if right is None else right + turned @ rest
        if bounds is not None:
            every = slice(None, None, -(-inputs.shape[-2] // share))
            kept.append([np.ascontiguousarray(each[..., every, :]) for each in (inputs, wanted)])
    if gram is None or right is None or not np.isfinite(gram).all() or not np.isfinite(right).all():
        return None
    size = layer.matrix.shape[-2]
    gram = ridge(gram, size, damping)
    try:
        change = np.linalg.solve(gram, right)
        if bounds is not None:
            inputs, wanted = (np.concatenate(each, axis=-2) for each in zip(*kept, strict=True))
            if inputs.shape[-2] > inputs.shape[-1]:
                change = fitted_within(inputs, wanted, layer.whole(), change, damping, bounds, size)
        return gram, change
    except np.linalg.LinAlgError:
        return None


def _rows(node: onnx_ir.Node, y: np.ndarray) -> np.ndarray:
    """[positions, channels] of an output."""
    import numpy as np

    axis = 1 if is_op(node, "Conv", "Gemm") else -1
    return np.moveaxis(y, axis, -1).reshape(-1, y.shape[axis])
