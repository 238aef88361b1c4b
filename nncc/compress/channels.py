"""Whole channels, which go from all tensors and weights that have them: `--structure channels`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.compress.cost import costs, nbytes
from nncc.compress.cut import cut
from nncc.compress.grams import Grams, refit_readers
from nncc.compress.groups import Group, dependencies
from nncc.compress.importance import IMPORTANCE, Evidence
from nncc.compress.parts import Analysis
from nncc.compress.refit import refit

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx_ir

    from nncc.compress.material import Choices, Material
    from nncc.quant.request import Start, Tell

__all__ = ["Channels", "channel_groups"]


def channel_groups(graph: onnx_ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> Analysis:
    """Channels that stand and fall together; what goes counts by the multiplications that go with it."""
    found = dependencies(graph, shapes)
    layers = costs(graph, found)
    return Analysis(found, layers, nbytes(graph, found), tuple(cost.macs for cost in layers))


class Channels:
    """Cuts channels out of the model of a `Material`."""

    def __init__(self, material: Material, choices: Choices, start: Start, tell: Tell) -> None:
        self._material, self._choices, self._tell = material, choices, tell
        found = material.found
        start("statistics", f"{len(material.seen)} samples")
        self._grams = Grams(material.prepared, found, material.seen, choices.seed, tell)
        start("rank", f"{found.count} channels by {choices.importance}")
        evidence = Evidence(material.prepared, found, material.seen, self._grams)
        self.importance = IMPORTANCE[choices.importance](evidence)

    def alone(self, group: Group, keep: np.ndarray) -> onnx_ir.Model:
        """The graph in which only this group loses units, those that read it fitted if that is chosen."""
        smaller = self.plain(keep)
        if self._choices.refit:
            refit_readers(smaller, self._grams.of(group), keep)
        return smaller

    def plain(self, keep: np.ndarray) -> onnx_ir.Model:
        """The graph without what `keep` leaves out, other weights as they were."""
        return cut(self._material.prepared, self._material.found, keep)

    def refitted(self, keep: np.ndarray, damping: float) -> onnx_ir.Model:
        """The same, with all weights behind the first cut fitted to what is left."""
        material = self._material
        return refit(
            material.prepared,
            self.plain(keep),
            material.found,
            keep,
            material.seen,
            damping,
            self._choices.seed,
            self._tell,
        )
