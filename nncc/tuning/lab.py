"""Build candidates, run them, and judge: what each is worth beside the template's default, and whether it is right."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from nncc.kernels.templates import Template
from nncc.target import Target
from nncc.tuning.agreement import wrong_by
from nncc.tuning.builders import Builders, BuildFailure, Recipe
from nncc.tuning.candidates import Candidates, Kernel, check_inputs
from nncc.tuning.measure import Timing, compare, measure_until_sure
from nncc.tuning.runners import CandidateError, Order, Runner

__all__ = ["PASSED_OVER", "Lab", "Result"]

PASSED_OVER = 128 << 20
"""Bytes of weights that pass through the caches between two uses of the same: several times what they hold."""


@dataclass(frozen=True)
class Result:
    """What became of one candidate: its timing, or why there is none."""

    timing: Timing | None
    error: str = ""
    pruned: bool = False
    """Whether it was not run, because it cannot win: `error` says why."""


class Lab:
    """The builders and the runner of one tuning."""

    def __init__(
        self,
        target: Target,
        templates: Mapping[str, Template],
        schedules: Sequence[Path],
        runner: Runner,
        weights_bytes: int,
        seed: int,
    ) -> None:
        self.target = target
        self.runner = runner
        self.disturbed = 0
        """Rounds in which the machine was busy with something else."""
        self._templates = templates
        self._schedules = tuple(schedules)
        self._weights_bytes = weights_bytes
        self._seed = seed
        self.builders = Builders(timeout=_GPU_BUILD_SECONDS if target.hardware.multiprocessors else _BUILD_SECONDS)
        self._folder = Path(tempfile.mkdtemp(prefix="nncc-tune-"))

    def close(self) -> None:
        """End the processes, remove what was built."""
        self.builders.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def measure(
        self, reference: Kernel, candidates: Sequence[Kernel], sure: bool = False, seconds: float = 0.0
    ) -> list[Result]:
        """The results of the candidates, in order, beside the reference; if `sure`, by more rounds.

        One that cannot be built or run fails alone. `seconds` is what the reference is known to take, or 0.
        """
        parts = _even_parts(list(candidates), 1 if sure else self.builders.count)
        found = [result for part in self._measured(reference, parts, sure, seconds) for result in part]
        alone = [n for n, result in enumerate(found) if result.error and not result.pruned]
        if len(candidates) > 1:
            again = self._measured(reference, [[candidates[n]] for n in alone], sure, seconds)
            for number, (result,) in zip(alone, again, strict=True):
                found[number] = result
        return found

    def check(self, kernels: Sequence[Kernel]) -> str:
        """Whether the other kernels compute what the first does, on random inputs; else what is wrong."""
        recipe = self._recipe(kernels, check=True)
        (built,) = self.builders.build([recipe])
        if isinstance(built, BuildFailure):
            return built.message
        library = built.library
        assert library is not None, "none is left out of a library that checks"
        inputs = check_inputs(kernels, self._templates, self.target, self._seed)
        try:
            expected, *outputs = self.runner.run(library, self._threads, inputs, _TIMEOUT)
        except CandidateError as error:
            return error.message
        finally:
            shutil.rmtree(library.parent, ignore_errors=True)
        return next(filter(None, (wrong_by(expected, output) for output in outputs)), "")

    # ---- inside ---------------------------------------------------------------------------------------------------

    @property
    def _threads(self) -> int:
        return self.target.hardware.cores

    def _recipe(self, kernels: Sequence[Kernel], **options: Any) -> Recipe:
        rpc = self.runner.name.startswith("rpc:")
        return Recipe.of(kernels, self.target, self._schedules, self._folder, rpc=rpc, **options)

    def _measured(
        self, reference: Kernel, parts: Sequence[Sequence[Kernel]], sure: bool, seconds: float
    ) -> list[list[Result]]:
        options = {"weights_bytes": self._weights_bytes, "default_seconds": seconds}
        libraries = self.builders.build([self._recipe([reference, *part], **options) for part in parts])
        return [self._results(library, len(part), sure) for library, part in zip(libraries, parts, strict=True)]

    def _results(self, built: Candidates | BuildFailure, count: int, sure: bool) -> list[Result]:
        if isinstance(built, BuildFailure):
            return [Result(None, built.message)] * count
        out = built.refused[1:]
        timed = iter(self._timed(built.library, built.before, out.count(""), sure) if built.library else ())
        return [Result(None, reason, pruned=True) if reason else next(timed) for reason in out]

    def _timed(self, library: Path, before: int, count: int, sure: bool) -> list[Result]:
        def rounds(number: int) -> np.ndarray:
            order = Order(library, self._threads, self._seed, rounds=number, seconds=_SECONDS, timeout=_TIMEOUT)
            return self.runner.measure(order)[:, before:]

        try:
            if sure:
                timings, disturbed = measure_until_sure(rounds, count + 1, rounds=30, width=0.006, most=4)
            else:
                timings, disturbed = compare(rounds(12), count + 1)
        except CandidateError as error:
            return [Result(None, error.message)] * count
        finally:
            shutil.rmtree(library.parent, ignore_errors=True)
        self.disturbed += disturbed
        return [Result(t) if _is_time(t) else Result(None, "its time is too short to measure") for t in timings[1:]]


_BUILD_SECONDS = 60.0
_GPU_BUILD_SECONDS = 600.0
"""NVIDIA's compilers take seconds for a kernel of tensor cores."""
_TIMEOUT = 60.0
_SECONDS = 2.0


def _is_time(timing: Timing) -> bool:
    return all(isfinite(value) and value > 1e-9 for value in (timing.reference, *timing.spread))


def _even_parts(items: list[Kernel], count: int) -> list[list[Kernel]]:
    """The items in at most `count` parts of nearly one size, in order."""
    size = -(-len(items) // max(1, count))
    return [items[start : start + size] for start in range(0, len(items), size)] if items else []
