"""A Python that stays warm: it has imported numpy and the loader, and forks a process for each order. Linux only."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nncc.errors import RunError
from nncc.tuning.runners import CandidateError
from nncc.worker import answer, never_ended, python_program, signal_name

__all__ = ["WarmWorker", "serve"]

READY = b"."
"""The first byte of the warm process."""


class WarmWorker:
    """Does the orders of ``nncc.worker``, one at a time, each in a process of its own, without Python's start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115

    def work(self, path: Path, order: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """The answer to `order`.

        Raises CandidateError where the library fails, crashes, or is killed after `timeout` seconds; RunError where the
        warm process itself ends.
        """
        with self._lock:
            try:
                found = self._ask({**order, "path": str(path)}, timeout)
            except BaseException:  # an interrupt too: what runs now must not go on
                self._end()
                raise
            if found is None:
                self._end()
                raise CandidateError(never_ended(path, timeout).message)
        if "signal" in found:
            raise CandidateError(f"{path} crashed: {signal_name(found['signal'])}")
        if "status" in found:
            raise CandidateError(f"{path} ended its process with exit status {found['status']}")
        if "error" in found:
            raise CandidateError.of(path, found["error"])
        return found

    def close(self) -> None:
        """End the process; the next order starts a new one."""
        with self._lock:
            self._end()

    def _ask(self, order: Mapping[str, Any], timeout: float) -> dict[str, Any] | None:
        """The answer; None where there was none in time."""
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has just ended: reading tells
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        end, said = time.monotonic() + timeout, b""
        while not said.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                return None
            part = os.read(process.stdout.fileno(), 1 << 20)
            if not part:
                raise RunError(f"the process that measures has ended: {self._last_words()}")
            said += part
        return json.loads(said)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            command, environment = python_program("nncc.tuning.warm")
            pipe = subprocess.PIPE
            # In a session of its own: an interrupt from the terminal is for us, and one signal ends all it forked.
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=self._said, env=environment, start_new_session=True
            )
            assert self._process.stdout is not None
            if os.read(self._process.stdout.fileno(), 1) != READY:
                raise RunError(f"the process that measures does not start: {self._last_words()}")
        return self._process

    def _last_words(self) -> str:
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - 2000))
        return self._said.read().decode(errors="replace").strip() or "it said nothing"

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def serve() -> None:
    """The warm process: a line of JSON in, a line out, until there are no more.

    An answer is that of ``nncc.worker``, or ``signal`` or ``status``: how the forked process ended without one.
    """
    import numpy as np

    import nncc.runtime.loader  # noqa: F401

    np.random.default_rng(0).standard_normal(1, np.float32)
    out = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # what a library prints is no answer
    os.write(out, READY)
    line = b""
    while part := os.read(0, 1 << 16):
        line += part
        if line.endswith(b"\n"):
            os.write(out, json.dumps(_forked(json.loads(line))).encode() + b"\n")
            line = b""


def _forked(order: Mapping[str, Any]) -> dict[str, Any]:
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(theirs, json.dumps(answer(order)).encode())
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(theirs)
    said = b""
    while True:
        ready = select.select([ours, 0], [], [])[0]
        if 0 in ready:  # no order comes before the answer: whoever asked is gone
            os.kill(child, signal.SIGKILL)
            os._exit(0)
        part = os.read(ours, 1 << 20)
        if not part:
            break
        said += part
    os.close(ours)
    how = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if how < 0:
        return {"signal": -how}
    return json.loads(said) if said and how == 0 else {"status": how}
