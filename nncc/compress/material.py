"""What prunings of a model are made of and judged on, and what they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nncc.compress.cost import total
from nncc.compress.groups import Dependencies
from nncc.compress.parts import Analysis
from nncc.compress.structures import STRUCTURES, Structure
from nncc.errors import ModelError
from nncc.passes.rewriting import constant, is_op
from nncc.quant.calibrate import check_samples
from nncc.quant.metric import Agreement, MaxDrop, Metric, Noise, agreement_of
from nncc.quant.prepare import prepare
from nncc.quant.quantize import shapes_of
from nncc.quant.samples import hold_out
from nncc.quant.session import open_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.quant.request import Start

__all__ = ["Choices", "Gate", "Material", "gather"]

_MOST_JUDGED = 32
"""Held-out samples that the error of a pruning is measured on."""


@dataclass(frozen=True)
class Choices:
    """How what goes is chosen."""

    importance: str = "reconstruction"
    """What ranks the units of a group: one of `Structure.ranks`."""
    refit: bool = True
    """Whether weights are fitted to what is left, where that lowers the error of the outputs."""
    multiple: int = 4
    """Counts of channels stay multiples of it."""
    least: int = 1
    """No group is left with fewer channels."""
    seed: int = 0
    """Of the samples that are held out, and of the positions that weights are fitted to."""


@dataclass(frozen=True)
class Gate:
    """What the pruned model has to be worth."""

    metric: Metric | str = ""
    """A function of a file's path, or a kind of `nncc.quant.metric.AGREEMENTS`; by default the kind that fits."""
    max_drop: MaxDrop | None = None
    most: int = 20
    """How often the metric may be asked."""


@dataclass(frozen=True)
class Material:
    """What all prunings of a model are made of and judged on."""

    graph: onnx_ir.Model
    """As it was read."""
    prepared: onnx_ir.Model
    analysis: Analysis
    structure: Structure
    seen: Sequence[Mapping[str, np.ndarray]]
    held_out: Sequence[Mapping[str, np.ndarray]]
    agreement: Agreement
    noise: Noise

    @property
    def found(self) -> Dependencies:
        """What a cut must know of the graph."""
        return self.analysis.found

    def macs(self, keep: np.ndarray) -> float:
        """Multiplications of the graph without the units that `keep` leaves out, for the first sample."""
        return total(tuple(cost.macs for cost in self.analysis.costs), keep)

    def gone(self, keep: np.ndarray) -> float:
        """The part that goes of what `--sparsity` is a part of."""
        counted = self.analysis.counted
        return 1 - total(counted, keep) / total(counted, keep | True)


def gather(
    graph: onnx_ir.Model,
    samples: Sequence[Mapping[str, np.ndarray]],
    seed: int,
    kind: str = "",
    start: Start = lambda name, what: None,
    structure: Structure = STRUCTURES["channels"],
) -> Material:
    """Prepare the graph, find its groups, keep samples back. Raises ModelError where nothing can be pruned or weights
    are not finite, RunError for samples that do not fit or are not finite."""
    start("prepare", "")
    check_samples(graph, samples)
    prepared = prepare(graph, least_opset=0)
    _check_weights(prepared)
    seen, held = hold_out(samples, seed)
    analysis = structure.analyze(prepared, shapes_of(prepared, samples[0]))
    if not analysis.found.prunable():
        reasons = "; ".join(f"`{group.name}`: {group.reason}" for group in analysis.found.groups[:5])
        raise ModelError(
            f"the model has no {structure.unit.split()[0]} that can be removed{': ' + reasons if reasons else ''}",
            f"`nncc show` shows the model; {structure.needs}",
        )
    agreement = Agreement(kind or agreement_of(graph), open_graph(graph), held)
    noise = Noise(prepared, held[:_MOST_JUDGED])
    return Material(graph, prepared, analysis, structure, seen, held, agreement, noise)


def _check_weights(graph: onnx_ir.Model) -> None:
    import numpy as np

    for node in graph.graph:
        if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        for value in node.inputs[1:]:
            weight = constant(value)
            if weight is not None and weight.dtype.kind == "f" and not np.isfinite(weight).all():
                raise ModelError(
                    f"the weights of `{node.name}` are not all finite", "such a model computes nothing: export it again"
                )
