"""`nncc prune` on one screen: a graph and samples become a smaller graph, within the accuracy that was asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.compress.cost import Cost, Part, costs, nbytes, total
from nncc.compress.cut import chosen, cut
from nncc.compress.goals import Goal, terms, text
from nncc.compress.grams import Grams, refit_readers
from nncc.compress.groups import Dependencies, Group, dependencies
from nncc.compress.importance import IMPORTANCE, Evidence
from nncc.compress.refit import DAMPINGS, refit
from nncc.compress.search import Curve, Step, allocate, counts_after, sensitivity
from nncc.errors import ModelError
from nncc.quant.closed_loop import save_graph
from nncc.quant.metric import Agreement, MaxDrop, Metric, Noise, agreement_of, scored
from nncc.quant.prepare import prepare
from nncc.quant.quantize import shapes_of
from nncc.quant.samples import hold_out
from nncc.quant.session import open_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.target import Hardware, Target

__all__ = ["Choices", "Gate", "Material", "Outcome", "Trial", "gather", "prune_graph"]

Start = Callable[[str, str], None]
Tell = Callable[[int, int, str], None]

_MOST_JUDGED = 32
"""Held-out samples that a group's curve is measured on."""


@dataclass(frozen=True)
class Choices:
    """How channels are chosen."""

    importance: str = "reconstruction"
    """What ranks the channels of a group; see `nncc.compress.importance.IMPORTANCE`."""
    refit: bool = True
    """Whether weights are fitted to what is left, where that lowers the error of the outputs."""
    multiple: int = 4
    """Counts of channels stay multiples of it."""
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
    found: Dependencies
    costs: tuple[Cost, ...]
    nbytes: tuple[Part, ...]
    seen: Sequence[Mapping[str, np.ndarray]]
    held_out: Sequence[Mapping[str, np.ndarray]]
    agreement: Agreement
    noise: Noise


@dataclass(frozen=True)
class Trial:
    """One pruning."""

    graph: onnx_ir.Model
    keep: np.ndarray
    refitted: bool
    score: float | None = None


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


def gather(
    graph: onnx_ir.Model,
    samples: Sequence[Mapping[str, np.ndarray]],
    seed: int,
    kind: str = "",
    start: Start = lambda name, what: None,
) -> Material:
    """Prepare the graph, find its groups, keep samples back. Raises ModelError where nothing can be pruned."""
    start("prepare", "")
    prepared = prepare(graph, least_opset=0)
    seen, held = hold_out(samples, seed)
    found = dependencies(prepared, shapes_of(prepared, samples[0]))
    if not found.prunable():
        reasons = "; ".join(f"`{group.name}`: {group.reason}" for group in found.groups[:5])
        raise ModelError(
            f"the model has no channels that can be removed{': ' + reasons if reasons else ''}",
            "`nncc show` shows the model; a layer between two others is needed, all of which nncc understands",
        )
    agreement = Agreement(kind or agreement_of(graph), open_graph(graph), held)
    noise = Noise(prepared, held[:_MOST_JUDGED])
    return Material(
        graph, prepared, found, costs(prepared, found), nbytes(prepared, found), seen, held, agreement, noise
    )


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
    found, hardware = material.found, target.hardware
    start("statistics", f"{len(material.seen)} samples")
    grams = Grams(material.prepared, found, material.seen, choices.seed, tell)
    start("rank", f"{found.count} channels by {choices.importance}")
    importance = IMPORTANCE[choices.importance](Evidence(material.prepared, found, material.seen, grams))
    kind = goal.kind if goal is not None else "latency" if hardware.peak_gflops else "sparsity"
    parts = terms(kind, material.costs, material.nbytes, hardware, target.name)
    start("sensitivity", f"{len(found.prunable())} groups")

    def loss(group: Group, keep: np.ndarray) -> float:
        smaller = cut(material.prepared, found, keep)
        if choices.refit:
            refit_readers(smaller, grams.of(group), keep)
        return material.noise(smaller)

    curves = sensitivity(found, importance, choices.multiple, loss, tell)
    steps = _steps(material, choices, goal, curves, importance, parts)
    judge = _Judge(material, choices, importance, gate, start, tell)
    whole = 1.0
    if not isinstance(gate.metric, str) and file is not None:
        start("metric", "of the original")
        whole = scored(gate.metric, file)
    floor = gate.max_drop.floor(whole) if gate.max_drop is not None else None
    trial = _strongest(judge, steps, goal, floor, material)
    session = open_graph(trial.graph)
    agreement = material.agreement
    kinds = {kind: agreement(session, kind) for kind in dict.fromkeys((agreement.kind, "sqnr"))}
    all_units = chosen((), {}, importance, found.count)
    return Outcome(
        graph=trial.graph,
        found=found,
        keep=trial.keep,
        refitted=trial.refitted,
        macs=(_macs(material, all_units), _macs(material, trial.keep)),
        parameters=(_parameters(material.prepared), _parameters(trial.graph)),
        seconds=_seconds(material, hardware, all_units, trial.keep),
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
    parts: Sequence[Callable[[np.ndarray], float]],
) -> tuple[Step, ...]:
    """The steps to the goal; ModelError with the best that there is where they do not lead there."""
    keep = chosen((), {}, importance, material.found.count)
    whole = sum(part(keep) for part in parts)
    amount = 0.0 if goal is None else (1 - goal.amount) * whole if goal.kind == "sparsity" else goal.amount
    steps = allocate(material.found, curves, importance, choices.multiple, parts, amount)
    left = steps[-1].left if steps else whole
    if goal is not None and left > amount * (1 + 1e-9):
        best = 1 - left / whole if goal.kind == "sparsity" else left
        what = {
            "sparsity": "of the multiplications at most {} can go",
            "size": "the weights are at least {}",
            "latency": "the predicted time is at least {}",
        }[goal.kind].format(text(goal.kind, best))
        raise ModelError(
            f"`--{goal.kind} {text(goal.kind, goal.amount)}` cannot be reached: {what}",
            "ask for less; `--multiple 1` allows any count of channels, and the report of a smaller goal shows which "
            "groups are left and why",
        )
    if not steps and goal is None:
        raise ModelError("no group has channels to spare", "`--multiple 1` allows any count of channels")
    return steps


class _Judge:
    """Prunings made and scored, each once."""

    def __init__(
        self, material: Material, choices: Choices, importance: np.ndarray, gate: Gate, start: Start, tell: Tell
    ) -> None:
        self._material, self._choices, self._importance, self._gate = material, choices, importance, gate
        self._start, self._tell = start, tell
        self._trials: dict[int, Trial] = {}
        self.evaluations = 0

    @property
    def left(self) -> int:
        """How often the metric may still be asked."""
        return self._gate.most - self.evaluations

    def trial(self, steps: Sequence[Step], scored_: bool) -> Trial:
        """The graph after these steps, refitted if that lowers its error; with its score if that is wanted."""
        found = self._trials.get(len(steps))
        if found is None or (scored_ and found.score is None):
            found = self._make(steps) if found is None else found
            score = self._score(found.graph) if scored_ else None
            found = Trial(found.graph, found.keep, found.refitted, score)
            self._trials[len(steps)] = found
        return found

    def _make(self, steps: Sequence[Step]) -> Trial:
        material, choices = self._material, self._choices
        prepared, found = material.prepared, material.found
        keep = chosen(found.prunable(), counts_after(steps), self._importance, found.count)
        graph = cut(prepared, found, keep)
        if not choices.refit or not steps:
            return Trial(graph, keep, False)
        best, noise, refitted = graph, material.noise(graph), False
        for damping in DAMPINGS:
            self._start("refit", f"after {len(steps)} steps, damped by {damping:g}")
            fitted = refit(prepared, graph, found, keep, material.seen, damping, choices.seed, self._tell)
            if (now := material.noise(fitted)) < noise:
                best, noise, refitted = fitted, now, True
        return Trial(best, keep, refitted)

    def _score(self, graph: onnx_ir.Model) -> float:
        self.evaluations += 1
        metric = self._gate.metric
        if isinstance(metric, str):
            return self._material.agreement(open_graph(graph))
        self._start("metric", "of the pruned model")
        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            path = Path(folder) / "candidate.onnx"
            save_graph(graph, path)
            return scored(metric, path)


def _strongest(
    judge: _Judge, steps: Sequence[Step], goal: Goal | None, floor: float | None, material: Material
) -> Trial:
    """All steps if there is no floor, or they hold it; else, without a goal, as many as hold it, by bisection."""
    wanted = floor is not None or not isinstance(judge._gate.metric, str)
    last = judge.trial(steps, wanted)
    if floor is None or last.score is None or last.score >= floor:
        return last
    holds, fails, best = 0, len(steps), None
    while fails - holds > 1 and judge.left > 0:
        middle = (holds + fails) // 2
        trial = judge.trial(steps[:middle], True)
        if trial.score is not None and trial.score >= floor:
            holds, best = middle, trial
        else:
            fails = middle
    if goal is None and best is not None:
        return best
    scores = f"the score is {last.score:.6g}, at least {floor:.6g} is asked for"
    if best is None:
        first = judge.trial(steps[:fails], True).score
        raise ModelError(
            f"nothing can be pruned within `--max-drop`: after the first step {scores.replace(f'{last.score:.6g}', f'{first:.6g}')}",
            "allow more with `--max-drop`, give more calibration samples, or judge by a metric of your own: `--metric`",
        )
    assert goal is not None
    part = 1 - _macs(material, best.keep) / _macs(material, best.keep | True)
    raise ModelError(
        f"at `--{goal.kind} {text(goal.kind, goal.amount)}` {scores}; the strongest pruning that holds removes "
        f"{part * 100:.1f}% of the multiplications, with a score of {best.score:.6g}",
        "ask for less, or allow more with `--max-drop`",
    )


def _macs(material: Material, keep: np.ndarray) -> float:
    return total(tuple(cost.macs for cost in material.costs), keep)


def _seconds(
    material: Material, hardware: Hardware, before: np.ndarray, after: np.ndarray
) -> tuple[float, float] | None:
    if not hardware.peak_gflops:
        return None
    return (
        sum(cost.seconds(before, hardware) for cost in material.costs),
        sum(cost.seconds(after, hardware) for cost in material.costs),
    )


def _parameters(graph: onnx_ir.Model) -> int:
    """Elements of all floating constants."""
    return sum(
        v.const_value.size
        for v in graph.graph.initializers.values()
        if v.const_value is not None and v.const_value.dtype.is_floating_point()
    )
