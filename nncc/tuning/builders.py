"""Processes that build candidate libraries: an abort of LLVM, or a candidate it never ends with, is theirs alone."""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from nncc.errors import NnccError
from nncc.target import Target
from nncc.tuning.candidates import Candidates, Kernel
from nncc.worker import signal_name

__all__ = ["BuildFailure", "Builders", "Recipe", "serve"]


class BuildFailure(NnccError):
    """A candidate library could not be built: the candidates' fault, or LLVM's."""


@dataclass(frozen=True)
class Recipe:
    """What one library is made of; TIR functions as TVM's JSON, so that the recipe can go to another process."""

    functions: str
    """A module of the distinct functions, by the names ``f0``, ``f1`` ..."""
    kernels: tuple[tuple[str, frozenset[int], dict[str, Any]], ...]
    """For each candidate the name of its function, its constants and its decisions."""
    target: Target
    schedules: tuple[Path, ...]
    """Templates of the user's own."""
    folder: Path
    weights_bytes: int = 0
    check: bool = False
    rpc: bool = False
    default_seconds: float = 0.0

    @classmethod
    def of(
        cls, kernels: Sequence[Kernel], target: Target, schedules: Sequence[Path], folder: Path, **options: Any
    ) -> Recipe:
        """The recipe for a library of `kernels`."""
        from nncc.compat import IRModule, tvm

        distinct: list[Any] = []
        names = []
        for kernel in kernels:
            at = next((n for n, f in enumerate(distinct) if f.same_as(kernel.function)), len(distinct))
            distinct[at:] = distinct[at:] or [kernel.function]
            names.append(f"f{at}")
        module = IRModule({f"f{n}": f.with_attr("global_symbol", f"f{n}") for n, f in enumerate(distinct)})
        made = tuple((n, k.constants, dict(k.decisions)) for n, k in zip(names, kernels, strict=True))
        return cls(str(tvm.ir.save_json(module)), made, target, tuple(schedules), folder, **options)


class Builders:
    """Some processes, started when they are first needed and again after each that died."""

    def __init__(self, count: int = 0, timeout: float = 60.0) -> None:
        """`timeout` is the seconds that one library may take."""
        self.count = count = count or max(1, min(8, os.cpu_count() or 1))
        self.timeout = timeout
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        self._processes = [_Process() for _ in range(count)]
        for process in self._processes:
            self._idle.put(process)
        self._pool = ThreadPoolExecutor(count)

    def build(self, recipes: Sequence[Recipe]) -> list[Candidates | BuildFailure]:
        """Build all, side by side; for each its library, or why there is none."""
        return list(self._pool.map(self._one, recipes))

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, recipe: Recipe) -> Candidates | BuildFailure:
        process = self._idle.get()
        try:
            return process.ask(recipe, self.timeout)
        except BuildFailure as failure:
            return failure
        finally:
            self._idle.put(process)


class _Process:
    """One process that imports TVM once and serves recipes, pickled, one after the other."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, recipe: Recipe, timeout: float) -> Candidates:
        if self._child is None or self._child.poll() is not None:
            self._child = _start()
        child = self._child
        assert child.stdin is not None and child.stdout is not None
        data = pickle.dumps(recipe)
        try:
            child.stdin.write(len(data).to_bytes(8, "little") + data)
            child.stdin.flush()
            answer = pickle.loads(_read(child.stdout.fileno(), time.monotonic() + timeout))
        except TimeoutError:
            self.kill()
            raise BuildFailure(f"it was not built within {timeout:.0f} s") from None
        except (EOFError, OSError):
            child.wait()
            status, self._child = child.returncode, None
            what = signal_name(-status) if status < 0 else f"exit status {status}"
            raise BuildFailure(f"the compiler crashed: {what}") from None
        if isinstance(answer, str):
            raise BuildFailure(answer)
        return answer

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for pipe in (self._child.stdin, self._child.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            self._child = None


def _start() -> subprocess.Popen[bytes]:
    package = str(Path(__file__).resolve().parent.parent.parent)
    search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    program = "import sys; sys.path = [p for p in sys.path if p]; from nncc.tuning.builders import serve; serve()"
    environment = os.environ | {"PYTHONPATH": search}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the parent, which ends this one
    )


def _read(descriptor: int, deadline: float) -> bytes:
    """One frame: its length in 8 bytes, and its bytes."""

    def exactly(count: int) -> bytes:
        data = b""
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while len(data) < count:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                part = os.read(descriptor, count - len(data))
                if not part:
                    raise EOFError
                data += part
        return data

    return exactly(int.from_bytes(exactly(8), "little"))


def serve() -> None:
    """The other process: recipes on stdin, answers on what was its stdout."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what TVM and LLVM print is no answer
    stdin = sys.stdin.buffer
    while True:
        head = stdin.read(8)
        if len(head) < 8:
            return
        recipe = pickle.loads(stdin.read(int.from_bytes(head, "little")))
        data = pickle.dumps(_build(recipe))
        view = memoryview(len(data).to_bytes(8, "little") + data)
        while view:
            view = view[os.write(answers, view) :]


def _build(recipe: Recipe) -> Candidates | str:
    from nncc.compat import tvm
    from nncc.kernels.templates import load_templates
    from nncc.tuning.candidates import build_candidates

    try:
        module = tvm.ir.load_json(recipe.functions)
        kernels = [Kernel(module[name], constants, decisions) for name, constants, decisions in recipe.kernels]
        folder = Path(tempfile.mkdtemp(prefix="c", dir=recipe.folder))
        return build_candidates(
            kernels,
            load_templates(recipe.schedules),
            recipe.target,
            folder,
            weights_bytes=recipe.weights_bytes,
            check=recipe.check,
            rpc=recipe.rpc,
            default_seconds=recipe.default_seconds,
        )
    except (NnccError, tvm.error.InternalError, ValueError, TypeError, RuntimeError, IndexError) as error:
        return str(error).strip() or type(error).__name__
