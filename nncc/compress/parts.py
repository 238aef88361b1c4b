"""What a structure of pruning says of a graph, and what it does to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.cost import Cost, Part
    from nncc.compress.groups import Dependencies, Group

__all__ = ["Analysis", "Cutter"]


@dataclass(frozen=True)
class Analysis:
    """What may go from a graph, and what goes with it."""

    found: Dependencies
    """Its groups, of which so many units go; `nncc.compress.search` decides how many of each."""
    costs: tuple[Cost, ...]
    nbytes: tuple[Part, ...]
    """Of each constant, as it is stored."""
    counted: tuple[Part, ...]
    """What `--sparsity` is a part of."""


class Cutter(Protocol):
    """Makes graphs without the units that an array of bool leaves out."""

    importance: np.ndarray
    """Of each unit; higher ones stay."""

    def alone(self, group: Group, keep: np.ndarray) -> onnx_ir.Model:
        """The graph in which only this group loses units, refitted as far as statistics of the original allow."""

    def plain(self, keep: np.ndarray) -> onnx_ir.Model:
        """The graph without what `keep` leaves out, other weights as they were."""

    def refitted(self, keep: np.ndarray, damping: float) -> onnx_ir.Model:
        """The same, with weights fitted to what is left, by ridges of `damping`; see `nncc.compress.refit`."""
