"""What the inputs of layers have to do with each other: X^T X over calibration samples, by layer that reads channels.

From it follow, without another run, the weights that serve best without some inputs, W' = (X_k^T X_k)^-1 X_k^T X W,
and what is lost by that. Kept in files, since those of large layers take 85 MB each.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.compress.linear import Linear, linear, values
from nncc.compress.patches import patches
from nncc.passes.rewriting import operand

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies, Group, Site
    from nncc.quant.request import Tell

__all__ = ["Grams", "Reader", "collect", "damped", "refit_readers"]

DAMPING = 1e-2
"""A ridge on the inputs, as a part of their mean square."""
_MOST_ROWS = 30_000
"""Positions of all samples together; of more, as many are drawn from each sample."""
_MOST_SAMPLES = 64


def damped(file: Path, layer: Linear) -> np.ndarray:
    """X^T X (float64) that `collect` wrote, a column of ones last if the layer has a bias, with a ridge."""
    import numpy as np

    gram = np.load(file).astype(np.float64)
    size = len(layer.matrix)
    mean = float(np.diagonal(gram)[:size].mean())
    gram[np.arange(size), np.arange(size)] += DAMPING * mean + 1e-12
    if layer.bias is not None:
        gram[size, size] += 1e-12
    return gram


class Reader:
    """A dense layer that reads prunable channels."""

    def __init__(self, site: Site, made: np.ndarray | None, layer: Linear, file: Path) -> None:
        import numpy as np

        self.node = site.node
        self.layer = layer
        self.units = np.repeat(site.units, len(layer.matrix) // len(site.units))
        """One for each row of the layer's matrix."""
        self.made = made
        """One for each of its columns."""
        self._file = file

    def gram(self) -> np.ndarray:
        """X^T X (float64), a column of ones last if the layer has a bias, damped."""
        return damped(self._file, self.layer)

    def refitted(self, keep: np.ndarray) -> np.ndarray:
        """The whole matrix of the layer without removed units, fitted to what is left. No run is needed."""
        import numpy as np

        rows = np.flatnonzero(keep[self.units])
        if self.layer.bias is not None:
            rows = np.append(rows, len(self.units))
        gram, whole = self.gram(), self.layer.whole()
        if self.made is not None:
            whole = whole[:, keep[self.made]]
        return np.linalg.solve(gram[np.ix_(rows, rows)], gram[rows] @ whole)


class Grams:
    """The readers of a prepared graph. Their files go with this object."""

    def __init__(
        self,
        graph: onnx_ir.Model,
        found: Dependencies,
        samples: Sequence[Mapping[str, np.ndarray]],
        seed: int = 0,
        tell: Tell = lambda done, total, what: None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="nncc-")
        self.readers: list[Reader] = []
        nodes = list(graph.graph)
        sites = found.prunable_sites("reads")
        makes = {site.node: site.units for site in found.sites if site.kind == "makes"}
        for done, site in enumerate(sites):
            layer = linear(nodes[site.node]) if site.operand == 1 else None
            if layer is None or layer.matrix.ndim != 2:
                continue
            tell(done, len(sites), str(nodes[site.node].name))
            file = Path(self._folder.name) / f"{site.node}.npy"
            if collect(graph, layer, samples, file, seed):
                self.readers.append(Reader(site, makes.get(site.node), layer, file))

    def of(self, group: Group) -> list[Reader]:
        """The readers of a group's channels."""
        units = set(group.units.tolist())
        return [reader for reader in self.readers if not units.isdisjoint(reader.units.tolist())]


def refit_readers(graph: onnx_ir.Model, readers: Sequence[Reader], keep: np.ndarray) -> None:
    """Fit the weights of these readers to what is left, in place in `graph`, which was cut by `keep`.

    It takes the inputs that stay to be those of the original, and so fits one group that is cut alone.
    """
    nodes = list(graph.graph)
    for reader in readers:
        layer = linear(nodes[reader.node])
        whole = reader.refitted(keep)
        if layer is not None and whole.shape == layer.whole().shape:
            layer.write(whole)


def collect(
    graph: onnx_ir.Model, layer: Linear, samples: Sequence[Mapping[str, np.ndarray]], file: Path, seed: int
) -> bool:
    """Write X^T X to the file; False where there is none, or it is not finite."""
    import numpy as np

    rng = np.random.default_rng(seed)
    samples = samples[:: max(1, -(-len(samples) // _MOST_SAMPLES))]
    most = max(1, _MOST_ROWS // max(len(samples), 1))
    gram: np.ndarray | None = None
    for x in values(graph, str(operand(layer.node).name), samples):
        rows = patches(layer.node, x)
        if len(rows) > most:
            rows = rows[np.sort(rng.choice(len(rows), most, replace=False))]
        if layer.bias is not None:
            rows = np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            part = rows.T @ rows
            gram = part if gram is None else gram + part
    if gram is None or not np.isfinite(gram).all():
        return False
    np.save(file, gram.astype(np.float32))
    return True
