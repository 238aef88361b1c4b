"""`nncc tune`: what a model's kernels may decide is searched, measured and kept as records.

    baseline    the model as it is compiled without records: its time, and each kernel's share
    graph       choices that change the graph: blocks of channels, Winograd or direct
    contests    kernel by kernel, the next batch where most is to be expected
    finals      the winners in the whole model: kept is what is faster there

What is found is on the disk as it is found; to run again is to go on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from nncc.config import Config, Tuning
from nncc.errors import NnccError
from nncc.pipeline import plan
from nncc.tuning.outcome import Outcome, Watcher
from nncc.tuning.session import Session

__all__ = ["tune"]


def tune(path: str | Path, config: Config, tuning: Tuning, watch: Watcher | None = None) -> Outcome:
    """Tune a model for a target.

    Raises as `nncc.compile`; and RunError where a device is gone, OutputError where records cannot be written: what was
    found before is kept.
    """
    watch = watch or Watcher()
    job = plan(path, replace(config, until="lower", verify=False))
    session = Session(job, tuning, watch)
    try:
        session.prepare()
        if tuning.tasks == "list":
            return session.finish(interrupted=True)
        interrupted = False
        try:
            with _noted(session.interrupted):
                session.choose_graph()
                session.search()
        except KeyboardInterrupt:
            interrupted = True
        except Exception as error:  # what TVM makes of an interrupt in a function that it called
            if isinstance(error, NnccError) or not session.interrupted.is_set():
                raise
            interrupted = True
        try:
            return session.finish(interrupted)
        except KeyboardInterrupt:
            return session.finish(interrupted=True)
    finally:
        session.close()


@contextmanager
def _noted(event: threading.Event) -> Iterator[None]:
    """An interrupt (SIGINT) sets `event` before it is raised, where this is the thread that gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
