"""A search through a list, the first first: where the options are sorted by a prediction, and trying one is cheap.

Plans of an accelerator's layers are sorted by what they are predicted to cost, and a program takes the simulator less
than evolution takes to propose it: so all of the best are tried, and nothing has to be learnt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nncc.tuning.search import frozen
from nncc.tuning.tasks import KernelTask

__all__ = ["ListSearch"]


class ListSearch:
    """Proposes the options of a task's only decision, in their order."""

    def __init__(self, task: KernelTask) -> None:
        self.task = task
        ((name, options),) = task.options.items()
        self._decisions = {frozen(each): each for each in ({name: option} for option in options)}
        self.seconds: dict[str, float] = {}
        """By `frozen` decisions, what was measured; infinite where it failed."""

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing that was not measured."""
        return self._decisions.keys() <= self.seconds.keys()

    def fitted(self, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """These decisions, None where they are no option."""
        return self._decisions.get(frozen(given))

    def propose(self, count: int) -> list[dict[str, Any]]:
        """Up to `count` decisions that have not been measured."""
        return [each for key, each in self._decisions.items() if key not in self.seconds][:count]

    def learn(self, results: Iterable[tuple[Mapping[str, Any], float]]) -> None:
        """Times in seconds, infinite for failures."""
        for decisions, seconds in results:
            self.seconds.setdefault(frozen(decisions), seconds)
