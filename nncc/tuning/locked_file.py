"""A file that one process at a time changes: appended to, or replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["append", "locked", "replace"]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """A descriptor that appends to the file, made if need be, which nobody else has locked or put another one for."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if fcntl is None:
                yield descriptor
                return
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(descriptor, path):
                yield descriptor
                return
        finally:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def append(descriptor: int, data: bytes) -> None:
    """Add lines to a locked file, and put them on the disk: all of them, or what fails leaves the file as it was.

    A line that a killed writer left without an end gets one first.
    """
    size = os.fstat(descriptor).st_size
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        if os.read(descriptor, 1) != b"\n":
            data = b"\n" + data
    try:
        _write(descriptor, data)
    except BaseException:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]
    os.fsync(descriptor)


def replace(path: Path, data: bytes, descriptor: int) -> None:
    """Other contents for a file that `descriptor` has locked, at once; none at all removes it."""
    if os.name == "nt":  # where no open file can be replaced
        os.close(descriptor)
    if not data:
        path.unlink()
        return
    handle, name = tempfile.mkstemp(prefix=".nncc-", dir=path.parent)
    try:
        try:
            _write(handle, data)
            if fcntl is not None:
                os.fchmod(handle, os.stat(path).st_mode & 0o777)
        finally:
            os.close(handle)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
