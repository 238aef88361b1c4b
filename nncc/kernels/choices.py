"""What a schedule template may decide: its options by name, the first of them being its own choice.

A template asks for each decision as it comes to it, so that what it may choose can depend on what it chose before. The
same code so gives the default, replays a record, and shows a search its space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from nncc.ir import Decision

__all__ = ["TRACE", "Choices", "Find", "GraphChoices", "graph_task"]

TRACE = "trace"
"""The name of a decision that is a whole schedule: a trace of TVM's, as JSON."""

Find = Callable[[str], tuple[Mapping[str, Any] | None, str]]
"""From the hash of a task to what is known to be best for it, or None, and the source of that."""


class Choices:
    """Answers a template's questions: with what is `given`, else with the default.

    A given value that is no longer an option (the template has changed, the record is another kernel's) is left out,
    and its name is in `refused`.
    """

    def __init__(self, given: Mapping[str, Any] | None = None, source: str = "default") -> None:
        self.given = dict(given or {})
        self.source = source
        """Where the given values are from."""
        self.options: dict[str, list[Any]] = {}
        """By name, what could have been chosen; the default first."""
        self.taken: dict[str, Any] = {}
        """By name, what was."""
        self.refused: set[str] = set(self.given)

    def __call__(self, name: str, options: Iterable[Any]) -> Any:
        """One of the `options`, which are values of JSON: numbers, words, lists."""
        possible = list(options)
        given = self.given.get(name)
        known = name in self.given and any(type(given) is type(o) and given == o for o in possible)
        self.options[name] = possible
        self.taken[name] = given if known else possible[0]
        if known:
            self.refused.discard(name)
        return self.taken[name]

    def again(self) -> None:
        """Forget what was asked: the template runs a second time."""
        self.options.clear()
        self.taken.clear()
        self.refused = set(self.given)

    def decision(self, task: str, kind: str, text: str) -> Decision:
        """What was chosen for a task, and why."""
        source = self.source
        if self.refused:
            source = f"default: {' and '.join(sorted(self.refused))} of the {source} cannot be chosen any more"
        return Decision(task, kind, text, dict(self.taken), source)


class GraphChoices:
    """Choices that change the graph: which algorithm a convolution runs, how many channels a block has.

    A pass asks for the choices of a task, which its kind and a text describe; the text is what makes two tasks one.
    """

    def __init__(self, find: Find = lambda task: (None, "default")) -> None:
        self._find = find
        self.asked: dict[str, tuple[str, str, Choices]] = {}
        """By hash: kind, text, and what was chosen."""

    def __call__(self, kind: str, text: str) -> Choices:
        task = graph_task(kind, text)
        if task not in self.asked:
            given, source = self._find(task)
            self.asked[task] = kind, text, Choices(given, source)
        return self.asked[task][2]

    def decisions(self) -> tuple[Decision, ...]:
        """What was asked for and chosen."""
        return tuple(choices.decision(task, kind, text) for task, (kind, text, choices) in self.asked.items())


def graph_task(kind: str, text: str) -> str:
    """The hash of a task of the graph, 16 hexadecimal digits."""
    return hashlib.sha256(f"{kind}\n{text}".encode()).hexdigest()[:16]
