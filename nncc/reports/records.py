"""Tuning records as text and as facts for scripts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from nncc.reports import duration, plural, table
from nncc.tuning.record import Key, Record
from nncc.tuning.record_files import Problem
from nncc.tuning.set_operations import Difference, Stats

if TYPE_CHECKING:
    from nncc.tuning.verify_records import Verdict

__all__ = [
    "diff_facts",
    "diff_text",
    "query_text",
    "record_facts",
    "stats_facts",
    "stats_text",
    "verdict_facts",
    "verdict_text",
    "warnings_text",
]

MOST = 10
"""Warnings that are shown one by one."""
WIDEST = 46
"""Characters of a text in a table; longer ones are cut."""


def warnings_text(problems: Sequence[Problem]) -> str:
    """One line for each line that was left out; of many, the first and their number."""
    lines = [f"warning: {each.file}:{each.line}: {each.reason}\n" for each in problems[:MOST]]
    if len(problems) > MOST:
        lines.append(f"warning: {plural(len(problems) - MOST, 'more line')} cannot be read\n")
    return "".join(lines)


def record_facts(records: Iterable[Record]) -> list[dict[str, Any]]:
    """What a record's line says, and its ratio where it has one."""
    return [json.loads(record.to_line()) | {"ratio": _finite(record.ratio)} for record in records]


def query_text(records: Sequence[Record]) -> str:
    """For each task and target a line a record: the fastest first, what failed last."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda r: (r.task.text, r.task.hash, r.key.file_name)):
        groups.setdefault((record.task.hash, record.key.file_name), []).append(record)
    text = ""
    for (task, target), group in groups.items():
        rows = []
        for record in sorted(group, key=lambda r: (bool(r.error), r.ratio, r.to_line())):
            time = duration(record.seconds[0]) if record.seconds else ""
            state = "failed" if record.error else "accepted" if record.accepted else "tried"
            choice = record.error or ", ".join(f"{name}={value}" for name, value in record.decisions.items())
            rows.append([time, _times(record), state, record.date[:10], _cut(choice)])
        text += f"{task[:8]}  {target}  {group[-1].task.text}\n{table(rows, '>><<<', '  ')}\n"
    return f"{text}{plural(len(records), 'record')}\n"


def stats_facts(found: Stats) -> dict[str, Any]:
    gains = [
        _key_facts(gain.key) | {"machine": gain.machine, "tasks": gain.tasks, "speedup": gain.speedup or None}
        for gain in found.gains
    ]
    numbers = {name: getattr(found, name) for name in ("tasks", "records", "accepted", "failed", "workloads")}
    return numbers | {"machines": list(found.machines), "keys": gains}


def stats_text(found: Stats) -> str:
    """How many of what; then a line a target and processor: how many tasks have a winner, and their gain."""
    rows = [[name, str(getattr(found, name))] for name in ("tasks", "records", "accepted", "failed", "workloads")]
    text = table(rows, "<>")
    if not found.gains:
        return text
    rows = [["target", "threads", "vector", "measured on", "tasks", "faster"]]
    for gain in found.gains:
        faster = f"{gain.speedup:.2f} x" if gain.speedup else ""
        key = gain.key
        rows.append([key.target, str(key.threads), f"{key.vector_bits} bit", gain.machine, str(gain.tasks), faster])
    return f"{text}\n{table(rows, '<>><>>')}\nfaster: geometric mean of the tasks' best, over the default loops\n"


def diff_facts(rows: Iterable[Difference]) -> list[dict[str, Any]]:
    return [
        {"task": row.task.hash, "what": row.task.text}
        | _key_facts(row.key)
        | {"machine": row.machine}
        | {name: _finite(each.ratio) if each else None for name, each in (("ratio_a", row.a), ("ratio_b", row.b))}
        for row in rows
    ]


def diff_text(rows: Sequence[Difference]) -> str:
    """A line where the two sets differ, and how many of which kind there are."""
    lines = [["task", "target", "measured on", "A", "B", "better", "what"]]
    count = {"A": 0, "B": 0, "both": 0}
    for row in rows:
        ratios = [each.ratio if each else math.inf for each in (row.a, row.b)]
        same = (row.a == row.b) or (row.a is not None and row.b is not None and ratios[0] == ratios[1])
        better = "both" if same else "A" if row.b is None or (row.a and ratios[0] < ratios[1]) else "B"
        count[better] += 1
        if not same:
            cells = [_times(each) or "yes" if each else "none" for each in (row.a, row.b)]
            what = _cut(row.task.text)
            lines.append([row.task.hash[:8], row.key.file_name, row.machine, *cells, better, what])
    text = table(lines, "<<<>><<") + "\n" if len(lines) > 1 else ""
    return f"{text}A is better for {count['A']}, B for {count['B']}, both are equal for {count['both']}\n"


def _key_facts(key: Key) -> dict[str, Any]:
    names = ("target", "kind", "mtriple", "mcpu", "threads", "vector_bits")
    return {name: getattr(key, name) for name in names} | {"mattr": list(key.mattr)}


def _times(record: Record) -> str:
    """How many times faster than the default it is."""
    return f"{1 / record.ratio:.2f} x" if math.isfinite(record.ratio) else ""


def _finite(ratio: float) -> float | None:
    return ratio if math.isfinite(ratio) else None


def _cut(text: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."


def verdict_facts(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """For JSON."""
    return [
        {
            "task": v.record.task.hash,
            "text": v.record.task.text,
            "was": v.record.ratio,
            "ratio": v.ratio,
            "holds": v.holds,
            "error": v.error,
        }
        for v in verdicts
    ]


def verdict_text(verdicts: Sequence[Verdict]) -> str:
    """What became of each winner."""
    rows = [["was", "now", "", "kernel"]]
    for v in verdicts:
        now = "-" if v.ratio is None else f"{1 / v.ratio:.2f}x"
        word = v.error or ("holds" if v.ratio is not None else "not measured: the kernel is not in the records")
        if not v.holds and not v.error:
            word = "refused"
        rows.append([f"{1 / v.record.ratio:.2f}x", now, word, v.record.task.text])
    refused = sum(not v.holds for v in verdicts)
    return f"{table(rows, '>><<')}\n{len(verdicts) - refused} hold, {refused} refused\n"
