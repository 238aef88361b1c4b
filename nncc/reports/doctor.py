"""What the doctor found, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nncc.reports import plural, table

if TYPE_CHECKING:
    from nncc.doctor import Row

__all__ = ["doctor_text"]


def doctor_text(rows: Sequence[Row]) -> str:
    """One line a check; the targets, of which `nncc targets` tells, only where something is wrong."""
    shown = [row for row in rows if row.status != "ok" or not row.check.startswith("target ")]
    lines = table([[f"{row.status:<4}", row.check, row.detail] for row in shown]).splitlines()
    text = ""
    for row, line in zip(shown, lines, strict=True):
        text += line + "\n"
        if row.status != "ok" and row.hint:
            text += f"      {row.hint}\n"
    count = {status: sum(row.status == status for row in rows) for status in ("ok", "warn", "fail")}
    targets = sum(row.check.startswith("target ") for row in rows)
    verdict = "nncc cannot work here" if count["fail"] else "nncc works here"
    missing = (
        f", {plural(count['warn'], 'thing')} it could use {'is' if count['warn'] == 1 else 'are'} missing"
        if count["warn"]
        else ""
    )
    return f"{text}\n{verdict}{missing}; `nncc targets` tells of {plural(targets, 'target')}\n"
