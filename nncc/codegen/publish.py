"""All files of an artifact appear in its folder, or none does."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from nncc.codegen.link import _workshop

__all__ = ["publish"]


def publish(files: Sequence[Path], folder: Path) -> list[Path]:
    """Copy `files` into `folder`, made if need be; raises OutputError and leaves nothing behind if that fails."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with _workshop(folder) as work:
            for file in files:
                shutil.copyfile(file, work / file.name)
            for file in files:
                os.replace(work / file.name, folder / file.name)
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return [folder / file.name for file in files]
