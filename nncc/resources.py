"""Where files are: those that travel with the code, ``targets/``, ``schedules/``, the runtime's C sources; and those
that can be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "runtime_folder", "schedules_folder", "targets_folder"]


def targets_folder() -> Path:
    """The folder with one TOML file a target."""
    return _folder("targets")


def schedules_folder() -> Path:
    """The folder with the schedule templates and, below ``records/``, the tuning records."""
    return _folder("schedules")


def runtime_folder() -> Path:
    """The folder with the C sources and headers of the runtime and of the bench program."""
    return Path(__file__).resolve().parent / "runtime"


def cache_folder() -> Path:
    """Where what can be made again is kept: ``$NNCC_CACHE_DIR``, else ``nncc`` in the user's cache."""
    if own := os.environ.get("NNCC_CACHE_DIR"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nncc"


def _folder(name: str) -> Path:
    package = Path(__file__).resolve().parent
    installed = package / "data" / name
    return installed if installed.is_dir() else package.parent / name
