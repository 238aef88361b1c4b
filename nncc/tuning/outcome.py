"""What a tuning shows while it runs, and what it has found at its end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nncc.tuning.contest import Contest, Entry
    from nncc.tuning.measure import Timing

__all__ = ["Outcome", "State", "Watcher"]


class Watcher:
    """Looks on while a model is tuned; each method does nothing unless a subclass says otherwise."""

    def phase(self, name: str, what: str = "") -> None:
        """A part begins."""

    def warn(self, what: str) -> None:
        """Something is not as it should be, and goes on."""

    def state(self, state: State) -> None:
        """Something was measured."""


@dataclass
class State:
    """What there is to show of a running tuning."""

    contests: list[Contest]
    baseline: float
    """Seconds of one inference without records."""
    start: float
    """Of one with what was chosen for the graph, and default kernels: the shares of the contests are of this."""
    began: float
    budget: float
    """Seconds; infinite where only trials are limited."""
    most_trials: float
    trials: int = 0
    failed: int = 0
    pruned: int = 0
    """Trials that were not run, because what the compiler reports of them says that they cannot win."""
    estimated: bool = False
    """Whether no time was measured: all are the least ones by the target's facts."""
    current: str = ""
    """The hash of the task that is being measured."""

    @property
    def predicted(self) -> float:
        """Seconds of one inference with what is best so far."""
        return self.start * (1 - sum(c.share * (1 - c.best.ratio) for c in self.contests))

    @property
    def left(self) -> float:
        """Seconds of the budget."""
        return self.budget - (time.monotonic() - self.began)


@dataclass(frozen=True)
class Outcome:
    """What tuning has found."""

    state: State
    baseline: float
    """Median seconds of one inference without records, measured in turn with the tuned model."""
    final: Timing | None
    """Of the whole tuned model; None where nothing has won, or it was interrupted."""
    graph: dict[str, dict[str, Any]]
    """What was chosen for the graph, by the text of its task."""
    kept: dict[str, Entry]
    """The winners, by task."""
    rejected: dict[str, str]
    """Winners alone that are none in the model, by task: why."""
    warm: int
    """Winners that began as records of other tasks or targets."""
    disturbed: int
    """Rounds left out because the machine was busy."""
    interrupted: bool
    roofline: dict[str, float] = field(default_factory=dict)
    """By task, the part of what the machine attains that its kernel reaches in the whole model, tuned where it won."""
