"""All files of an artifact appear in its folder, or none does."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from nncc.errors import OutputError

__all__ = ["publish", "workshop"]


def publish(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copy `files` into `folder`, made if need be; raises OutputError and leaves nothing behind if that fails."""
    with workshop(folder) as work:
        for file in files:
            shutil.copyfile(file, work / file.name)
        for file in files:
            os.replace(work / file.name, folder / file.name)
    return [folder / file.name for file in files]


@contextlib.contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """A temporary folder inside `folder`, gone at the end, as is `folder` if it was made here and nothing came of it.

    What cannot be written is an OutputError.
    """
    work = None
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".nncc-", dir=folder)).resolve()
        yield work
    except OSError as error:
        hint = "free some space" if error.errno == errno.ENOSPC else "choose another folder, or its permissions"
        raise OutputError(f"cannot write to `{folder}`: {error.strerror or error}", hint) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        with contextlib.suppress(OSError):  # one that is not empty stays
            for parent in made:
                parent.rmdir()
