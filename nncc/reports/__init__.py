"""The words of results as text: aligned columns, units that fit, nothing that breaks in a terminal of 100 columns."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

__all__ = ["clipped", "duration", "json_text", "plural", "table"]


def table(rows: Sequence[Sequence[str]], align: str = "", indent: str = "") -> str:
    """Rows as columns two blanks apart; `align` has ``<`` or ``>`` for each column, ``<`` where it ends early."""
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows), default=0))]
    lines = []
    for row in rows:
        cells = [f"{cell:{align[at] if at < len(align) else '<'}{widths[at]}}" for at, cell in enumerate(row)]
        lines.append((indent + "  ".join(cells)).rstrip() + "\n")
    return "".join(lines)


def duration(seconds: float) -> str:
    """``12.3 us``, ``4.56 ms``, ``1.23 s``, ``2 min 5 s``: three digits that count."""
    if seconds >= 99.95:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    unit, factor = ("s", 1.0) if seconds >= 0.9995 else ("ms", 1e3) if seconds >= 0.9995e-3 else ("us", 1e6)
    value = seconds * factor
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"


def json_text(value: Any) -> str:
    """JSON, indented, with lists of plain values on one line."""
    text = json.dumps(value, indent=2)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text) + "\n"


def clipped(text: str, most: int) -> str:
    """The text, or as much of it as `most` characters hold with an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def plural(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
