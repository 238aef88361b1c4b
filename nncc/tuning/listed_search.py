"""Search where a template's options come in the order of what it predicts, and a trace says nothing: kernels for GPUs.

Points of the space are told by ranks: which option is taken of each question, in the order of the questions. They are
proposed by the sum of their ranks, the template's own choice first, and in turn with those the neighbours of the best
that was measured, which differ from it in one answer. Half and half: the first trusts the prediction, the second the
times.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Iterator, Mapping
from math import inf, isfinite
from typing import Any

from nncc.compat import tvm
from nncc.errors import NnccError
from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import Template
from nncc.target import Target
from nncc.tuning.search import frozen
from nncc.tuning.tasks import KernelTask

__all__ = ["ListedSearch"]

Decisions = Mapping[str, Any]
Ranks = tuple[int, ...]

_MOST_POINTS = 4096
"""Of a space, that are looked at."""


class ListedSearch:
    """Proposes decisions for one task, and learns from their times; what `nncc.tuning.search.Search` does.

    To be used inside of its target's scope.
    """

    def __init__(self, task: KernelTask, templates: Mapping[str, Template], target: Target, seed: int) -> None:
        self.task = task
        self.seconds: dict[str, float] = {}
        """By `frozen` decisions, what was measured; infinite where it failed."""
        self.exhausted = False
        """Whether there is nothing that was not measured."""
        self._templates = templates
        self._hardware = target.hardware
        self._random = random.Random(f"{seed} {task.hash}")
        self._decisions: dict[str, dict[str, Any]] = {}
        """By `frozen` decisions, those that were proposed or measured."""
        self._ranked = self._by_rank()
        self._default = ""
        """The template's own choice, `frozen`; nobody needs it proposed."""

    def fitted(self, given: Decisions) -> dict[str, Any] | None:
        """These answers as far as the template takes them, its own for the rest; None where TVM refuses a step."""
        choices = self._run(Choices(given))
        return None if choices is None else dict(choices.taken)

    def propose(self, count: int) -> list[dict[str, Any]]:
        """Up to `count` decisions that have not been measured."""
        fresh: dict[str, dict[str, Any]] = {}
        sources = [self._ranked, self._near_the_best()]
        while sources and len(fresh) < count:
            for source in list(sources):
                point = next((p for p in source if frozen(p) not in {*self.seconds, *fresh, self._default}), None)
                if point is None:
                    sources.remove(source)
                elif len(fresh) < count:
                    fresh[frozen(point)] = point
        self._decisions |= fresh
        self.exhausted = not fresh
        return list(fresh.values())

    def learn(self, results: Iterable[tuple[Decisions, float]]) -> None:
        """Times in seconds, infinite for failures, of decisions from wherever."""
        for decisions, seconds in results:
            self.seconds.setdefault(frozen(decisions), seconds)
            self._decisions.setdefault(frozen(decisions), dict(decisions))

    # ---- inside ---------------------------------------------------------------------------------------------------

    def _run(self, choices: Choices) -> Choices | None:
        """The template's questions with these answers; None where TVM refuses a step."""
        try:
            schedule_kernel(self.task.function, self._templates, self._hardware, choices)
        except (NnccError, tvm.s_tir.ScheduleError, ValueError, RuntimeError, IndexError):
            return None
        return choices

    def _by_rank(self) -> Iterator[dict[str, Any]]:
        """All points, those of the smallest ranks first; each once.

        Each is reached from the one that has its last rank one lower, so that no point has two ways to it.
        """
        waiting: list[tuple[int, Ranks]] = [(0, ())]
        for _ in range(_MOST_POINTS):
            if not waiting:
                return
            _, ranks = heapq.heappop(waiting)
            choices = self._run(_Ranked(ranks))
            if choices is None:
                continue
            self._default = self._default or frozen(choices.taken)  # which comes first
            yield dict(choices.taken)
            sizes = [len(options) for options in choices.options.values()]
            for at in range(max(0, len(ranks) - 1), len(sizes)):
                rank = ranks[at] + 1 if at < len(ranks) else 1
                if rank < sizes[at]:
                    following = (*ranks[:at], *((0,) * (at - len(ranks))), rank)
                    heapq.heappush(waiting, (sum(following), following))

    def _near_the_best(self) -> Iterator[dict[str, Any]]:
        """The points that differ in one answer from the best that was measured, then from the second, and so on."""
        known = sorted((key for key, value in self.seconds.items() if isfinite(value)), key=self.seconds.__getitem__)
        for key in known:
            best = self._decisions[key]
            choices = self._run(Choices(best))
            if choices is None:
                continue
            others = [(n, o) for n, options in choices.options.items() for o in options if o != best.get(n, inf)]
            self._random.shuffle(others)
            for name, option in others:
                made = self._run(Choices({**best, name: option}))
                if made is not None:
                    yield dict(made.taken)


class _Ranked(Choices):
    """Answers by rank; the first option of questions beyond those."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks

    def __call__(self, name: str, options: Iterable[Any]) -> Any:
        possible, at = list(options), len(self.options)
        self.given[name] = possible[min(self._ranks[at], len(possible) - 1) if at < len(self._ranks) else 0]
        return super().__call__(name, possible)
