"""Where the files are that travel with the code: ``targets/``, ``schedules/``, the runtime's C sources."""

from __future__ import annotations

from pathlib import Path

__all__ = ["runtime_folder", "schedules_folder", "targets_folder"]


def targets_folder() -> Path:
    """The folder with one TOML file a target."""
    return _folder("targets")


def schedules_folder() -> Path:
    """The folder with the schedule templates and, below ``records/``, the tuning records."""
    return _folder("schedules")


def runtime_folder() -> Path:
    """The folder with the C sources and headers of the runtime and of the bench program."""
    return Path(__file__).resolve().parent / "runtime"


def _folder(name: str) -> Path:
    package = Path(__file__).resolve().parent
    installed = package / "data" / name
    return installed if installed.is_dir() else package.parent / name
