"""Where the knowledge is: ``targets/`` and ``schedules/``, in a checkout and in the wheel."""

from __future__ import annotations

from pathlib import Path

__all__ = ["schedules_folder", "targets_folder"]


def targets_folder() -> Path:
    """The folder with one TOML file a target."""
    return _folder("targets")


def schedules_folder() -> Path:
    """The folder with the schedule templates and, below ``records/``, the tuning records."""
    return _folder("schedules")


def _folder(name: str) -> Path:
    package = Path(__file__).resolve().parent
    installed = package / "data" / name
    return installed if installed.is_dir() else package.parent / name
