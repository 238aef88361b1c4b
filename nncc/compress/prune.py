"""`nncc prune` on one screen: a graph and samples become a smaller graph, within the accuracy that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.compress.cost import total
from nncc.compress.goals import Goal, terms, text
from nncc.compress.groups import Dependencies
from nncc.compress.material import Choices, Gate, Material
from nncc.compress.search import Curve, Step, allocate, sensitivity
from nncc.compress.trials import Judge, strongest
from nncc.errors import ModelError
from nncc.layer_time import LayerTimes
from nncc.quant.metric import scored
from nncc.quant.session import open_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.goals import Kind
    from nncc.compress.search import Term
    from nncc.compress.structures import Structure
    from nncc.quant.request import Start, Tell
    from nncc.target import Hardware, Target

__all__ = ["Outcome", "prune_graph"]

_ANY_COUNT = "`--multiple 1` allows any count of channels"


@dataclass(frozen=True)
class Outcome:
    """A smaller graph, and how it came about."""

    graph: onnx_ir.Model
    found: Dependencies
    keep: np.ndarray
    """Which units stay."""
    refitted: bool
    macs: tuple[float, float]
    """Multiplications before and after, for the first sample."""
    parameters: tuple[int, int]
    """Elements of all floating constants; where zeros are put into them, those that are not zero."""
    stored_bytes: tuple[float, float]
    """Of all constants, zeros that need not be stored left out."""
    structure: Structure
    seconds: tuple[float, float] | None
    """Predicted, where the target's peak is known."""
    curves: Mapping[str, Curve]
    agreement: Mapping[str, float]
    """With the original on the held-out samples, by kind."""
    calibrated: int
    held_out: int
    scores: tuple[float, float] | None
    """Of the original and of the pruned model, by the metric that was given."""
    floor: float | None
    evaluations: int


def prune_graph(
    material: Material,
    choices: Choices,
    goal: Goal | None,
    gate: Gate,
    target: Target,
    *,
    file: Path | None = None,
    start: Start = lambda name, what: None,
    tell: Tell = lambda done, total, what: None,
) -> Outcome:
    """Reach the goal with the least predicted loss; without one, prune as much as `gate.max_drop` allows.

    A metric that is a function or a command needs `file`, the original. The same bytes for the same graph, samples and
    choices. Raises ModelError with the best that was found where the goal cannot be reached, or the score not held.
    """
    import numpy as np

    found, hardware, times = material.found, target.hardware, LayerTimes(target.hardware)
    cutter = material.structure.cutter(material, choices, start, tell)
    kind = goal.kind if goal is not None else _aim(material, hardware)
    parts = terms(kind, material.analysis, times, target.name)
    start("sensitivity", f"{len(found.prunable())} groups")
    curves = sensitivity(
        found,
        cutter.importance,
        choices.multiple,
        lambda group, keep: material.noise(cutter.alone(group, keep)),
        tell,
        material.structure.ratios,
        choices.least,
    )
    steps = _steps(material, choices, goal, curves, cutter.importance, parts)
    judge = Judge(material, choices, cutter, gate, start)
    whole = 1.0
    if not isinstance(gate.metric, str) and file is not None:
        start("metric", "of the original")
        whole = scored(gate.metric, file)
    floor = gate.max_drop.floor(whole) if gate.max_drop is not None else None
    trial = strongest(judge, steps, goal, floor, material)
    session = open_graph(trial.graph)
    agreement = material.agreement
    kinds = {kind: agreement(session, kind) for kind in dict.fromkeys((agreement.kind, "sqnr"))}
    everything, shrinks = np.ones(found.count, bool), material.structure.shrinks
    nbytes = material.analysis.nbytes
    return Outcome(
        graph=trial.graph,
        found=found,
        keep=trial.keep,
        refitted=trial.refitted,
        macs=(material.macs(everything), material.macs(trial.keep)),
        parameters=(_parameters(material.prepared, shrinks), _parameters(trial.graph, shrinks)),
        stored_bytes=(total(nbytes, everything), total(nbytes, trial.keep)),
        structure=material.structure,
        seconds=_seconds(material, times, everything, trial.keep),
        curves=curves,
        agreement=kinds,
        calibrated=len(material.seen),
        held_out=len(material.held_out),
        scores=None if isinstance(gate.metric, str) or trial.score is None else (whole, trial.score),
        floor=floor,
        evaluations=judge.evaluations,
    )


def _steps(
    material: Material,
    choices: Choices,
    goal: Goal | None,
    curves: Mapping[str, Curve],
    importance: np.ndarray,
    parts: Sequence[Term],
) -> tuple[Step, ...]:
    """The steps to the goal; ModelError with the best that there is where they do not lead there."""
    import numpy as np

    everything = np.ones(material.found.count, bool)
    whole = sum(part(everything) for part in parts)
    amount = 0.0 if goal is None else (1 - goal.amount) * whole if goal.kind == "sparsity" else goal.amount
    steps = allocate(material.found, curves, importance, choices.multiple, parts, amount, choices.least)
    left = steps[-1].left if steps else whole
    if goal is not None and left > amount * (1 + 1e-9):
        best = 1 - left / whole if goal.kind == "sparsity" else left
        what = {
            "sparsity": f"of the {material.structure.counted} at most {{}} can go",
            "size": "the weights are at least {}",
            "latency": "the predicted time is at least {}",
        }[goal.kind].format(text(goal.kind, best))
        raise ModelError(
            f"`--{goal.kind} {text(goal.kind, goal.amount)}` cannot be reached: {what}",
            f"ask for less; {_ANY_COUNT}, and the report of a smaller goal shows which groups are left and why"
            if material.structure.shrinks
            else "ask for less; the report of a smaller goal shows which layers are left and why",
        )
    if not steps and goal is None:
        raise ModelError(f"no group has {material.structure.unit.split()[0]} to spare", _ANY_COUNT)
    return steps


def _seconds(
    material: Material, times: LayerTimes, before: np.ndarray, after: np.ndarray
) -> tuple[float, float] | None:
    if not times.hardware.peak_gflops:
        return None
    return (
        sum(cost.seconds(before, times) for cost in material.analysis.costs),
        sum(cost.seconds(after, times) for cost in material.analysis.costs),
    )


def _aim(material: Material, hardware: Hardware) -> Kind:
    """What is saved where only the accuracy is given: what the structure is good for."""
    if material.structure.slow:
        return "size"
    return "latency" if hardware.peak_gflops else "sparsity"


def _parameters(graph: onnx_ir.Model, all_of_them: bool) -> int:
    """Elements of all floating constants, or those that are not zero."""
    import numpy as np

    tensors = [value.const_value for value in graph.graph.initializers.values()]
    floats = [tensor for tensor in tensors if tensor is not None and tensor.dtype.is_floating_point()]
    return sum(each.size if all_of_them else int(np.count_nonzero(each.numpy())) for each in floats)
