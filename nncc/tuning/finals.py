"""The winners in the whole model, where caches are as they will be: each kernel keeps what is fastest there, if anything.

Each of a few libraries has another of the best decisions of every kernel: so all kernels are compared at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nncc.tuning.contest import Entry
from nncc.tuning.measure import Timing
from nncc.tuning.outcome import Outcome
from nncc.tuning.search import frozen
from nncc.tuning.whole import Built, by_task, versus

if TYPE_CHECKING:
    from nncc.tuning.session import Session

__all__ = ["Finals"]

_FASTER = 0.995
"""In the model a winner takes at most so much of the default's time."""


class Finals:
    """Of one session."""

    LEVELS = 3
    """Libraries that are compared: with the best decisions of each kernel, the second best, the third."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.kept: dict[str, Entry] = {}
        self.rejected: dict[str, str] = {}
        self.final: Timing | None = None
        self.baseline = session.state.baseline
        self.reference_seconds: dict[str, float] = {}
        self.tuned_seconds: dict[str, float] = {}
        """By task, in the whole tuned model."""

    def run(self) -> None:
        """Build, compare, keep."""
        session, whole = self.session, self.session.whole
        contests = [contest for contest in session.state.contests if contest.entries]
        if not contests and not session.graph:
            return
        session.watch.phase("finals", "the winners in the whole model")
        kernels, _ = whole.lowered(session.graph)
        reference = whole.build(session.graph, kernels) if session.graph else session.base
        levels = []
        for level in range(min(self.LEVELS, max((len(c.entries) for c in contests), default=0))):
            chosen = {c.task.hash: c.entries[min(level, len(c.entries) - 1)] for c in contests}
            levels.append((chosen, whole.build({**session.graph, **_decisions(chosen)}, kernels)))
        measured = whole.measure([reference, *(built for _, built in levels)])
        self.reference_seconds = by_task(reference, measured[0])
        seconds = [by_task(built, found) for (_, built), found in zip(levels, measured[1:], strict=True)]
        for contest in contests:
            task = contest.task.hash
            at, best = min(
                ((level, times.get(task, 0.0)) for level, times in enumerate(seconds)), key=lambda pair: pair[1]
            )
            if best <= _FASTER * self.reference_seconds[task]:
                self.kept[task] = levels[at][0][task]
            else:
                ratio = best / self.reference_seconds[task]
                self.rejected[task] = f"in the whole model it takes {ratio:.3f} of the default's time"
        final = whole.build({**session.graph, **_decisions(self.kept)}, kernels)
        self._confirm(final)

    def _confirm(self, built: Built) -> None:
        """The whole tuned model beside the untuned one; what is no gain is taken back."""
        session = self.session
        base, tuned = session.whole.measure([session.base, built])
        self.baseline = float(sum(by_task(session.base, base).values()))
        self.final = versus(base, tuned)
        self.tuned_seconds = by_task(built, tuned)
        if self.final.ratio >= 1.0:
            for task in self.kept:
                self.rejected[task] = f"the whole model takes {self.final.ratio:.3f} of its time without records"
            self.kept, self.tuned_seconds = {}, {}
            session.graph, session.graph_words = {}, {}
            self.final = None
        self._write()

    def _write(self) -> None:
        """Records say what was kept: of a kernel's winners, those that are not are refused."""
        session = self.session
        for contest in session.state.contests:
            kept = self.kept.get(contest.task.hash)
            for entry in contest.entries:
                if kept is None or frozen(entry.decisions) != frozen(kept.decisions):
                    reason = self.rejected.get(contest.task.hash, "another is faster in the whole model")
                    session.writer.refuse(contest.task, entry.decisions, reason)

    def outcome(self, interrupted: bool) -> Outcome:
        """What there is to say at the end."""
        session = self.session
        contests = session.state.contests
        return Outcome(
            state=session.state,
            baseline=self.baseline,
            final=self.final,
            graph=dict(session.graph_words),
            kept=self.kept or ({c.task.hash: c.best for c in contests if c.entries} if interrupted else {}),
            rejected=self.rejected,
            warm=sum(frozen(c.best.decisions) in c.started_from for c in contests if c.entries),
            disturbed=session.lab.disturbed,
            interrupted=interrupted,
            roofline=session.roofline(self.tuned_seconds or self.reference_seconds or session.seconds),
        )


def _decisions(chosen: Mapping[str, Entry]) -> dict[str, Mapping[str, Any]]:
    return {task: entry.decisions for task, entry in chosen.items()}
