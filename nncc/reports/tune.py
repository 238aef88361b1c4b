"""`nncc tune` for people: a live table on a terminal, plain lines elsewhere, the outcome at the end; and for JSON."""

from __future__ import annotations

import time
from math import isfinite
from typing import TYPE_CHECKING, Any, TextIO

from nncc.reports import clipped, duration, plural, table
from nncc.reports.console import Progress
from nncc.tuning.outcome import Outcome, State, Watcher

if TYPE_CHECKING:
    from nncc.tuning.contest import Contest

__all__ = ["TuneProgress", "outcome_facts", "outcome_text", "task_facts", "task_table", "whole_roofline"]

_SHOWN = 14
"""Tasks in the live table."""


class TuneProgress(Progress, Watcher):
    """Shows a running tuning on `stream`: a table that is drawn again where it is a terminal, else a line a batch."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._stream = stream
        self._live: Any = None
        self._doing = ""
        self._said = 0
        if self._bar is not None:
            from rich.console import Console
            from rich.live import Live

            self._bar, console = None, Console(file=stream)
            self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> TuneProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, name: str, what: str = "") -> None:
        self.phase(name, what)

    def tell(self, done: int, total: int, what: str) -> None:
        """A stage of a compilation among many: not shown."""

    def phase(self, name: str, what: str = "") -> None:
        self.stage = name
        self._doing = f"{name}: {what}" if what else name
        if self._live is None:
            self._line(self._doing)
        else:
            self._live.update(self._doing, refresh=True)

    def warn(self, what: str) -> None:
        if self._live is None:
            self._line(f"warning: {what}")
        else:
            self._live.console.print(f"warning: {what}", markup=False, highlight=False)

    def state(self, state: State) -> None:
        if self._live is not None:
            self._live.update(f"{self._doing}\n{_head(state)}\n\n{_rows(state, _SHOWN)}", refresh=True)
        elif state.trials > self._said:
            self._said = state.trials
            contest = next((c for c in state.contests if c.task.hash == state.current), None)
            gain = f"; {1 / contest.best.ratio:.2f}x: {contest.task.text}" if contest is not None else ""
            self._line(f"{_head(state)}{gain}")

    def _line(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=self._stream, flush=True)


def _head(state: State) -> str:
    words = [_counts(state)]
    if state.baseline:
        gain = state.baseline / state.predicted
        words.append(f"predicted {duration(state.predicted)}, {gain:.3f}x of {duration(state.baseline)}")
    if isfinite(state.left):
        words.append(f"{duration(max(0.0, state.left))} left")
    elif isfinite(state.most_trials):
        words.append(f"{int(state.most_trials - state.trials)} trials left")
    return ", ".join(words)


def _counts(state: State) -> str:
    """``24 trials, 0 failed``; and of a GPU, how many the compiler's report spared."""
    pruned = f", {state.pruned} not measured, for they cannot win" if state.pruned else ""
    return f"{plural(state.trials, 'trial')}, {state.failed} failed{pruned}"


def _rows(state: State, most: int) -> str:
    order = sorted(state.contests, key=lambda c: -c.share)
    rows = [["", "share", "trials", "best", "task"]]
    for contest in order[:most]:
        here = ">" if contest.task.hash == state.current else ""
        rows.append([here, *_cells(contest), clipped(contest.task.text, 60)])
    more = f"and {plural(len(order) - most, 'more task')}\n" if len(order) > most else ""
    return table(rows, "<>>><") + more


def _cells(contest: Contest) -> list[str]:
    best = f"{1 / contest.best.ratio:.2f}x" if contest.entries else "-"
    return [f"{contest.share * 100:.1f} %", str(contest.trials), best]


def task_facts(state: State) -> list[dict[str, Any]]:
    """For JSON: the tasks, the greatest share first."""
    return [
        {
            "task": c.task.hash,
            "text": c.task.text,
            "share": c.share,
            "seconds": c.share * state.baseline,
            "estimated": state.estimated,
            "calls": c.task.calls,
            "trials": c.trials,
            "options": {name: list(options) for name, options in c.task.options.items()},
            "best": {"decisions": dict(c.best.decisions), "ratio": c.best.ratio} if c.entries else None,
        }
        for c in sorted(state.contests, key=lambda c: -c.share)
    ]


def task_table(state: State) -> str:
    """The tasks of a model, the greatest share of its time first."""
    rows = [["share", "time", "calls", "trials", "best", "task", "kernel"]]
    for c in sorted(state.contests, key=lambda c: -c.share):
        share, trials, best = _cells(c)
        time_ = duration(c.share * state.baseline)
        rows.append([share, time_, str(c.task.calls), trials, best, c.task.hash, c.task.text])
    rest = max(0.0, 1 - sum(c.share for c in state.contests))
    text = table(rows, ">>>>><<")
    how = "; least times by the target's facts, for there is no such GPU here" if state.estimated else ""
    return f"{text}\n{duration(state.baseline)} in all; {rest * 100:.1f} % in kernels without a choice{how}\n"


def outcome_facts(found: Outcome, folder: str, stored: bool) -> dict[str, Any]:
    """For JSON."""
    final = found.final
    return {
        "seconds": {"default": found.baseline, "tuned": final.seconds if final else found.baseline},
        "ratio": {"median": final.ratio, "low": final.low, "high": final.high} if final else None,
        "trials": found.state.trials,
        "failed": found.state.failed,
        "pruned": found.state.pruned,
        "graph": found.graph,
        "roofline": whole_roofline(found),
        "winners": {
            task: {"decisions": dict(entry.decisions), "ratio": entry.ratio} for task, entry in found.kept.items()
        },
        "rejected": found.rejected,
        "warm_starts": found.warm,
        "disturbed_rounds": found.disturbed,
        "interrupted": found.interrupted,
        "records": folder if stored else None,
        "tasks": [facts | {"roofline": found.roofline.get(facts["task"])} for facts in task_facts(found.state)],
    }


def whole_roofline(found: Outcome) -> float | None:
    """The part of what the machine attains that the tuned kernels reach together; None where it was not measured."""
    known = [
        (c.share * c.best.ratio, found.roofline[c.task.hash])
        for c in found.state.contests
        if c.task.hash in found.roofline
    ]
    time_ = sum(share for share, _ in known)
    return sum(share * part for share, part in known) / time_ if time_ else None


def outcome_text(found: Outcome, folder: str, stored: bool) -> str:
    """What `nncc tune` prints at the end."""
    lines = [_kernels_text(found)]
    final = found.final
    if found.interrupted:
        lines.append(
            "\ninterrupted: what was found is kept; run the same command to go on, which tries it in the whole model\n"
        )
    elif final is None:
        lines.append(f"\nno gain: {duration(found.baseline)} without records, and nothing found is faster\n")
    else:
        low, high = (f"{1 / value:.3f}" for value in (final.high, final.low))
        lines.append(
            f"\n{duration(found.baseline)} -> {duration(found.baseline * final.ratio)}: {1 / final.ratio:.3f}x "
            f"({low} to {high}), the whole model, measured in turn with the one without records\n"
        )
    together = whole_roofline(found)
    if together is not None:
        lines.append(f"all kernels together are at {together * 100:.0f} % of what this machine attains (roofline)\n")
    counts = _counts(found.state)
    warm = f"; {plural(found.warm, 'winner')} began as another task's record" if found.warm else ""
    disturbed = f"; {plural(found.disturbed, 'round')} left out, the machine was busy" if found.disturbed else ""
    lines.append(f"{counts}{warm}{disturbed}\n")
    lines.append(f"records in {folder}\n" if stored else "no records: times under an emulator say nothing\n")
    return "".join(lines)


def _kernels_text(found: Outcome) -> str:
    rows = [["share", "trials", "roofline", "gain", "kernel"]]
    for contest in sorted(found.state.contests, key=lambda c: -c.share)[:20]:
        task = contest.task.hash
        roofline = found.roofline.get(task)
        gain = f"{1 / found.kept[task].ratio:.2f}x" if task in found.kept else "-"
        share, trials, _ = _cells(contest)
        near = "-" if roofline is None else f"{roofline * 100:.0f} %"
        rows.append([share, trials, near, gain, clipped(contest.task.text, 70)])
    text = table(rows, ">>>><")
    chosen = "".join(
        f"graph  {', '.join(f'{name} {value}' for name, value in choice.items())} for {clipped(what, 70)}\n"
        for what, choice in found.graph.items()
    )
    return text + ("\n" + chosen if chosen else "")
