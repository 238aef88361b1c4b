"""What people see while they wait: progress on stderr where it is a terminal; chatter of other tools kept away."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from nncc.errors import InternalError, NnccError, OutputError
from nncc.pipeline import Instrument

if TYPE_CHECKING:
    from nncc.pipeline import Job, Stage

__all__ = ["Progress", "quiet", "wants_traceback", "working"]


def wants_traceback() -> bool:
    """Whether ``NNCC_TRACEBACK`` asks for Python's own words, and those of the tools below."""
    return os.environ.get("NNCC_TRACEBACK", "") not in ("", "0")


@contextmanager
def quiet() -> Iterator[TextIO]:
    """While inside, what TVM, LLVM and ONNX Runtime write to this process's stdout and stderr goes nowhere.

    Yields a stream to the terminal's stderr for what nncc itself has to say. With ``NNCC_TRACEBACK=1`` nothing is
    kept away.
    """
    if wants_traceback():
        yield sys.stderr
        return
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        # Where Python's stderr is not the process's (a test, a notebook), it is not redirected either.
        shown = os.fdopen(os.dup(2), "w") if sys.stderr.fileno() == 2 else sys.stderr
    except (OSError, ValueError, AttributeError):
        shown = sys.stderr
    saved: dict[int, int] = {}
    try:
        with tempfile.TemporaryFile() as sink, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for descriptor in (1, 2):
                saved[descriptor] = os.dup(descriptor)
                os.dup2(sink.fileno(), descriptor)
            try:
                yield shown
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                for descriptor, original in saved.items():
                    os.dup2(original, descriptor)
                    os.close(original)
    finally:
        if shown is not sys.stderr:
            shown.close()


class Progress(Instrument):
    """An instrument that shows the running stage on `stream` if that is a terminal, and remembers its name.

    A stage that tells how far it is, through `tell`, gets a bar; the others a spinner. The line is gone at the end.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stage = ""
        self._bar: Any = None
        if stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description:<10}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[what]}", markup=False),
                TimeElapsedColumn(),
            )
            self._bar = Bar(*columns, console=Console(file=stream), transient=True)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def before(self, stage: Stage, job: Job) -> None:
        self.start(stage.name)

    def start(self, name: str, what: str = "") -> None:
        """Something begins whose length is not known."""
        self.stage = name
        if self._bar is not None:
            for task in list(self._bar.task_ids):
                self._bar.remove_task(task)
            self._bar.add_task(name, total=None, what=what)

    def tell(self, done: int, total: int, what: str) -> None:
        """`done` of `total` parts of the running stage are done; `what` is next."""
        if self._bar is not None:
            for task in list(self._bar.task_ids):
                self._bar.update(task, completed=done, total=total, what=f"{done}/{total} {what}"[:48])


@contextmanager
def working(show: Callable[[TextIO], Progress] | None = None) -> Iterator[Progress]:
    """Progress is shown, chatter is not, and what no one foresaw is an InternalError that names the stage.

    `show` makes what shows it, a `Progress` by default.
    """
    with quiet() as stream, (show or Progress)(stream) as progress:
        try:
            yield progress
        except NnccError:
            raise
        except MemoryError as error:
            raise NnccError(f"{progress.stage}: there is not enough memory", "close other programs") from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise InternalError(f"{progress.stage}: {type(error).__name__}: {error}") from error
            where = f" `{error.filename}`" if error.filename else ""
            raise OutputError(f"{progress.stage}: cannot write{where}: {error.strerror}", "free some space") from error
        except Exception as error:
            raise InternalError(f"{progress.stage}: {type(error).__name__}: {error}") from error
