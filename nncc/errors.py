"""What can go wrong, one class per kind of reader; every error says what, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "DataError",
    "InternalError",
    "ModelError",
    "NnccError",
    "OutputError",
    "RecordError",
    "RunError",
    "TargetError",
    "ToolError",
    "UsageError",
    "did_you_mean",
]


class NnccError(Exception):
    """An error a person can act on.

    ``str(error)`` is the message; `hint` says what to do next. The command line prints

        error: <message>

        hint: <hint>

    and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(NnccError):
    """The words of a call are off: an option that contradicts another, a value that cannot be parsed."""

    exit_code = 2


class ModelError(NnccError):
    """The model cannot be read or compiled: not ONNX, truncated, a dynamic dimension, an unsupported operator."""


class TargetError(NnccError):
    """The target is unknown, its description is wrong, or this machine cannot serve it."""


class ToolError(NnccError):
    """An external tool is missing or failed; the message carries its command and its stderr."""


class RecordError(NnccError):
    """Tuning records cannot be found or read."""


class DataError(NnccError):
    """Samples for calibration or comparison cannot be read, or are not what the model takes."""


class OutputError(NnccError):
    """The artifact cannot be written where it should go."""


class RunError(NnccError):
    """A compiled library cannot be loaded or run: wrong machine, wrong inputs."""


class InternalError(NnccError):
    """A defect in nncc itself: the message names the stage, the kernel or the pass that is to blame."""

    exit_code = 70


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that asks whether the nearest of the known words was meant; empty where none is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else ""
