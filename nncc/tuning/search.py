"""MetaSchedule's evolutionary search over what one kernel's template may choose.

A point of the space is a template's run with other answers (`nncc.kernels.choices`); its trace is what MetaSchedule
mutates, replays and predicts. A template decides in Python, which a trace does not have: the mutator therefore runs the
template again, with one answer changed, and gives back the new trace; the answers are in the trace as an annotation.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import Any

import numpy as np

from nncc.compat import IRModule, metaschedule, trace_mutator, tvm
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import apply_template
from nncc.kernels.templates import Template
from nncc.target import Target
from nncc.tuning.tasks import KernelTask

__all__ = ["CostModel", "Search", "answers_of", "frozen"]

ANSWERS = "nncc.choices"
"""The annotation of a schedule's root block that holds the answers, as JSON."""
_POINTS = 64
"""Of the space, that evolution starts from."""
_EVOLUTION: dict[str, Any] = {
    "population_size": 48,
    "genetic_num_iters": 2,
    "init_min_unmeasured": 16,
    "init_measured_ratio": 0.4,
    "max_fail_count": 2,
    "eps_greedy": 0.1,
}
"""A point takes some 20 ms to make and predict, which is a tenth of what measuring it takes."""

Decisions = Mapping[str, Any]


class Search:
    """Proposes decisions for one task, and learns from their times.

    To be used inside of its target's scope.
    """

    def __init__(
        self, task: KernelTask, templates: Mapping[str, Template], target: Target, model: CostModel, seed: int
    ) -> None:
        self.task = task
        self.seconds: dict[str, float] = {}
        """By `frozen` decisions, what was measured; infinite where it failed."""
        self.exhausted = False
        """Whether there is nothing that was not measured."""
        self._templates = templates
        self._target = target
        self._model = model
        self._random = random.Random(f"{seed} {task.hash}")
        self._space: dict[str, Any] = {}
        """By `frozen` decisions, schedules that evolution starts from."""
        self._proposed: dict[str, Any] = {}
        """MetaSchedule's candidates that wait for their times."""
        self._early: list[tuple[Any, float]] = []
        """Measured before evolution began."""
        self._context: Any = None

    def schedule(self, given: Decisions) -> tuple[Any, dict[str, Any]]:
        """The schedule with these answers, as far as the template takes them, and the answers that it has."""
        return self._apply(Choices(given))

    def fitted(self, given: Decisions) -> dict[str, Any] | None:
        """These answers as far as the template takes them, its own for the rest; None where TVM refuses a step."""
        made = self._try(Choices(given))
        return None if made is None else made[1]

    def propose(self, count: int) -> list[dict[str, Any]]:
        """Up to `count` decisions that have not been measured."""
        if self._context is None and not self._start(count):
            self.exhausted = True
            return []
        fresh: dict[str, dict[str, Any]] = {}
        for _ in range(3):
            again = []
            with _numpy_seed(self._random.randrange(1 << 32)):
                candidates = self._context.generate_measure_candidates()
            for candidate in candidates or []:
                decisions = answers_of(candidate.sch.trace)
                key = frozen(decisions)
                if key in self.seconds:
                    again.append((candidate, self.seconds[key]))
                else:
                    fresh[key] = decisions
                    self._proposed[key] = candidate
            self._tell(again)
            if fresh or not again:
                break
        if len(fresh) < count:
            fresh |= self._unseen(count - len(fresh), fresh)
        self.exhausted = not fresh
        return list(fresh.values())

    def learn(self, results: Iterable[tuple[Decisions, float]]) -> None:
        """Times in seconds, infinite for failures, of decisions from wherever."""
        told = []
        for decisions, seconds in results:
            key = frozen(decisions)
            if key in self.seconds:
                continue
            self.seconds[key] = seconds
            candidate = self._proposed.pop(key, None) or self._candidate(decisions)
            if candidate is not None:
                told.append((candidate, seconds))
        if self._context is None:
            self._early += told
        else:
            self._tell(told)

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _apply(self, choices: Choices) -> tuple[Any, dict[str, Any]]:
        sch, _ = apply_template(self.task.function, self._templates, self._target.hardware, choices)
        sch.annotate(sch.get_sblock("root"), ANSWERS, frozen(choices.taken))
        return sch, choices.taken

    def _try(self, choices: Choices) -> tuple[Any, dict[str, Any]] | None:
        """As `_apply`, None where TVM refuses a step."""
        try:
            return self._apply(choices)
        except (tvm.s_tir.ScheduleError, ValueError, RuntimeError, IndexError):
            return None

    def _candidate(self, decisions: Decisions) -> Any:
        made = self._try(Choices(decisions))
        if made is None or frozen(made[1]) != frozen(decisions):
            return None
        ms = metaschedule()
        return ms.MeasureCandidate(made[0], ms.arg_info.ArgInfo.from_prim_func(made[0].mod["main"]))

    def _explore(self, tries: int) -> None:
        for _ in range(tries):
            made = self._try(_RandomChoices(self._random))
            if made is not None:
                self._space.setdefault(frozen(made[1]), made[0])

    def _unseen(self, count: int, beside: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Points of the space that evolution did not come to, which may be a small one."""
        self._explore(count)
        fresh = [key for key in self._space if key not in self.seconds and key not in beside]
        return {key: json.loads(key) for key in fresh[:count]}

    def _start(self, count: int) -> bool:
        """Begin with some points; False where TVM refuses all of them."""
        self._explore(_POINTS)
        if not self._space:
            return False
        ms, target = metaschedule(), self._target.tvm_target()
        module = IRModule({"main": self.task.function.with_attr("global_symbol", "main")})
        points = list(self._space.values())
        generator = ms.space_generator.ScheduleFn(
            lambda sch: points, sch_rules=[], postprocs=[], mutator_probs={trace_mutator(self._mutated): 1.0}
        )
        self._context = ms.TuneContext(
            mod=module,
            target=target,
            space_generator=generator,
            search_strategy=ms.search_strategy.EvolutionarySearch(**_EVOLUTION),
            task_name=self.task.hash,
            num_threads=1,
            rand_state=self._random.randrange(1, 1 << 30),
        )
        self._database = ms.database.MemoryDatabase()
        self._workload = self._database.commit_workload(module)
        model = self._model.model
        self._context.pre_tuning(1 << 30, count, design_spaces=points, database=self._database, cost_model=model)
        self._remember(self._early)
        return True

    def _mutated(self, trace: Any) -> Any:
        """The trace of the template's run with one answer changed, or None."""
        decisions = answers_of(trace)
        if not decisions:
            return None
        made = self._try(_OtherChoice(decisions, self._random.choice(sorted(decisions)), self._random))
        return None if made is None else made[0].trace

    def _tell(self, measured: Sequence[tuple[Any, float]]) -> None:
        if measured:
            self._remember(measured)
            candidates = [candidate for candidate, _ in measured]
            self._context.notify_runner_results(candidates, [_result(seconds) for _, seconds in measured])

    def _remember(self, measured: Sequence[tuple[Any, float]]) -> None:
        if not measured:
            return
        ms, target = metaschedule(), self._target.tvm_target()
        for candidate, seconds in measured:
            if isfinite(seconds):
                record = (candidate.sch.trace, self._workload, [seconds], target, candidate.args_info)
                self._database.commit_tuning_record(ms.database.TuningRecord(*record))
        candidates = [candidate for candidate, _ in measured]
        self._model.model.update(self._context, candidates, [_result(seconds) for _, seconds in measured])


@contextmanager
def _numpy_seed(seed: int) -> Iterator[None]:
    """MetaSchedule's model guesses by numpy's global generator until it knows enough."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


class CostModel:
    """MetaSchedule's model of times, trees of XGBoost on features of the loops; all tasks share it."""

    def __init__(self, seed: int, threads: int) -> None:
        ms = metaschedule()
        config = ms.cost_model.xgb_model.XGBConfig(seed=seed, nthread=threads)
        self.model = ms.cost_model.XGBModel(config=config, num_warmup_samples=16)


class _RandomChoices(Choices):
    def __init__(self, random: random.Random) -> None:
        super().__init__()
        self._random = random

    def __call__(self, name: str, options: Iterable[Any]) -> Any:
        possible = list(options)
        self.given[name] = self._random.choice(possible)
        return super().__call__(name, possible)


class _OtherChoice(Choices):
    """One answer is another than the given one."""

    def __init__(self, given: Decisions, name: str, random: random.Random) -> None:
        super().__init__(given)
        self._name = name
        self._random = random

    def __call__(self, name: str, options: Iterable[Any]) -> Any:
        possible = list(options)
        if name == self._name and len(possible) > 1:
            others = [each for each in possible if each != self.given.get(name)]
            self.given[name] = self._random.choice(others)
        return super().__call__(name, possible)


def answers_of(trace: Any) -> dict[str, Any]:
    """The decisions that a trace carries; empty where it carries none."""
    for instruction in reversed(list(trace.insts)):
        if str(instruction.kind.name) == "Annotate" and str(instruction.attrs[0]) == ANSWERS:
            return dict(json.loads(str(instruction.inputs[1])))
    return {}


def frozen(decisions: Decisions) -> str:
    """Decisions as a key: JSON, its keys in order."""
    return json.dumps(dict(decisions), sort_keys=True, separators=(",", ":"))


def _result(seconds: float) -> Any:
    result = metaschedule().runner.RunnerResult
    return result([seconds], None) if isfinite(seconds) else result(None, "failed")
