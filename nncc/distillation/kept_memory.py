"""Memory of tensors, kept from one step of training for the next."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of glibc's `mallopt`: how much is free at the end of the heap before it is given back, how much is asked for at once,
and from which size on an allocation has pages of its own."""
_DEFAULT = 128 * 1024
_KEPT = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 * 2**20}


@contextmanager
def kept_memory() -> Iterator[None]:
    """While inside, what tensors leave is kept for the next ones; afterwards it is given back.

    By itself glibc gives back the pages of each large tensor, and gets others, filled with zeros, in the next step:
    nearly half of the time of a small network's step. With another libc nothing changes.
    """
    try:
        libc = ctypes.CDLL(None)
        set_, trim = libc.mallopt, libc.malloc_trim
    except (OSError, TypeError, AttributeError):  # no such functions; or, on Windows, no library of this name
        yield
        return
    try:
        for parameter, value in _KEPT.items():
            set_(parameter, value)
        yield
    finally:
        for parameter in _KEPT:
            set_(parameter, _DEFAULT)
        trim(0)
