"""One run of `nncc tune`: its parts, in the order in which `nncc.tuning.tune` calls them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any

from nncc.config import Tuning
from nncc.errors import NnccError, RunError, TargetError, UsageError
from nncc.ir import Kernels
from nncc.kernels.templates import load_templates
from nncc.pipeline import Job, run
from nncc.target import Target
from nncc.tuning.contest import Contest, Entry, margin, relatives
from nncc.tuning.cycle_lab import lab_of
from nncc.tuning.estimated_runner import EstimatedRunner
from nncc.tuning.finals import Finals
from nncc.tuning.graph import GraphSearch
from nncc.tuning.known import shipped_records
from nncc.tuning.lab import PASSED_OVER, Lab, Result
from nncc.tuning.listed_search import ListedSearch
from nncc.tuning.outcome import Outcome, State, Watcher
from nncc.tuning.record_files import Journal
from nncc.tuning.records import Key, RecordSet, Task, open_records, read_folder
from nncc.tuning.runners import Runner, open_runner
from nncc.tuning.search import CostModel, Search, frozen
from nncc.tuning.tasks import KernelTask, kernel_tasks
from nncc.tuning.whole import Built, Whole, by_task
from nncc.tuning.writer import Writer

if TYPE_CHECKING:
    from nncc.execute import OpenLibrary
    from nncc.roofline import Roofline

__all__ = ["Session"]

BATCH = 16
"""Candidates that are built and measured together."""
MOST_CHALLENGERS = 3
"""Of a batch, that are measured again."""
DEFAULT_SECONDS = 600.0


class Session:
    """A model, a target, a runner and a folder of records."""

    whole: Whole
    lab: Lab
    base: Built
    """The model without records."""

    def __init__(self, job: Job, tuning: Tuning, watch: Watcher) -> None:
        self.job, self.tuning, self.watch = job, tuning, watch
        self.key = Key.of(job.target)
        self.templates = load_templates(job.config.schedules)
        began = time.monotonic()
        budget = DEFAULT_SECONDS if tuning.seconds is None and tuning.trials is None else tuning.seconds
        self.state = State([], 0.0, 0.0, began, inf if budget is None else budget, tuning.trials or inf)
        self.runner = _open_runner(tuning, job.target)
        self.state.estimated = isinstance(self.runner, EstimatedRunner)
        try:
            stores = self.runner.stores_times and tuning.tasks != "list"
            journal = Journal(tuning.into, self.key) if stores else None
            self.writer = Writer(journal, self.key, self.runner.processor(), tuning.by)
            found, problems = read_folder(tuning.into, must_exist=False)
            others, more = open_records(job.config.records)
            shipped, _ = shipped_records() if job.config.shipped_records else (RecordSet(), [])
        except BaseException:
            self.runner.close()
            raise
        self.elsewhere = found | others | shipped
        """All that is known, also of other processors: to begin with."""
        self.records = found.on(self.runner.processor())
        for problem in [*problems, *more]:
            watch.warn(str(problem))
        self.margin = margin(self.runner)
        self.interrupted = threading.Event()
        """Set by an interrupt, which C++ between it and us may have swallowed."""
        self.rooflines: list[Roofline | NnccError] = []
        """Measured in turn with the model that was measured last."""
        self.graph: dict[str, Mapping[str, Any]] = {}
        """Decisions that change the graph, by task."""
        self.graph_tasks: dict[str, Task] = {}

    def close(self) -> None:
        """End all processes, remove what was built."""
        for name in ("lab", "whole", "runner"):  # what was begun so far
            if name in vars(self):
                getattr(self, name).close()

    # ---- baseline ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Compile without records, measure the model and each kernel's share of it."""
        self.watch.phase("baseline", "compiled without records")
        model = run(replace(self.job, config=replace(self.job.config, until="simplify")))
        self.whole = Whole(model, self.job, self.runner)
        start = time.monotonic()
        kernels, _ = self.whole.lowered({})
        self.base = self.whole.build({}, kernels)
        self.build_seconds = time.monotonic() - start
        (seconds,) = self.whole.measure([self.base], turns=3, between=self.measure_roofline)
        self.lab = lab_of(self.job.target)(
            self.job.target,
            self.templates,
            self.job.config.schedules,
            self.runner,
            min(self.base.weights_bytes, PASSED_OVER),
            self.tuning.seed,
        )
        self.seconds = by_task(self.base, seconds)
        """By task, in the model without records."""
        self.state.baseline = self.state.start = float(sum(self.seconds.values()))
        self._begin_contests(kernels, self.seconds)

    def _begin_contests(self, kernels: Kernels, seconds: Mapping[str, float]) -> None:
        searches = self._searches()
        whole = sum(seconds.values())
        contests = []
        for task in kernel_tasks(kernels, self.templates):
            if self.tuning.tasks != "list" and not (
                self.tuning.tasks in task.text or task.hash.startswith(self.tuning.tasks)
            ):
                continue
            contest = Contest(task, searches(task), seconds.get(task.hash, 0.0) / whole)
            self._resume(contest)
            contests.append(contest)
        if not contests and self.tuning.tasks not in ("", "list"):
            hint = "`--tasks list` shows them"
            raise UsageError(f"no task of the model has `{self.tuning.tasks}` in its text or hash", hint)
        self.state.contests = contests
        bounds = self.roofline(seconds)
        for contest in contests:
            contest.bound = bounds.get(contest.task.hash, contest.bound)
        self.watch.state(self.state)

    def _searches(self) -> Callable[[KernelTask], Search | ListedSearch]:
        """What makes a task's search: evolution, or a walk through the list where MetaSchedule's traces do not tell
        kernels for GPUs apart, and where a time is exact and soon there."""
        templates, target, seed = self.templates, self.job.target, self.tuning.seed
        if target.hardware.multiprocessors or self.runner.exact:
            return lambda task: ListedSearch(task, templates, target, seed)
        model = CostModel(seed, self.lab.builders.count)
        return lambda task: Search(task, templates, target, model, seed)

    def _resume(self, contest: Contest) -> None:
        """What the records know of a task: winners stand, all else that was tried needs no second trial."""
        task = contest.task.hash
        history = [r for r in self.records.history(task, self.key) if r.decisions and (r.reference or r.error)]
        contest.reference = next((r.reference for r in history if r.reference), 0.0)
        best = {frozen(r.decisions): r for r in reversed(self.records.ranking(task, self.key))}
        with self.job.target.tvm_target():
            contest.search.learn(
                (r.decisions, r.ratio * contest.reference if r.seconds else inf) for r in history[-_MOST_HISTORY:]
            )
            if contest.reference:
                contest.search.learn([(contest.default, contest.reference)])
        contest.trials = len(contest.search.seconds)
        contest.measured = {frozen(r.decisions): Entry(r.decisions, r.ratio) for r in history if r.seconds}
        for record in best.values():
            if 0 < record.ratio < self.margin:
                contest.enter(Entry(record.decisions, record.ratio))
        contest.starts = relatives(contest.task, self.key, self.elsewhere)

    # ---- graph ------------------------------------------------------------------------------------------------------

    def choose_graph(self) -> None:
        """Try what changes the graph, and go on with what is fastest."""
        if not self.tuning.graph or self.tuning.tasks or not self.may_go_on(4 * self.build_seconds):
            return
        self.graph, self.graph_tasks = GraphSearch(self).choose()
        if self.graph:
            kernels, _ = self.whole.lowered(self.graph)
            built = self.whole.build(self.graph, kernels)
            (measured,) = self.whole.measure([built], turns=2)
            seconds = by_task(built, measured)
            self.state.start = float(sum(seconds.values()))
            self._begin_contests(kernels, seconds)

    # ---- contests ---------------------------------------------------------------------------------------------------

    def search(self) -> None:
        """Batch after batch, where most is to be expected, until time or trials are spent or nothing is left to try."""
        self.watch.phase("search", f"{len(self.state.contests)} tasks")
        if self.state.contests and not self.may_go_on():
            self.watch.warn(
                f"no time for a search: the finals take {self.reserve:.0f} s, for a library of the model takes "
                f"{self.build_seconds:.0f} s to build; give more with `--time-budget`"
            )
        with self.job.target.tvm_target():
            while self.may_go_on() and self.state.trials < self.state.most_trials:
                contest = max(self.state.contests, key=lambda each: each.expected_gain, default=None)
                if contest is None or contest.expected_gain < _LEAST_GAIN:
                    break
                self._batch(contest)

    def may_go_on(self, seconds: float = 0.0) -> bool:
        """Whether there is time for so much more before the finals. Raises KeyboardInterrupt after an interrupt."""
        if self.interrupted.is_set():
            raise KeyboardInterrupt
        return self.state.left > self.reserve + seconds

    @property
    def reserve(self) -> float:
        """Seconds that the finals will take; half of the budget is there to search, however slow this machine is."""
        return min(self._finals(self.levels), self.state.budget / 2)

    @property
    def levels(self) -> int:
        """Libraries that the finals compare: fewer where they would take more than half of the budget."""
        fitting = (n for n in range(Finals.LEVELS, 0, -1) if self._finals(n) <= self.state.budget / 2)
        return next(fitting, 1)

    def _finals(self, levels: int) -> float:
        """Seconds that finals of so many libraries take, and the one that is confirmed."""
        return (levels + 1) * (1.3 * self.build_seconds + 3.5)

    def _batch(self, contest: Contest) -> None:
        self.state.current = contest.task.hash
        self.watch.state(self.state)
        start = time.monotonic()
        size = BATCH if contest.pace * BATCH < _LONGEST_BATCH else max(4, int(_LONGEST_BATCH / contest.pace))
        room = int(min(size, self.state.most_trials - self.state.trials))
        decisions = contest.proposals(room)
        if not decisions:
            contest.idle += 1
            return
        candidates = [contest.kernel(each) for each in decisions]
        seconds = contest.reference or contest.share * self.state.start / contest.task.calls
        results = self.lab.measure(contest.kernel(), candidates, seconds=seconds)
        self._note(contest, decisions, results)
        timed = [(r.timing.ratio, d) for d, r in zip(decisions, results, strict=True) if r.timing is not None]
        near = sorted(((ratio, d) for ratio, d in timed if ratio < min(self.margin, contest.best.ratio)), key=_first)
        most = 1 if self.runner.exact else MOST_CHALLENGERS
        won = self._challenge(contest, [d for _, d in near[:most]]) if near else False
        contest.pace = (time.monotonic() - start) / len(decisions)
        contest.idle = 0 if won else contest.idle + 1
        self.watch.state(self.state)

    def _note(self, contest: Contest, decisions: Sequence[Mapping[str, Any]], results: Sequence[Result]) -> None:
        """Trials become records, and the search learns."""
        self.writer.workload(contest.task, self.records)
        self.writer.trials(contest.task, decisions, results)
        if not contest.reference:
            contest.reference = next((r.timing.reference for r in results if r.timing is not None), 0.0)
            contest.search.learn([(contest.default, contest.reference or inf)])
        told = [
            (d, r.timing.ratio * contest.reference if r.timing is not None else inf)
            for d, r in zip(decisions, results, strict=True)
        ]
        contest.search.learn(told)
        for each, result in zip(decisions, results, strict=True):
            if result.timing is not None:
                contest.measured[frozen(each)] = Entry(each, result.timing.ratio)
        pruned = sum(r.pruned for r in results)
        contest.trials += len(results)
        self.state.trials += len(results)
        self.state.pruned += pruned
        self.state.failed += sum(r.timing is None for r in results) - pruned

    def _challenge(self, contest: Contest, challengers: Sequence[Mapping[str, Any]]) -> bool:
        """Measure the best of a batch again, with the best so far; the better one is checked, and becomes a winner."""
        holders = [contest.best.decisions] if contest.entries and not self.runner.exact else []
        field = [*holders, *challengers]
        results = self.lab.measure(contest.kernel(), [contest.kernel(each) for each in field], sure=True)
        won = False
        for decisions, result in zip(field, results, strict=True):
            timing = result.timing
            if timing is None or timing.ratio >= self.margin or timing.high >= 1.0:
                if decisions in holders:
                    contest.drop(decisions)
                    words = (
                        f"measured again, it takes {timing.ratio:.3f} of the default's time" if timing else result.error
                    )
                    self.writer.refuse(contest.task, decisions, words)
                continue
            error = self.lab.check([contest.kernel(), contest.kernel(decisions)])
            if error:
                self.writer.trials(contest.task, [decisions], [Result(None, error)])
                self.watch.warn(f"{contest.task.text}: {frozen(decisions)}: {error}")
                continue
            self.writer.winner(contest.task, decisions, timing)
            if contest.enter(Entry(decisions, timing.ratio)) and decisions not in holders:
                won = True
                for other in self.state.contests:
                    other.hear_of(contest, decisions)
        return won

    @cached_property
    def _opened(self) -> OpenLibrary:
        """The model without records, as something that can run here; what it says of itself is asked once."""
        from nncc.execute import open_library

        return open_library(self.base.library, self.job.target.hardware.cores)

    def measure_roofline(self) -> None:
        """Once more what this machine attains, where it is what the kernels run on."""
        from nncc.roofline import attempt

        if self.runner.name == "local" and not self.job.target.hardware.multiprocessors:
            self.rooflines.append(attempt(self._opened, _ROOFLINE_SECONDS))

    def roofline(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """By task, the part of what this machine attains in `seconds`, which all its calls take in an inference."""
        from nncc.roofline import Roofline, typical, working_set

        limits = typical(self.rooflines) if self.rooflines else None
        if not isinstance(limits, Roofline):
            return {}
        everything = working_set(self._opened.description)
        return {
            task.hash: task.calls
            * limits.least_seconds(task.operations, task.nbytes, task.weight_bytes, everything)
            / seconds[task.hash]
            for task in (contest.task for contest in self.state.contests)
            if seconds.get(task.hash)
        }

    # ---- finals -----------------------------------------------------------------------------------------------------

    def finish(self, interrupted: bool) -> Outcome:
        """The winners in the whole model; nothing of it if the person who waits does not want to."""
        finals = Finals(self)
        if not interrupted:
            finals.run()
        return finals.outcome(interrupted)


def _open_runner(tuning: Tuning, target: Target) -> Runner:
    """The runner that was asked for; where tasks of a GPU are only listed and there is none here, estimates do."""
    try:
        return open_runner(tuning.runner, target)
    except (RunError, TargetError):
        if tuning.tasks == "list" and tuning.runner == "local" and target.hardware.multiprocessors:
            return EstimatedRunner()
        raise


def _first(pair: tuple[float, Any]) -> float:
    return pair[0]


_ROOFLINE_SECONDS = 0.3
_LONGEST_BATCH = 10.0
"""Seconds: of what takes long to build, batches are smaller."""
_MOST_HISTORY = 400
"""Earlier trials of a task that a search learns from."""
_LEAST_GAIN = 2e-5
"""Of the model's time: what is expected of a batch that is not worth its while."""
