"""Zeros in place of weights: blocks of them, which kernels skip, or single ones, which need not be stored."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.compress.grams import collect, damped
from nncc.compress.groups import Group
from nncc.compress.linear import linear
from nncc.compress.refit import refit
from nncc.compress.surgeon import Block, Problem, fitted, keep_blocks, keep_weights
from nncc.compress.zero_groups import window
from nncc.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.material import Choices, Material
    from nncc.quant.request import Start, Tell

__all__ = ["Zeros", "some_blocks", "some_weights"]

Masks = Callable[["onnx_ir.Node", Problem, int, int, str], "np.ndarray"]
"""Of a layer and its problem, which weights stay, bool[inputs, outputs], if so many units of so many do, ranked so."""


def some_blocks(block: Block) -> Masks:
    """Blocks, as many of each row of blocks."""

    def masks(node: onnx_ir.Node, problem: Problem, count: int, whole: int, rank: str) -> np.ndarray:
        return keep_blocks(problem, block, window(node), count, rank)

    return masks


def some_weights(node: onnx_ir.Node, problem: Problem, count: int, whole: int, rank: str) -> np.ndarray:
    """Single weights."""
    return keep_weights(problem, count / whole, rank)


class Zeros:
    """Puts zeros into the model of a `Material`. Statistics are kept in files, which go with this object.

    Raises RunError where a layer that may get zeros has none that are finite.
    """

    def __init__(self, material: Material, choices: Choices, start: Start, tell: Tell, masks: Masks) -> None:
        import numpy as np

        self._material, self._choices, self._tell, self._masks = material, choices, tell, masks
        self._groups = material.found.prunable()
        self._folder = tempfile.TemporaryDirectory(prefix="nncc-")
        self._last: tuple[str, Problem] | None = None
        self.importance = np.zeros(material.found.count)
        self._nodes = {str(node.name): node for node in material.prepared.graph}
        start("statistics", f"{len(material.seen)} samples")
        for done, group in enumerate(self._groups):
            tell(done, len(self._groups), group.name)
            layer = linear(self._nodes[group.name])
            assert layer is not None
            if not collect(material.prepared, layer, material.seen, self._file(group), choices.seed):
                raise RunError(
                    f"calibration samples give `{group.name}` inputs that are too large, or not finite",
                    "leave out the samples that do",
                )

    def alone(self, group: Group, keep: np.ndarray) -> onnx_ir.Model:
        """The graph with zeros in this layer only, its other weights fitted if that is chosen."""
        return self._with_zeros([group], keep, self._choices.refit)

    def plain(self, keep: np.ndarray) -> onnx_ir.Model:
        """The graph with zeros in place of what `keep` leaves out, other weights as they were."""
        return self._with_zeros(self._groups, keep, False)

    def refitted(self, keep: np.ndarray, damping: float) -> onnx_ir.Model:
        """The same, but each layer is judged, and all behind the first one fitted, by what it now gets."""
        material, choices = self._material, self._choices
        operations = {
            group.name: self._operation(self._nodes[group.name], group, keep)
            for group in self._groups
            if not keep[group.units].all()
        }
        graph = material.prepared
        return refit(graph, graph, material.found, keep, material.seen, damping, choices.seed, self._tell, operations)

    def _operation(self, node: onnx_ir.Node, group: Group, keep: np.ndarray) -> Callable[[Problem], np.ndarray]:
        def operation(problem: Problem) -> np.ndarray:
            return fitted(problem, self._mask(node, group, keep, problem))

        return operation

    def _mask(self, node: onnx_ir.Node, group: Group, keep: np.ndarray, problem: Problem) -> np.ndarray:
        count = int(keep[group.units].sum())
        return self._masks(node, problem, count, len(group.units), self._choices.importance)

    def _with_zeros(self, groups: list[Group] | tuple[Group, ...], keep: np.ndarray, fit: bool) -> onnx_ir.Model:
        result = self._material.prepared.clone()
        nodes = {str(node.name): node for node in result.graph}
        for group in groups:
            if keep[group.units].all():
                continue
            layer = linear(nodes[group.name])
            assert layer is not None
            problem = self._problem(group)
            mask = self._mask(layer.node, group, keep, problem)
            whole = fitted(problem, mask) if fit else problem.best.copy()
            whole[: len(mask)][~mask] = 0.0
            layer.write(whole)
        return result

    def _problem(self, group: Group) -> Problem:
        """Of a layer of the original; the last one is kept, with its inverse."""
        if self._last is None or self._last[0] != group.name:
            layer = linear(self._nodes[group.name])
            assert layer is not None
            self._last = group.name, Problem(damped(self._file(group), layer), layer.whole(), len(layer.matrix))
        return self._last[1]

    def _file(self, group: Group) -> Path:
        return Path(self._folder.name) / f"{int(group.units[0])}.npy"
