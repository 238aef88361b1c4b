"""What a value of a tuning record may be: lines come from anyone. What is out of bounds is a ValueError."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["check_hash", "check_whole", "check_word", "checked_time", "make_line"]

_HASH = re.compile(r"[0-9a-f]{8,64}")
_SLOWEST = 1e6
_FASTEST = 1e-12
"""Seconds: less than this no kernel takes."""


def check_hash(value: Any, name: str) -> None:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"{name} is not 8 to 64 hexadecimal digits")


def check_word(value: Any, name: str) -> None:
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise ValueError(f"{name} is not a word")


def check_whole(value: Any, name: str, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is not a whole number from {least} to {most}")


def checked_time(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _FASTEST <= value < _SLOWEST:
        raise ValueError(f"{name} is not a time")
    return float(value)


def make_line(holder: Any, attribute: str, name: str, longest: int) -> None:
    """Makes a text for people one printable line: records come from anyone, and go to a terminal."""
    value = getattr(holder, attribute)
    if not isinstance(value, str):
        raise ValueError(f"{name} is not text")
    if len(value) > longest or not value.isprintable():
        printable = "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in value[:longest])
        object.__setattr__(holder, attribute, printable)
