"""Choices that change the graph: the blocks of channels, by the time of the whole model; the algorithm of a
convolution, by that of the kernels that come of it, transforms included. What is chosen is only accepted in the finals.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from nncc.ir import Kernels
from nncc.kernels.choices import GraphChoices
from nncc.tuning.candidates import Kernel
from nncc.tuning.measure import Timing
from nncc.tuning.record import Task
from nncc.tuning.tasks import KernelTask, kernel_tasks
from nncc.tuning.whole import versus

if TYPE_CHECKING:
    from nncc.tuning.session import Session

__all__ = ["GraphSearch"]

_BETTER = 0.97
"""What is no faster than this is not worth another library."""

Chosen = dict[str, Mapping[str, Any]]


class GraphSearch:
    """Of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def choose(self) -> tuple[Chosen, dict[str, Task]]:
        """The decisions that are not the default's, by the hash of their task, and those tasks."""
        chosen: Chosen = {}
        tasks: dict[str, Task] = {}
        for part in (self._layout, self._algorithms):
            kernels, graph = self.session.whole.lowered(chosen)
            for task, decisions in part(kernels, graph, chosen).items():
                kind, text, _ = graph.asked[task]
                chosen[task], tasks[task] = decisions, Task(task, kind, _shortened(text))
        return chosen, tasks

    def _known(self, task: str) -> Mapping[str, Any] | None:
        """What earlier runs have found, be it the default."""
        best = self.session.records.best(task, self.session.key)
        return None if best is None else best.decisions

    def _layout(self, kernels: Kernels, graph: GraphChoices, chosen: Chosen) -> Chosen:
        found: Chosen = {}
        for task, (kind, text, choices) in graph.asked.items():
            options = choices.options.get("lanes", [])
            if kind != "layout" or len(options) < 2:
                continue
            known = self._known(task)
            if known is None and self.session.may_go_on((len(options) + 1) * self.session.build_seconds):
                known = self._measured_layout(Task(task, kind, _shortened(text)), options)
            if known is not None and known.get("lanes") in options[1:]:
                found[task] = known
        return found

    def _measured_layout(self, task: Task, options: list[Any]) -> Mapping[str, Any]:
        session = self.session
        default = {"lanes": options[0]}
        session.watch.phase("graph", f"blocks of {', '.join(map(str, options[1:]))} channels instead of {options[0]}")
        built = [session.whole.build({task.hash: {"lanes": lanes}}) for lanes in options[1:]]
        base, *others = session.whole.measure([session.base, *built], turns=3)
        timings = [versus(base, other) for other in others]
        best, lanes = min(zip(timings, options[1:], strict=True), key=lambda pair: pair[0].ratio)
        decisions = {"lanes": lanes} if best.ratio <= _BETTER and best.high < 1 else default
        for timing, other in zip(timings, options[1:], strict=True):
            session.writer.choice(task, {"lanes": other}, timing, accepted=False)
        if decisions is default:
            session.writer.choice(task, default, versus(base, base), accepted=True)
        return decisions

    def _algorithms(self, kernels: Kernels, graph: GraphChoices, chosen: Chosen) -> Chosen:
        asked = {
            task: (text, choices.options["algorithm"])
            for task, (kind, text, choices) in graph.asked.items()
            if kind == "algorithm" and len(choices.options.get("algorithm", ())) > 1
        }
        known = {task: self._known(task) for task in asked}
        open_ = [task for task in asked if known[task] is None]
        if open_:
            self.session.watch.phase("graph", f"algorithms of {len(open_)} convolutions")
            ways = self._ways(kernels, {task: asked[task][1] for task in open_}, chosen)
            with self.session.job.target.tvm_target():
                for task in open_:
                    if not self.session.may_go_on(10.0) or not ways[task]:
                        continue
                    known[task] = self._measured_algorithm(Task(task, "algorithm", asked[task][0]), ways[task])
        found: Chosen = {}
        for task, (_, options) in asked.items():
            decisions = known[task]
            if decisions is not None and decisions.get("algorithm") in options[1:]:
                found[task] = decisions
        return found

    def _ways(
        self, kernels: Kernels, open_: Mapping[str, list[str]], chosen: Chosen
    ) -> dict[str, dict[str, list[KernelTask]]]:
        """By task and option, the kernels of the model that come of it."""
        found: dict[str, dict[str, list[KernelTask]]] = {task: {} for task in open_}
        for number in range(max(len(options) for options in open_.values())):
            taken = {task: options[number] for task, options in open_.items() if number < len(options)}
            fixed = {**chosen, **{task: {"algorithm": option} for task, option in taken.items()}}
            lowered = kernels if number == 0 else self.session.whole.lowered(fixed)[0]
            for kernel in kernel_tasks(lowered, self.session.templates):
                if kernel.graph_task in taken:
                    found[kernel.graph_task].setdefault(taken[kernel.graph_task], []).append(kernel)
        return found

    def _measured_algorithm(self, task: Task, ways: Mapping[str, list[KernelTask]]) -> Mapping[str, Any]:
        """The option with the least time of its kernels, each as often as the model calls it."""
        session = self.session
        default, first = next(iter(ways.items()))
        if len(ways) < 2:
            return {"algorithm": default}
        flat = [(option, kernel) for option, kernels in ways.items() for kernel in kernels]
        candidates = [Kernel(kernel.function, kernel.constants, _defaults(kernel)) for _, kernel in flat]
        results = session.lab.measure(candidates[0], candidates[1:], sure=True)
        ratios: dict[str, float] = {default: float(first[0].calls)}
        timings: dict[str, Timing] = {}
        reference = 0.0
        for (option, kernel), result in zip(flat[1:], results, strict=True):
            if result.timing is None:
                ratios[option] = inf
                continue
            reference = result.timing.reference
            timings[option] = result.timing
            ratios[option] = ratios.get(option, 0.0) + kernel.calls * result.timing.ratio
        whole = ratios[default]
        if not isfinite(whole) or not timings:
            return {"algorithm": default}
        best = min(ratios, key=lambda option: ratios[option])
        if ratios[best] > _BETTER * whole:
            best = default
        for option, ratio in ratios.items():
            if isfinite(ratio):
                rounds = timings[option].rounds if option in timings else 1
                value = ratio / whole
                timing = Timing(value * whole * reference, whole * reference, value, value, value, rounds)
                session.writer.choice(task, {"algorithm": option}, timing, accepted=option == best == default)
        return {"algorithm": best}


def _defaults(kernel: KernelTask) -> dict[str, Any]:
    return {name: options[0] for name, options in kernel.options.items()}


def _shortened(text: str) -> str:
    return text if len(text) <= 1000 else text[:997] + "..."
