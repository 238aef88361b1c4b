"""The best of each kernel in the whole model, where caches are as they will be: kept is what is fastest there.

Each of a few libraries has another of the best decisions of every kernel: so all kernels are compared at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nncc.errors import InternalError
from nncc.tuning.contest import Contest, Entry
from nncc.tuning.measure import Timing
from nncc.tuning.outcome import Outcome
from nncc.tuning.runners import CandidateError
from nncc.tuning.search import frozen
from nncc.tuning.whole import Built, by_task, versus

if TYPE_CHECKING:
    from nncc.tuning.session import Session

__all__ = ["Finals"]

_FASTER = 0.995
"""In the model a winner takes at most so much of the default's time, where times are not exact."""


class Finals:
    """Of one session."""

    LEVELS = 4
    """Libraries that are compared, at most: with the best decisions of each kernel, the second best, and so on."""

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
        """Build, compare, keep, confirm."""
        session, whole = self.session, self.session.whole
        finalists = {c.task.hash: c.finalists(session.levels) for c in session.state.contests}
        levels = max(map(len, finalists.values()), default=0)
        if not levels and not session.graph:
            return
        session.watch.phase("finals", "the best of each kernel, in the whole model")
        kernels, _ = whole.lowered(session.graph)
        reference = whole.build(session.graph, kernels) if session.graph else session.base
        built = []
        for level in range(levels):
            chosen = {task: each[level] for task, each in finalists.items() if level < len(each)}
            with self._tolerant(level):
                library = whole.build({**session.graph, **_decisions(chosen)}, kernels)
                whole.measure([library], seconds=0.1, turns=1)  # whether it runs at all
                built.append((chosen, library))
        measured = whole.measure([reference, *(library for _, library in built)])
        self.reference_seconds = by_task(reference, measured[0])
        self._choose([(chosen, by_task(lib, found)) for (chosen, lib), found in zip(built, measured[1:], strict=True)])
        same = (library for chosen, library in built if _decisions(chosen) == _decisions(self.kept))
        self._confirm(next(same, None) or whole.build({**session.graph, **_decisions(self.kept)}, kernels))

    @contextmanager
    def _tolerant(self, level: int) -> Iterator[None]:
        """One of the libraries may fail: what is in it was only timed alone."""
        try:
            yield
        except (CandidateError, InternalError) as error:
            self.session.watch.warn(f"library {level + 1} of the finals is left out: {error.message}")

    def _choose(self, levels: Sequence[tuple[Mapping[str, Entry], Mapping[str, float]]]) -> None:
        """Of each kernel what is fastest in the model, if it is right and faster than the default."""
        for contest in self.session.state.contests:
            task = contest.task.hash
            default = self.reference_seconds.get(task, 0.0)
            tried = sorted(
                ((seconds[task], chosen[task]) for chosen, seconds in levels if task in chosen and task in seconds),
                key=lambda pair: pair[0],
            )
            if not tried or not default:
                continue
            seconds, entry = tried[0]
            exact = self.session.runner.exact
            if seconds >= default if exact else seconds > _FASTER * default:
                self.rejected[task] = f"in the whole model it takes {seconds / default:.3f} of the default's time"
            elif contest.holds(entry) or not self._wrong(contest, entry):
                self.kept[task] = Entry(entry.decisions, seconds / default)

    def _wrong(self, contest: Contest, entry: Entry) -> str:
        """Winners were checked when they won, others are here."""
        session = self.session
        with session.job.target.tvm_target():
            error = session.lab.check([contest.kernel(), contest.kernel(entry.decisions)])
        if error:
            session.writer.refuse(contest.task, entry.decisions, error)
            session.watch.warn(f"{contest.task.text}: {frozen(entry.decisions)}: {error}")
        return error

    def _confirm(self, built: Built) -> None:
        """The whole tuned model beside the untuned one; what is no gain is taken back."""
        session = self.session
        session.rooflines.clear()
        base, tuned = session.whole.measure([session.base, built], between=session.measure_roofline)
        self.baseline = float(sum(by_task(session.base, base).values()))
        self.final = versus(base, tuned)
        self.tuned_seconds = by_task(built, tuned)
        if self.final.ratio >= 1.0:
            for task in self.kept:
                self.rejected[task] = f"the whole model takes {self.final.ratio:.3f} of its time without records"
            for choice in session.graph_tasks.values():
                session.writer.refuse(choice, session.graph[choice.hash], "the whole model is no faster")
            self.kept, self.tuned_seconds = {}, {}
            session.graph, session.graph_tasks = {}, {}
            self.final = None
        else:
            for choice in session.graph_tasks.values():
                session.writer.choice(choice, session.graph[choice.hash], self.final, accepted=True)
        self._write()

    def _write(self) -> None:
        """Records say what was kept, and that other winners are none in the model."""
        session = self.session
        for contest in session.state.contests:
            kept = self.kept.get(contest.task.hash)
            plain = frozen(contest.default)
            standing = [r.decisions for r in session.records.ranking(contest.task.hash, session.key)]
            for decisions in {frozen(d): d for d in [*standing, *(e.decisions for e in contest.entries)]}.values():
                if frozen(decisions) not in (plain, frozen(kept.decisions) if kept is not None else plain):
                    reason = self.rejected.get(contest.task.hash, "another is faster in the whole model")
                    session.writer.refuse(contest.task, decisions, reason)
            default, rounds = self.reference_seconds.get(contest.task.hash, 0.0), self.final.rounds if self.final else 1
            if kept is not None:
                timing = Timing(kept.ratio * default, default, kept.ratio, kept.ratio, kept.ratio, rounds)
                session.writer.winner(contest.task, kept.decisions, timing)
            elif contest.trials and default:  # nothing is faster: whoever tunes next knows
                session.writer.winner(contest.task, contest.default, Timing(default, default, 1.0, 1.0, 1.0, rounds))

    def outcome(self, interrupted: bool) -> Outcome:
        """What there is to say at the end."""
        session = self.session
        contests = session.state.contests
        kept = self.kept or ({c.task.hash: c.best for c in contests if c.entries} if interrupted else {})
        return Outcome(
            state=session.state,
            baseline=self.baseline,
            final=self.final,
            graph={task.text: dict(session.graph[task.hash]) for task in session.graph_tasks.values()},
            kept=kept,
            rejected=self.rejected,
            warm=sum(c.task.hash in kept and frozen(kept[c.task.hash].decisions) in c.started_from for c in contests),
            disturbed=session.lab.disturbed,
            interrupted=interrupted,
            roofline=session.roofline(self.tuned_seconds or self.reference_seconds or session.seconds),
        )


def _decisions(chosen: Mapping[str, Entry]) -> dict[str, Mapping[str, Any]]:
    return {task: entry.decisions for task, entry in chosen.items()}
