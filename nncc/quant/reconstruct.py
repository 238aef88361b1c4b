"""Rounding by least squares: integers q such that s*q*x, not each s*q, is nearest to W*x over calibration data.

Frantar et al. 2022, GPTQ (arXiv:2210.17323): with H = E[x x^T], weights are rounded column by column, those of the
largest H_ii first; the error of one column is made up for by those that are not rounded yet, through the Cholesky
factor of H^-1. Of a convolution, x is a patch of the input; groups have an H each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import prod
from typing import TYPE_CHECKING, Any

from nncc.passes.rewriting import attribute, constant, is_op, operand
from nncc.quant.affine import WEIGHT_LIMIT, Affine, quantized
from nncc.quant.execution import run
from nncc.quant.operators import data_inputs, weight_operand
from nncc.quant.plan import Plan
from nncc.quant.weights import Weights, by_channel

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["reconstruct", "round_by_least_squares"]

_POSITIONS = 256
"""Patches of one sample that a layer's H is made of, at most; drawn at random."""
_MOST_BYTES = 2**29
"""Of second moments in memory at once; the model is run again for the layers that remain."""
_MOST_COLUMNS = 2304
"""Layers that sum more products for one output stay as they are: H costs columns^3, and their errors average out."""
_DAMPING = 0.01
"""Share of the mean diagonal that is added to H's."""
_BLOCK = 128
"""Columns after which the columns to the right catch up."""


def reconstruct(
    graph: onnx_ir.Model,
    plan: Plan,
    activations: Mapping[str, Affine],
    weights: Mapping[str, Weights],
    samples: Sequence[Mapping[str, np.ndarray]],
    seed: int,
) -> dict[str, Weights]:
    """The weights of a plan of `graph`, at the same scales, rounded anew.

    Conv, Gemm and MatMul with a matrix on the right, of up to _MOST_COLUMNS products for one output; others stay.
    """
    import numpy as np

    found = dict(weights)
    nodes = [node for node in plan.nodes if str(node.name) in weights and _columns(node) is not None]
    for some in _batches(nodes):
        moments = _second_moments(graph, some, activations, samples, seed)
        for node in some:
            old, moment = weights[str(node.name)], moments[str(node.name)]
            weight = constant(operand(node, 1))
            assert weight is not None
            rows = _as_rows(node, weight.astype(np.float64))
            scale = np.broadcast_to(by_channel(old.scale, weight.ndim, old.axis), weight.shape)
            integers = round_by_least_squares(rows, _as_rows(node, scale.astype(np.float64)), moment)
            found[str(node.name)] = replace(old, integers=_from_rows(node, integers, weight.shape).astype(np.int8))
    return found


def _columns(node: onnx_ir.Node) -> tuple[int, int] | None:
    """Groups and the products that one output of a layer sums; None for layers that stay as they are."""
    weight = constant(node.inputs[1])
    if weight_operand(node) != 1 or weight is None:
        return None
    if is_op(node, "Conv"):
        return int(attribute(node, "group", 1)), prod(weight.shape[1:])
    if is_op(node, "Gemm") and not attribute(node, "transA", 0):
        return 1, int(weight.shape[1 if attribute(node, "transB", 0) else 0])
    return (1, int(weight.shape[0])) if is_op(node, "MatMul") and weight.ndim == 2 else None


def _batches(nodes: Sequence[onnx_ir.Node]) -> Iterator[list[onnx_ir.Node]]:
    """The nodes in runs whose second moments fit into memory, without those of more than _MOST_COLUMNS columns."""
    total, batch, labelled = 0, 0, []
    for node in nodes:
        groups, columns = _columns(node) or (1, 0)
        size = 8 * groups * columns**2
        if columns > _MOST_COLUMNS or size > _MOST_BYTES:
            continue
        if total + size > _MOST_BYTES:
            total, batch = 0, batch + 1
        total += size
        labelled.append((batch, node))
    for _, some in groupby(labelled, key=lambda pair: pair[0]):
        yield [node for _, node in some]


def _as_rows(node: onnx_ir.Node, weight: np.ndarray) -> np.ndarray:
    """[groups, outputs, columns]"""
    groups, columns = _columns(node) or (1, 0)
    if is_op(node, "MatMul") or (is_op(node, "Gemm") and not attribute(node, "transB", 0)):
        weight = weight.T
    return weight.reshape(groups, -1, columns)


def _from_rows(node: onnx_ir.Node, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if is_op(node, "MatMul") or (is_op(node, "Gemm") and not attribute(node, "transB", 0)):
        return rows.reshape(shape[::-1]).T.copy()
    return rows.reshape(shape)


def _second_moments(
    graph: onnx_ir.Model,
    nodes: Sequence[onnx_ir.Node],
    activations: Mapping[str, Affine],
    samples: Sequence[Mapping[str, np.ndarray]],
    seed: int,
) -> dict[str, np.ndarray]:
    """H of each layer, float64[groups, columns, columns], of its input as it is after quantization, in steps of its
    scale: the unit changes nothing in what is rounded how, and squares of any input stay finite."""
    import numpy as np

    generator = np.random.default_rng(seed)
    names = list(dict.fromkeys(str(data_inputs(node)[0].name) for node in nodes))
    moments: dict[str, np.ndarray] = {}
    for arrays in run(graph, names, samples):
        inputs = dict(zip(names, arrays, strict=True))
        for node in nodes:
            given = str(data_inputs(node)[0].name)
            patches = _patches(node, inputs[given], generator)
            affine = activations[given]
            steps = quantized(patches, affine).astype(np.int32) - affine.zero_point
            x = steps.astype(np.float32).transpose(1, 2, 0)
            moment = (x @ x.transpose(0, 2, 1)).astype(np.float64)
            old = moments.get(str(node.name))
            moments[str(node.name)] = moment if old is None else old + moment
    return moments


def _patches(node: onnx_ir.Node, array: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Some of the vectors that the layer multiplies its weights with: [positions, groups, columns]."""
    import numpy as np

    groups, columns = _columns(node) or (1, 0)
    if not is_op(node, "Conv"):
        rows = array.reshape(-1, array.shape[-1])
        return rows[_some(len(rows), generator)].reshape(-1, 1, columns)
    weight = constant(node.inputs[1])
    assert weight is not None
    kernel = weight.shape[2:]
    strides, dilations = (attribute(node, name, [1] * len(kernel)) for name in ("strides", "dilations"))
    padded = np.pad(array, [(0, 0), (0, 0), *_pads(node, array.shape[2:], kernel, strides, dilations)])
    sizes = [
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[2:], kernel, strides, dilations, strict=True)
    ]
    at = np.unravel_index(_some(array.shape[0] * prod(sizes), generator), (array.shape[0], *sizes))
    taps = np.unravel_index(np.arange(prod(kernel)), kernel) if kernel else ()
    places = [
        start[:, None] * stride + tap[None] * dilation
        for start, stride, tap, dilation in zip(at[1:], strides, taps, dilations, strict=True)
    ]
    index: tuple[Any, ...] = (slice(None), at[0][:, None], *places)
    found = padded.swapaxes(0, 1)[index]  # channels, positions, taps
    return found.transpose(1, 0, 2).reshape(-1, groups, columns)


def _pads(
    node: onnx_ir.Node,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """Zeros before and after each spatial axis of a Conv, for an input of these sizes."""
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
        totals = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, strides, reach, strict=True)]
        return [(t // 2, t - t // 2) if mode == "SAME_UPPER" else (t - t // 2, t // 2) for t in totals]
    pads = attribute(node, "pads", [0] * (2 * len(kernel))) if mode == "NOTSET" else [0] * (2 * len(kernel))
    return list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))


def _some(count: int, generator: np.random.Generator) -> np.ndarray:
    import numpy as np

    return np.arange(count) if count <= _POSITIONS else np.sort(generator.choice(count, _POSITIONS, replace=False))


def round_by_least_squares(weight: np.ndarray, scale: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Integers in [-127, 127] (as float64) with the least (weight - scale*q) H (weight - scale*q)^T, nearly.

    `weight` and `scale` are [groups, outputs, columns], `moment`, H, is [groups, columns, columns]; all float64.
    Columns that the data never reach are rounded to the nearest. What is zero stays zero: kernels may skip it.
    """
    import numpy as np

    groups, _, columns = weight.shape
    diagonal = np.einsum("gii->gi", moment)
    order = np.argsort(-diagonal, axis=1, kind="stable")
    # By column in front, so that a column lies in one piece.
    weight = np.take_along_axis(weight.transpose(0, 2, 1), order[:, :, None], axis=1)
    zero = weight == 0
    scale = np.take_along_axis(scale.transpose(0, 2, 1), order[:, :, None], axis=1)
    moment = np.take_along_axis(np.take_along_axis(moment, order[:, :, None], axis=1), order[:, None], axis=2)
    diagonal = np.take_along_axis(diagonal, order, axis=1)
    mean = diagonal.mean(axis=1, keepdims=True)
    extra = np.where(mean > 0, _DAMPING * mean, 1.0) + np.where(diagonal <= 0, np.maximum(mean, 1.0), 0.0)
    moment = moment + np.einsum("gi,ij->gij", extra, np.eye(columns))
    upper = _inverse_factor(moment)
    integers = np.empty_like(weight)
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = np.empty((groups, stop - start, weight.shape[2]))
        for i in range(start, stop):
            nearest = np.clip(np.rint(weight[:, i] / scale[:, i]), -WEIGHT_LIMIT, WEIGHT_LIMIT)
            integers[:, i] = np.where(zero[:, i], 0.0, nearest)
            error = (weight[:, i] - integers[:, i] * scale[:, i]) / upper[:, i, i, None]
            weight[:, i:stop] -= upper[:, i, i:stop, None] * error[:, None]
            errors[:, i - start] = error
        weight[:, stop:] -= upper[:, start:stop, stop:].transpose(0, 2, 1) @ errors
    back = np.empty_like(integers)
    np.put_along_axis(back, np.broadcast_to(order[:, :, None], integers.shape), integers, axis=1)
    return back.transpose(0, 2, 1)


def _inverse_factor(moment: np.ndarray) -> np.ndarray:
    """The upper triangular U with H^-1 = U^T U: the inverse of R, where R is upper triangular and H = R R^T."""
    import numpy as np

    lower = np.linalg.cholesky(moment[:, ::-1, ::-1])
    return _inverse_upper(np.ascontiguousarray(lower[:, ::-1, ::-1]))


def _inverse_upper(matrix: np.ndarray) -> np.ndarray:
    """[[A, B], [0, D]]^-1 = [[A^-1, -A^-1 B D^-1], [0, D^-1]]: a third of the operations of a general inverse."""
    import numpy as np

    size = matrix.shape[-1]
    if size <= _BLOCK:
        return np.linalg.inv(matrix)
    half = size // 2
    first, last = _inverse_upper(matrix[:, :half, :half]), _inverse_upper(matrix[:, half:, half:])
    inverse = np.zeros_like(matrix)
    inverse[:, :half, :half], inverse[:, half:, half:] = first, last
    inverse[:, :half, half:] = -(first @ (matrix[:, :half, half:] @ last))
    return inverse
