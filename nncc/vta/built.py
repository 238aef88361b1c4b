"""Libraries that are compiled at first use and kept for the next one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from nncc.codegen.publish import workshop
from nncc.errors import OutputError
from nncc.resources import cache_folder

__all__ = ["built_once"]


def built_once(name: str, folder: Path | None, build: Callable[[Path], Path]) -> Path:
    """The file `name` in `folder`; where it is not there yet, what `build` makes in a folder that is gone afterwards.

    `folder` is by default the user's cache, or where that cannot be written one of the system's for temporary files.
    `name` has to tell all that the file depends on. Raises OutputError if no place can be written, and what `build`
    raises.
    """
    problem: OutputError | None = None
    for place in [folder] if folder else [cache_folder(), _temporary_folder()]:
        if (place / name).is_file():
            return place / name
        try:
            with workshop(place) as work:
                os.replace(build(work), place / name)
            return place / name
        except OutputError as error:
            problem = error
    assert problem is not None  # a place was tried and failed
    raise problem


def _temporary_folder() -> Path:
    """A folder for this user alone, among the system's temporary files."""
    folder = Path(tempfile.gettempdir()) / f"nncc-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        return Path(tempfile.mkdtemp(prefix="nncc-"))
    return folder
