"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nncc.errors import OutputError

__all__ = ["write_whole"]


def write_whole(path: Path, write: Callable[[Path], object], what: str = "", hint: str = "") -> None:
    """Let `write` make a file beside `path`, which then takes its place.

    Raises OutputError, which calls the file `what`, and leaves no other one behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write {what}`{path}`: {error.strerror or error}", hint) from error
