"""Weights fitted anew to what is left of their inputs, by least squares over calibration samples.

Layer by layer, in the order of the graph: given the inputs X' that a layer now gets (from layers that are refitted
already), and the outputs Y that the original has, W' = argmin |X' W' - Y|^2 + r |W' - W|^2. Reconstruction of pruned
layers is from He et al. 2017 (arXiv:1707.06168); fitting to the original's outputs from the pruned inputs keeps errors
from adding up, as in asymmetric reconstruction (Zhang et al. 2015, arXiv:1505.06798).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.compress.patches import patches
from nncc.passes.rewriting import attribute, constant, is_op, operand

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies

__all__ = ["refit"]

_DAMPING = 1e-3
"""The ridge r, as a part of the mean square of the inputs."""
_MOST_COLUMNS = 4608
"""Inputs of a product, its window's pixels each counted: the normal equations of more would take over 200 MB."""
_MOST_ROWS = 60_000
"""Positions of all samples together that a layer is fitted to; of more, as many are drawn from each sample."""
_MOST_SAMPLES = 256

Tell = Callable[[int, int, str], None]


@dataclass(frozen=True)
class _Layer:
    """A product with constant weights as a matrix: rows are positions, columns are inputs and, last, the bias."""

    node: onnx_ir.Node
    matrix: np.ndarray
    """[inputs, outputs], float64; of a depthwise convolution [channels, window, 1]."""
    bias: np.ndarray | None
    restore: Callable[[np.ndarray], np.ndarray]
    """The matrix as weights of the node."""


def refit(
    graph: onnx_ir.Model,
    smaller: onnx_ir.Model,
    found: Dependencies,
    keep: np.ndarray,
    samples: Sequence[Mapping[str, np.ndarray]],
    seed: int = 0,
    tell: Tell = lambda done, total, what: None,
) -> onnx_ir.Model:
    """A copy of `smaller`, which was cut from `graph`, with weights and biases fitted anew.

    All convolutions, Gemm and MatMul with constant weights behind the first cut are fitted; of depthwise convolutions
    each channel, of other grouped ones none. Layers with more than 4608 inputs stay as they are.
    """
    result = smaller.clone()
    originals = {str(node.name): node for node in graph.graph}
    touched = _behind_cuts(result, found, keep)
    nodes = [node for node in result.graph if str(node.name) in touched]
    given = samples[:: max(1, -(-len(samples) // _MOST_SAMPLES))]
    for done, node in enumerate(nodes):
        layer = _layer(node)
        if layer is None:
            continue
        tell(done, len(nodes), str(node.name))
        made = found.axes.get(str(node.outputs[0].name), {}).get(_out_axis(node))
        mask = None if made is None else keep[made]
        before = _values(graph, str(originals[str(node.name)].outputs[0].name), given)
        now = _values(result, str(operand(node).name), given)
        change = _solve(layer, now, before, mask, len(given), seed)
        if change is not None:
            _apply(layer, change)
    return result


def _behind_cuts(graph: onnx_ir.Model, found: Dependencies, keep: np.ndarray) -> set[str]:
    """Names of nodes whose inputs are others than before."""
    cut = {name for name, axes in found.axes.items() if any(not keep[units].all() for units in axes.values())}
    changed: set[str] = set()
    names = set()
    for node in graph.graph:
        if any(value is not None and (value.name in cut or value.name in changed) for value in node.inputs):
            names.add(str(node.name))
            changed.update(str(value.name) for value in node.outputs)
    return names


def _out_axis(node: onnx_ir.Node) -> int:
    if is_op(node, "MatMul"):
        shape = node.outputs[0].shape
        return len(shape) - 1 if shape is not None else -1
    return 1


def _layer(node: onnx_ir.Node) -> _Layer | None:
    """The product as a matrix; None for what is none, or cannot be fitted."""
    import numpy as np

    if not is_op(node, "Conv", "Gemm", "MatMul"):
        return None
    weight = constant(node.inputs[1])
    bias = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if weight is None or weight.ndim < 2 or weight.dtype != np.float32 or (bias is not None and bias.ndim != 1):
        return None
    if (
        is_op(node, "Gemm")
        and (attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0), attribute(node, "transA", 0)) != (1.0, 1.0, 0)
    ) or (is_op(node, "MatMul") and weight.ndim != 2):
        return None
    wide = weight.astype(np.float64)
    shape = weight.shape
    if is_op(node, "Conv"):
        if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
            return None
        groups = int(attribute(node, "group", 1))
        if groups > 1:
            if shape[1] != 1 or shape[0] != groups:
                return None
            return _Layer(node, wide.reshape(groups, -1, 1), bias, lambda matrix: matrix.reshape(shape))
        matrix = wide.reshape(shape[0], -1).T
        restore: Callable[[np.ndarray], np.ndarray] = lambda matrix: matrix.T.reshape(shape)  # noqa: E731
    elif is_op(node, "Gemm") and attribute(node, "transB", 0):
        matrix, restore = wide.T, lambda matrix: matrix.T
    else:
        matrix, restore = wide, lambda matrix: matrix
    return _Layer(node, matrix, bias, restore) if len(matrix) <= _MOST_COLUMNS else None


def _values(
    graph: onnx_ir.Model, name: str, samples: Sequence[Mapping[str, np.ndarray]]
) -> Iterator[np.ndarray]:
    """One value for each sample, by a graph of what it needs alone."""
    from nncc.passes.remove_unused import remove_unused
    from nncc.quant.session import open_graph

    given = {str(value.name) for value in graph.graph.inputs}
    if name in given:
        yield from (sample[name] for sample in samples)
        return
    part = graph.clone()
    value = next(out for node in part.graph for out in node.outputs if out.name == name)
    part.graph.outputs[:] = [value]
    remove_unused(part)
    session = open_graph(part)
    for sample in samples:
        yield session.run(sample, [name])[0]


def _solve(
    layer: _Layer,
    now: Iterator[np.ndarray],
    before: Iterator[np.ndarray],
    mask: np.ndarray | None,
    count: int,
    seed: int,
) -> np.ndarray | None:
    """What to add to the matrix, with a last row for the bias if there is one."""
    import numpy as np

    rng = np.random.default_rng(seed)
    most = max(1, _MOST_ROWS // max(count, 1))
    gram: np.ndarray | None = None
    right: np.ndarray | None = None
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
        rest = wanted - inputs @ _with_bias(layer)
        turned = np.swapaxes(inputs, -1, -2)
        gram = turned @ inputs if gram is None else gram + turned @ inputs
        right = turned @ rest if right is None else right + turned @ rest
    if gram is None or right is None or not np.isfinite(gram).all() or not np.isfinite(right).all():
        return None
    size = layer.matrix.shape[-2]
    diagonal = np.einsum("...ii->...i", gram)
    mean = diagonal[..., :size].mean(axis=-1, keepdims=True)
    diagonal[..., :size] += _DAMPING * mean
    diagonal += 1e-9 * np.maximum(mean, 1e-12)
    try:
        return np.linalg.solve(gram, right)
    except np.linalg.LinAlgError:
        return None


def _with_bias(layer: _Layer) -> np.ndarray:
    import numpy as np

    if layer.bias is None:
        return layer.matrix
    row = layer.bias.astype(np.float64)
    row = row[:, None, None] if layer.matrix.ndim == 3 else row[None]
    return np.concatenate([layer.matrix, row], axis=-2)


def _rows(node: onnx_ir.Node, y: np.ndarray) -> np.ndarray:
    """[positions, channels] of an output."""
    import numpy as np

    axis = 1 if is_op(node, "Conv", "Gemm") else -1
    return np.moveaxis(y, axis, -1).reshape(-1, y.shape[axis])


def _apply(layer: _Layer, change: np.ndarray) -> None:
    """Write the fitted weights and bias into the node's own constants."""
    import numpy as np

    fitted = _with_bias(layer) + change
    if layer.bias is not None:
        _set(layer.node, 2, np.ascontiguousarray(fitted[..., -1, :].reshape(-1), np.float32))
        fitted = fitted[..., :-1, :]
    _set(layer.node, 1, np.ascontiguousarray(layer.restore(fitted), np.float32))


def _set(node: onnx_ir.Node, at: int, array: np.ndarray) -> None:
    import onnx_ir

    from nncc.passes.rewriting import add_constant

    value = node.inputs[at]
    assert value is not None and node.graph is not None
    if value.is_initializer() and len(value.uses()) == 1:
        value.const_value = onnx_ir.tensor(array, name=value.name)
    else:
        node.replace_input_with(at, add_constant(node.graph, array, str(value.name)))  # type: ignore[arg-type]
