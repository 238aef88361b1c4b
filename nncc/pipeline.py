"""The compiler on one screen: its stages in order, and the loop that runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nncc.config import Config
from nncc.errors import OutputError, UsageError
from nncc.ir import Artifact, Model
from nncc.target import Target, resolve
from nncc.tuning.known import Known, known_from
from nncc.tuning.lock import Lock, read_lock

__all__ = ["OPEN_STAGES", "STAGES", "Instrument", "Job", "Stage", "plan", "run", "stages", "target_for"]


@dataclass(frozen=True)
class Job:
    """A compilation's fixed facts: what every stage may read besides the value it is given."""

    path: Path
    config: Config
    target: Target
    name: str
    """Of the model."""
    output: Path
    progress: Callable[[int, int, str], None] = lambda done, total, what: None
    """Told how far a long stage is."""
    known: Known = field(default_factory=Known)
    """What records, or a lock file, say of this target."""
    lock: Lock | None = None
    """What has to be followed."""
    open_sizes: frozenset[int] = frozenset()
    """Sizes that are others where the open dimensions have other sizes: nothing may be made for these alone."""


@dataclass(frozen=True)
class Stage:
    """One step from value to value."""

    name: str
    run: Callable[[Any, Job], Any]
    wanted: Callable[[Config], bool] = lambda config: True
    """Whether it runs at all."""


class Instrument:
    """Looks on: timing, dumping, verifying. Each method does nothing unless a subclass says otherwise."""

    def before(self, stage: Stage, job: Job) -> None:
        """`stage` is about to run."""

    def after(self, stage: Stage, job: Job, given: Any, value: Any, seconds: float) -> None:
        """`stage` made `value` of `given`."""


def _import(path: Path, job: Job) -> Model:
    from nncc.frontend.onnx import import_onnx

    return import_onnx(path, shape=job.config.shape, bind=job.config.bind, name=job.name)


def _quantize(model: Model, job: Job) -> Model:
    from nncc.quant.api import quantize_model

    assert job.config.quantize is not None
    return quantize_model(model, job.config.quantize, job.config.recipe, job.progress)


def _simplify(model: Model, job: Job) -> Model:
    from nncc.passes.simplify import simplify

    return simplify(model)


def _specialize(model: Model, job: Job) -> Any:
    from nncc.kernels.choices import GraphChoices
    from nncc.kernels.templates import load_templates
    from nncc.passes.specialize import specialize

    config, templates = job.config, load_templates(job.config.schedules)
    return specialize(model, job.target, templates, GraphChoices(job.known), config.precision, job.open_sizes)


def _lower(network: Any, job: Job) -> Any:
    from nncc.codegen.lower import lower

    return lower(network)


def _schedule(kernels: Any, job: Job) -> Any:
    from nncc.codegen.schedule import schedule
    from nncc.kernels.templates import load_templates

    return schedule(kernels, load_templates(job.config.schedules), job.known, job.progress)


def _flatten(kernels: Any, job: Job) -> Any:
    from nncc.codegen.flatten import flatten

    return _compressed(flatten(kernels), job)


def _compressed(program: Any, job: Job) -> Any:
    from nncc.backends import backend
    from nncc.codegen.pack_weights import pack_weights

    if job.config.compress_weights == "off" or not backend(job.target).EXPANDS_WEIGHTS:
        return program
    return pack_weights(program)


def _build(program: Any, job: Job) -> Artifact:
    from nncc.backends import backend

    return backend(job.target).build(program, job.output, job.name, job.config.emit, job.config.dump_code)


STAGES = (
    Stage("import", _import),
    Stage("quantize", _quantize, lambda config: config.quantize is not None),
    Stage("simplify", _simplify),  # exact, any target
    Stage("specialize", _specialize),  # from here on: one target
    Stage("lower", _lower),
    Stage("schedule", _schedule),  # a tuned record, else the template's default
    Stage("flatten", _flatten),
    Stage("build", _build),
)


def _import_open(path: Path, job: Job) -> Any:
    from nncc.dynamic.stages import import_open

    return import_open(path, job)


def _generalize(opened: Any, job: Job) -> Any:
    from nncc.dynamic.stages import generalize_open

    return generalize_open(opened, job)


def _schedule_open(opened: Any, job: Job) -> Any:
    from nncc.dynamic.stages import schedule_open

    return schedule_open(opened, job)


def _flatten_open(opened: Any, job: Job) -> Any:
    from nncc.dynamic.stages import flatten_open

    return _compressed(flatten_open(opened, job), job)


OPEN_STAGES = (
    Stage("import", _import_open),  # and all up to `lower`, at some sizes
    Stage("generalize", _generalize),  # one form for all sizes
    Stage("schedule", _schedule_open),
    Stage("flatten", _flatten_open),  # with the static pipelines of the buckets
    Stage("build", _build),
)
"""Those of a model with open dimensions."""


def stages(config: Config) -> tuple[Stage, ...]:
    """The stages that a compilation with these options has."""
    return tuple(stage for stage in (OPEN_STAGES if config.range else STAGES) if stage.wanted(config))


def plan(path: str | Path, config: Config, progress: Callable[[int, int, str], None] | None = None) -> Job:
    """Resolve names and folders, and refuse what cannot end well before any work is done."""
    from nncc.backends import backend

    lock = read_lock(config.lock, config.target) if config.lock is not None and config.lock.exists() else None
    target = lock.target if lock is not None else target_for(config)
    if lock is not None and config.threads not in (None, target.hardware.cores):
        raise UsageError(f"the lock `{config.lock}` is for {target.hardware.cores} threads, not for {config.threads}")
    names = [stage.name for stage in (OPEN_STAGES if config.range else STAGES)]
    if config.until is not None and config.until not in names:
        raise UsageError(f"unknown stage `{config.until}`", f"the stages are {', '.join(names)}")
    if config.until is not None and config.until not in [stage.name for stage in stages(config)]:
        raise UsageError(f"the stage `{config.until}` does not run unless it is asked for", f"with `--{config.until}`")
    if config.range:
        _check_open(config, target)
    elif config.buckets:
        raise UsageError("`--buckets` are sizes of open dimensions", "say which: `--range N=1..16`")
    if config.recipe is not None and config.quantize is None:
        raise UsageError("`--recipe` says how to quantize, but not with which samples", "give some with `--quantize`")
    if config.compress_weights not in ("auto", "off"):
        raise UsageError(f"`--compress-weights {config.compress_weights}` is neither auto nor off")
    path = Path(path)
    name = config.name or path.name.removesuffix(".onnx") or "model"
    if name in (".", "..") or any(letter in name for letter in "/\\\0\n"):
        raise UsageError(f"the name {name!r} cannot be a file's", "choose another with `--name`")
    output = Path(config.output) if config.output is not None else Path(f"{name}-{target.name}")
    if config.until in (None, "build"):
        forms = backend(target).DUMPS
        if unknown := [form for form in config.dump_code if form not in forms]:
            raise UsageError(f"`{target.name}` has no code of the form `{unknown[0]}`", f"it has {', '.join(forms)}")
        backend(target).check(target)
        _check_writable(output)
    if lock is not None:
        known = Known(lock.decisions, f"lock {config.lock}")
    else:
        known = known_from(config.records, config.shipped_records, target)
    job = Job(path, config, target, name, output, known=known, lock=lock)
    return job if progress is None else replace(job, progress=progress)


def _check_open(config: Config, target: Target) -> None:
    """Refuse what cannot be done with open dimensions."""
    if target.hardware.multiprocessors or target.hardware.drives_accelerator:
        raise UsageError(
            f"`--range`: libraries for `{target.name}` take fixed sizes only", "fix them: `--shape NAME=1x3x224x224`"
        )
    if config.quantize is not None:
        raise UsageError("`--quantize` needs fixed sizes", "quantize the model first, with `nncc quantize`")


def target_for(config: Config) -> Target:
    """The target that was asked for, with as many cores as threads were."""
    target = resolve(config.target)
    if config.threads is None:
        return target
    if config.threads < 1:
        raise UsageError(f"--threads must be at least 1, not {config.threads}")
    return replace(target, hardware=replace(target.hardware, cores=config.threads))


def _check_writable(output: Path) -> None:
    """OutputError now, rather than after minutes of compilation."""
    folder = next(path for path in (output.absolute(), *output.absolute().parents) if os.path.lexists(path))
    if not folder.is_dir():
        where = f"`{folder}` is a file" if folder != output.absolute() else "it is a file"
        raise OutputError(f"cannot write to `{output}`: {where}", "choose a folder with `-o`")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write to `{output}`: no permission", "choose another folder with `-o`")


def run(job: Job, instruments: Iterable[Instrument] = (), after: str = "", value: Any = None) -> Any:
    """Run the stages up to ``job.config.until``: the last value, an Artifact unless stopped before.

    With `after`, go on behind the stage of this name, which has made `value`.
    """
    watchers = list(instruments)
    value = value if after else job.path
    todo = stages(job.config)
    done = [stage.name for stage in todo].index(after) + 1 if after else 0
    for stage in todo[done:]:
        for watcher in watchers:
            watcher.before(stage, job)
        start = time.perf_counter()
        given, value = value, stage.run(value, job)
        seconds = time.perf_counter() - start
        for watcher in watchers:
            watcher.after(stage, job, given, value, seconds)
        if stage.name == job.config.until:
            break
    return value
