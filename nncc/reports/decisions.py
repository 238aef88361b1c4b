"""Where the decisions of a compiled model came from, as text and for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nncc.reports import clipped, plural, table

if TYPE_CHECKING:
    from nncc.ir import Decision

__all__ = ["decision_facts", "decisions_text"]


def decision_facts(decisions: Sequence[Decision]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {"task": d.task, "kind": d.kind, "text": d.text, "decisions": dict(d.taken), "source": d.source}
        for d in decisions
    ]


def decisions_text(decisions: Sequence[Decision], elsewhere: Mapping[str, str], every: bool) -> str:
    """How many decisions come from where; of `every` kernel with a choice, if that is wanted."""
    kernels = [d for d in decisions if d.kind == "kernel"]
    if not kernels or not (every or any(d.tuned for d in decisions)):
        return ""
    tuned = sum(d.tuned for d in kernels)
    lines = [f"\nkernels  {tuned} of {len(kernels)} by records or a lock, {len(kernels) - tuned} by default\n"]
    for word in ("layout", "algorithm"):
        chosen = [d for d in decisions if d.kind == word and d.tuned]
        lines += [f"{word}  {_values(d)} for {clipped(d.text, 60)} ({d.source})\n" for d in chosen]
    if every:
        rows = [[d.source, _values(d), clipped(d.text, 60)] for d in kernels]
        lines.append(table(rows, indent="  "))
    processors = Counter(elsewhere.values())
    for processor, count in processors.most_common():
        lines.append(
            f"warning: {plural(count, 'kernel')} without a record for this processor, but with one of `{processor}`, "
            "which was not used; `nncc tune` starts from it\n"
        )
    return "".join(lines)


def _values(decision: Decision) -> str:
    def word(value: Any) -> str:
        return "x".join(map(str, value)) if isinstance(value, list) else str(value)

    return ", ".join(f"{name} {word(value)}" for name, value in decision.taken.items())
