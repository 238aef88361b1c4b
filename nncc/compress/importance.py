"""How much a unit matters, by which the units of a group are ranked; `IMPORTANCE` names the ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.passes.rewriting import constant
from nncc.quant.execution import run

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.grams import Grams, Reader
    from nncc.compress.groups import Dependencies, Group, Site

__all__ = ["IMPORTANCE", "Evidence", "activation", "magnitude", "reconstruction", "taylor"]


@dataclass(frozen=True)
class Evidence:
    """What importance is judged by."""

    graph: onnx_ir.Model
    """Prepared."""
    found: Dependencies
    samples: Sequence[Mapping[str, np.ndarray]]
    grams: Grams


def magnitude(evidence: Evidence) -> np.ndarray:
    """The L2 norm of all weights of a unit; each tensor of weights counts relative to its own mean square."""
    import numpy as np

    found, nodes = evidence.found, list(evidence.graph.graph)
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


def activation(evidence: Evidence) -> np.ndarray:
    """What a unit adds to the layers that read it: the variance of its activation over `samples` times the squared norm
    of the weights that read it, relative to the whole of the layer; summed over the layers, then the root.

    The variance, not the mean square: a mean that is missing is put into the bias by the refit. Wanda (Sun et al. 2023,
    arXiv:2306.11695) ranks single weights so. Units that no weights read get their magnitude, as the least.
    """
    import numpy as np

    found, nodes = evidence.found, list(evidence.graph.graph)
    reads = [(site, *_read_axis(nodes, found, site)) for site in found.sites if site.kind == "reads"]
    variances = _variances(evidence, {value: axis for _, value, axis in reads})
    squares = np.zeros(found.count)
    seen = np.zeros(found.count, bool)
    for site, value, _ in reads:
        array = _weights(nodes, site)
        if array is None:
            continue
        power = _by_position(np.square(array), site.axis) * variances[value]
        whole = power.sum()
        seen[site.units] = True
        if whole > 0:
            np.add.at(squares, site.units, power / whole)
    importance = np.sqrt(squares)
    if not seen.all():
        other = magnitude(evidence)
        importance[~seen] = other[~seen] * 1e-6
    return importance


def reconstruction(evidence: Evidence) -> np.ndarray:
    """The order in which the units of a group are best removed if the layers that read them are refitted each time.

    Without the inputs S, refitted weights lose tr(W_S^T ((H^-1)_SS)^-1 W_S), H = X^T X: optimal brain surgeon for
    blocks (Hassibi and Stork 1993). The units that lose least, relative to the outputs of the layers that read them,
    go; weights and H^-1 become those of what is left; and so on, by a 32nd of the group at a time. Groups that no layer
    with such statistics reads have the `activation` order.
    """
    import numpy as np

    importance = activation(evidence)
    for group in evidence.found.prunable():
        states = [_State(reader, group) for reader in evidence.grams.of(group)]
        left = group.units
        rank = 0
        if not states:
            continue
        while len(left):
            losses = np.zeros(len(left))
            for state in states:
                losses += state.losses(left)
            gone = left[np.argsort(losses, kind="stable")[: max(1, len(group.units) // 32)]]
            importance[gone] = np.arange(rank, rank + len(gone))
            rank += len(gone)
            left = left[~np.isin(left, gone)]
            for state in states:
                state.remove(gone)
    return importance


def taylor(evidence: Evidence) -> np.ndarray:
    """What the outputs change to first order where a unit is replaced by its mean: see `nncc.compress.taylor`. Groups
    through which no gradient is known have the `activation` order."""
    import numpy as np

    from nncc.compress.taylor import first_order

    found = first_order(evidence.graph, evidence.found, evidence.samples)
    if found is None:
        return activation(evidence)
    return np.where(np.isnan(found), activation(evidence), found) if np.isnan(found).any() else found


class _State:
    """Inverse statistics and weights of a reader, as units go."""

    def __init__(self, reader: Reader, group: Group) -> None:
        import numpy as np

        gram, whole = reader.gram(), reader.layer.whole()
        power = float(np.einsum("ij,ik,kj->", whole, gram, whole, optimize=True))
        if reader.layer.bias is not None:  # a mean is worth nothing: the bias takes it
            rows = gram @ whole
            mean = rows[-1] / gram[-1, -1]
            power -= float(np.square(mean).sum()) * float(gram[-1, -1])
        self._scale = 1 / power if power > 0 else 0.0
        self._inverse = np.linalg.inv(gram)
        self._weights = whole
        self._columns = {unit: np.flatnonzero(reader.units == unit) for unit in group.units.tolist()}

    def losses(self, units: np.ndarray) -> np.ndarray:
        """What each unit loses by itself, relative to the power of the outputs."""
        import numpy as np

        columns = [self._columns[unit] for unit in units.tolist()]
        found = np.zeros(len(units))
        for size in {len(each) for each in columns} - {0}:
            places = [at for at, each in enumerate(columns) if len(each) == size]
            index = np.stack([columns[at] for at in places])
            blocks = self._inverse[index[:, :, None], index[:, None, :]]
            weights = self._weights[index]
            found[places] = np.einsum("uij,uij->u", weights, np.linalg.solve(blocks, weights))
        return found * self._scale

    def remove(self, units: np.ndarray) -> None:
        """Refit to what is left without these."""
        import numpy as np

        gone = np.concatenate([self._columns[unit] for unit in units.tolist()])
        if not len(gone):
            return
        block = np.linalg.solve(self._inverse[np.ix_(gone, gone)], self._inverse[gone])
        columns = self._inverse[:, gone]
        self._weights = self._weights - columns @ np.linalg.solve(
            self._inverse[np.ix_(gone, gone)], self._weights[gone]
        )
        self._inverse = self._inverse - columns @ block
        self._inverse[gone, :] = self._inverse[:, gone] = 0.0
        self._inverse[gone, gone] = 1.0
        self._weights[gone] = 0.0


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


def _variances(evidence: Evidence, axes: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Of each tensor, the variance along its axis over all samples and all other axes."""
    import numpy as np

    names = list(axes)
    sums = dict.fromkeys(names, np.zeros(()))
    squares = dict.fromkeys(names, np.zeros(()))
    counts = dict.fromkeys(names, 0)
    for arrays in run(evidence.graph, names, evidence.samples):
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


IMPORTANCE: Mapping[str, Callable[[Evidence], np.ndarray]] = {
    "reconstruction": reconstruction,
    "activation": activation,
    "taylor": taylor,
    "magnitude": magnitude,
}
"""Each gives a number for each unit, higher is more important; only units of a group compare."""
