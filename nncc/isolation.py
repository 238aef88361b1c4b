"""A command in a process of its own: what crashes LLVM or another library in it becomes an error, not a crash.

The process is forked before anything large is imported, so that it costs next to nothing. The parent only waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from nncc.errors import InternalError
from nncc.worker import signal_name

__all__ = ["isolated"]

_PR_SET_PDEATHSIG = 1


def isolated(run: Callable[[], None]) -> int:
    """Run a function that ends by SystemExit, in a child: its exit status.

    Raises InternalError where a signal ended it that nobody sent from outside. On systems without fork the function
    runs in this process.
    """
    if not hasattr(os, "fork") or sys.gettrace() is not None:  # a debugger follows one process
        return _status(run)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _end_with(parent)
        status = 1
        try:
            status = _status(run)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)
    return _awaited(child)


def _status(run: Callable[[], None]) -> int:
    try:
        run()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _end_with(parent: int) -> None:
    """Have this process killed when its parent dies, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _awaited(child: int) -> int:
    def pass_on(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    before = {each: signal.signal(each, pass_on) for each in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    try:
        _, status = os.waitpid(child, 0)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = int(os.WTERMSIG(status))
    if number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        return 128 + number
    if number == signal.SIGKILL:
        raise InternalError("the compiler was killed, as systems do that run out of memory", "free some, and try again")
    raise InternalError(
        f"the compiler crashed ({signal_name(number)}) in one of its libraries",
        "please report this, with the model; `nncc compare MODEL --bisect` finds the operator",
    )
