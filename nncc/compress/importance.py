"""How much a unit matters, by which the units of a group are ranked; `IMPORTANCE` names the ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from nncc.passes.rewriting import constant
from nncc.quant.execution import run

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies, Site

__all__ = ["IMPORTANCE", "activation", "magnitude"]

Samples = Sequence[Mapping[str, "np.ndarray"]]


def magnitude(graph: onnx_ir.Model, found: Dependencies, samples: Samples) -> np.ndarray:
    """The L2 norm of all weights of a unit; each tensor of weights counts relative to its own mean square."""
    import numpy as np

    nodes = list(graph.graph)
    squares = np.zeros(found.count)
    for site in found.sites:
        array = _weights(nodes, site)
        if array is None:
            continue
        power = _by_position(np.square(array), site.axis)
        mean = power.mean()
        if mean > 0:
            np.add.at(squares, site.units, power / mean)
    return np.sqrt(squares)


def activation(graph: onnx_ir.Model, found: Dependencies, samples: Samples) -> np.ndarray:
    """What a unit adds to the layers that read it: the variance of its activation over `samples` times the squared norm
    of the weights that read it, relative to the whole of the layer; summed over the layers, then the root.

    The variance, not the mean square: a mean that is missing is put into the bias by the refit. Wanda (Sun et al. 2023,
    arXiv:2306.11695) ranks single weights so. Units that no weights read get their magnitude, as the least.
    """
    import numpy as np

    nodes = list(graph.graph)
    reads = [site for site in found.sites if site.kind == "reads"]
    axes: dict[str, int] = {}
    for site in reads:
        value, axis = _read_axis(nodes, found, site)
        axes[value] = axis
    variances = _variances(graph, axes, samples)
    squares = np.zeros(found.count)
    seen = np.zeros(found.count, bool)
    for site in reads:
        value, _ = _read_axis(nodes, found, site)
        array = _weights(nodes, site)
        if array is None:
            continue
        power = _by_position(np.square(array), site.axis) * variances[value]
        whole = power.sum()
        seen[site.units] = True
        if whole > 0:
            np.add.at(squares, site.units, power / whole)
    found_ = np.sqrt(squares)
    if not seen.all():
        other = magnitude(graph, found, samples)
        found_[~seen] = other[~seen] * 1e-6
    return found_


def _weights(nodes: Sequence[onnx_ir.Node], site: Site) -> np.ndarray | None:
    """The weights at a site in float64; None for vectors along the channels."""
    import numpy as np

    array = constant(nodes[site.node].inputs[site.operand])
    return None if array is None or array.ndim < 2 or array.size == max(array.shape) else array.astype(np.float64)


def _by_position(array: np.ndarray, axis: int) -> np.ndarray:
    """The sum over all other axes."""
    return array.sum(axis=tuple(at for at in range(array.ndim) if at != axis))


def _read_axis(nodes: Sequence[onnx_ir.Node], found: Dependencies, site: Site) -> tuple[str, int]:
    """The tensor that the weights of a site are applied to, and its axis of the channels."""
    node = nodes[site.node]
    value = node.inputs[1 - site.operand] if node.op_type == "MatMul" else node.inputs[0]
    assert value is not None
    axes = found.axes[str(value.name)]
    if node.op_type == "MatMul":
        rank = len(found.shapes[str(value.name)])
        return str(value.name), rank - 1 if site.operand == 1 else rank - 2
    return str(value.name), 1 if 1 in axes else max(axes)


def _variances(graph: onnx_ir.Model, axes: Mapping[str, int], samples: Samples) -> dict[str, np.ndarray]:
    """Of each tensor, the variance along its axis over all samples and all other axes."""
    import numpy as np

    names = list(axes)
    sums = dict.fromkeys(names, np.zeros(()))
    squares = dict.fromkeys(names, np.zeros(()))
    counts = dict.fromkeys(names, 0)
    for arrays in run(graph, names, samples):
        for name, array in zip(names, arrays, strict=True):
            wide = array.astype(np.float64)
            sums[name] = sums[name] + _by_position(wide, axes[name])
            squares[name] = squares[name] + _by_position(np.square(wide), axes[name])
            counts[name] += wide.size // wide.shape[axes[name]]
    found = {}
    for name in names:
        mean = sums[name] / max(counts[name], 1)
        found[name] = np.maximum(squares[name] / max(counts[name], 1) - np.square(mean), 0.0)
    return found


IMPORTANCE: Mapping[str, Callable[["onnx_ir.Model", "Dependencies", Samples], "np.ndarray"]] = {
    "activation": activation,
    "magnitude": magnitude,
}
"""Each gives a number for each unit of a prepared graph, higher is more important; only units of a group compare."""
