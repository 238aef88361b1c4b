"""Whole models: built with given decisions and timed as they will run, kernel by kernel."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nncc.backends import backend
from nncc.ir import Kernels, Model
from nncc.kernels.choices import GraphChoices
from nncc.pipeline import Job, run
from nncc.tuning.known import Known
from nncc.tuning.measure import Timing, compare
from nncc.tuning.runners import Order, Runner
from nncc.tuning.tasks import kernel_functions, kernel_hash

__all__ = ["Built", "Whole", "by_task", "versus"]

Fixed = Mapping[str, Mapping[str, Any]]
"""Decisions by task."""


@dataclass(frozen=True)
class Built:
    """A library of the whole model."""

    library: Path
    tasks: tuple[str, ...]
    """The task of the kernel of each call; empty for copies."""
    weights_bytes: int


class Whole:
    """Builds one model in several ways."""

    def __init__(self, model: Model, job: Job, runner: Runner) -> None:
        self.model = model
        self.job = replace(job, known=Known())
        self.runner = runner
        self._folder = Path(tempfile.mkdtemp(prefix="nncc-tune-"))

    def close(self) -> None:
        """Remove what was built."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def lowered(self, fixed: Fixed) -> tuple[Kernels, GraphChoices]:
        """The model's kernels before they are scheduled, and what its passes asked for."""
        from nncc.codegen.lower import lower
        from nncc.kernels.templates import load_templates
        from nncc.passes.specialize import specialize

        graph = GraphChoices(Known(fixed=fixed))
        config = self.job.config
        network = specialize(self.model, self.job.target, load_templates(config.schedules), graph, config.precision)
        return lower(network), graph

    def build(self, fixed: Fixed, kernels: Kernels | None = None) -> Built:
        """A library with these decisions, from `kernels` where they are lowered already; the defaults for the rest."""
        lowered = kernels or self.lowered(fixed)[0]
        hashes = {name: kernel_hash(function) for name, function in kernel_functions(lowered).items()}
        job = replace(self.job, known=Known(fixed=fixed), config=replace(self.job.config, until="flatten"))
        program = run(job, after="lower", value=lowered)
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        rpc = self.runner.name.startswith("rpc:")
        artifact = backend(job.target).build(program, folder, job.name, rpc=rpc)
        tasks = tuple(hashes.get(call.kernel, "") for call in program.calls)
        return Built(artifact.library, tasks, program.weights.nbytes)

    def measure(
        self,
        built: Sequence[Built],
        seconds: float = 0.5,
        turns: int = 6,
        between: Callable[[], object] = lambda: None,
    ) -> list[np.ndarray]:
        """The seconds of each call in each round, float64[rounds, calls], of each library; they run in turn, and
        something else `between` them."""
        found: list[list[np.ndarray]] = [[] for _ in built]
        for _ in range(1 if self.runner.exact else turns):
            for each, parts in zip(built, found, strict=True):
                order = Order(each.library, self.job.target.hardware.cores, rounds=400, seconds=seconds, timeout=120.0)
                parts.append(self.runner.measure(order))
            between()
        return [np.concatenate([_medians(part) for part in parts]) for parts in found]


def _medians(part: np.ndarray, groups: int = 4) -> np.ndarray:
    """The medians of some groups of rounds after each other: what a pause of the machine is to one of them, is gone."""
    return np.stack([np.median(group, axis=0) for group in np.array_split(part, min(groups, len(part)))])


def versus(reference: np.ndarray, other: np.ndarray) -> Timing:
    """How the sums of the calls compare: the timing of `other`, whose rounds were measured in turn with `reference`."""
    count = min(len(reference), len(other))
    pair = np.stack([reference[:count].sum(axis=1), other[:count].sum(axis=1)], axis=1)
    return compare(pair, 2)[0][1]


def by_task(built: Built, seconds: np.ndarray) -> dict[str, float]:
    """By task, the median seconds of all its calls in one inference."""
    found: dict[str, float] = {}
    for task, value in zip(built.tasks, np.median(seconds, axis=0), strict=True):
        found[task] = found.get(task, 0.0) + float(value)
    return found
