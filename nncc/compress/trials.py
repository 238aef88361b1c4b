"""Prunings made, refitted and scored, and the strongest of them that is good enough."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.compress.cut import chosen
from nncc.compress.goals import Goal, text
from nncc.compress.material import Choices, Gate, Material
from nncc.compress.refit import DAMPINGS
from nncc.compress.search import Step, counts_after
from nncc.errors import ModelError
from nncc.quant.closed_loop import save_graph
from nncc.quant.metric import scored
from nncc.quant.session import open_graph

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.parts import Cutter
    from nncc.quant.request import Start

__all__ = ["Judge", "Trial", "strongest"]


@dataclass(frozen=True)
class Trial:
    """One pruning."""

    graph: onnx_ir.Model
    keep: np.ndarray
    refitted: bool
    score: float | None = None


class Judge:
    """Prunings made and scored, each once."""

    def __init__(self, material: Material, choices: Choices, cutter: Cutter, gate: Gate, start: Start) -> None:
        self._material, self._choices, self._cutter, self.gate = material, choices, cutter, gate
        self._start = start
        self._trials: dict[int, Trial] = {}
        self.evaluations = 0

    @property
    def left(self) -> int:
        """How often the metric may still be asked."""
        return self.gate.most - self.evaluations

    def trial(self, steps: Sequence[Step], scored_: bool) -> Trial:
        """The graph after these steps, refitted if that lowers its error; with its score if that is wanted."""
        found = self._trials.get(len(steps))
        if found is None or (scored_ and found.score is None):
            found = self._make(steps) if found is None else found
            score = self._score(found.graph) if scored_ else None
            found = replace(found, score=score)
            self._trials[len(steps)] = found
        return found

    def _make(self, steps: Sequence[Step]) -> Trial:
        found, cutter = self._material.found, self._cutter
        keep = chosen(found.prunable(), counts_after(steps), cutter.importance, found.count)
        best = cutter.plain(keep)
        if not self._choices.refit or not steps:
            return Trial(best, keep, False)
        noise, refitted = self._material.noise(best), False
        for damping in DAMPINGS:
            self._start("refit", f"after {len(steps)} steps, damped by {damping:g}")
            graph = cutter.refitted(keep, damping)
            if (now := self._material.noise(graph)) < noise:
                best, noise, refitted = graph, now, True
        return Trial(best, keep, refitted)

    def _score(self, graph: onnx_ir.Model) -> float:
        self.evaluations += 1
        metric = self.gate.metric
        if isinstance(metric, str):
            return self._material.agreement(open_graph(graph))
        self._start("metric", "of the pruned model")
        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            path = Path(folder) / "candidate.onnx"
            save_graph(graph, path)
            return scored(metric, path)


def strongest(judge: Judge, steps: Sequence[Step], goal: Goal | None, floor: float | None, material: Material) -> Trial:
    """All steps if there is no floor, or they hold it; else, without a goal, as many as hold it, by bisection."""
    wanted = floor is not None or not isinstance(judge.gate.metric, str)
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
    asked = f"at least {floor:.6g} is asked for"
    if best is None:
        raise ModelError(
            f"nothing can be pruned within `--max-drop`: after {fails} of {len(steps)} steps the score is "
            f"{judge.trial(steps[:fails], True).score:.6g}, {asked}",
            "allow more with `--max-drop`, give more calibration samples, or judge by a metric of your own: `--metric`",
        )
    assert goal is not None
    raise ModelError(
        f"at `--{goal.kind} {text(goal.kind, goal.amount)}` the score is {last.score:.6g}, {asked}; the strongest "
        f"pruning that holds removes {material.gone(best.keep) * 100:.1f}% of the {material.structure.counted}, with a "
        f"score of {best.score:.6g}",
        "ask for less, or allow more with `--max-drop`",
    )
