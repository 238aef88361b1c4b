"""Watchers of the stages: their times, their values on disk, and ONNX Runtime as the referee."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.config import Config
from nncc.dynamic.stages import Opened
from nncc.errors import InternalError, NnccError, OutputError, RunError
from nncc.ir import Acceleration, Artifact, Decision, Kernels, Model, Network, Program, Quantization
from nncc.pipeline import Instrument, Job, Stage, stages
from nncc.tuning.lock import write_lock

if TYPE_CHECKING:
    import numpy as np

    from nncc.quant.closed_loop import Outcome
    from nncc.verify import Comparison

__all__ = ["Decided", "Locking", "SaveStages", "Timing", "Verify", "stage_text", "wanted", "write_stage"]


def wanted(config: Config) -> list[Instrument]:
    """The instruments that the options ask for: saving the stages, verifying."""
    instruments: list[Instrument] = []
    if config.save_stages is not None:
        instruments.append(SaveStages(Path(config.save_stages)))
    if config.lock is not None:
        instruments.append(Locking())
    if config.verify:
        instruments.append(Verify())
    return instruments


@dataclass
class Decided(Instrument):
    """What was decided for the graph and for each kernel that had a choice."""

    decisions: tuple[Decision, ...] = ()
    elsewhere: dict[str, str] = field(default_factory=dict)
    """By task without a record, the other processor that there is one for."""
    quantization: Quantization | None = None
    """What runs on integers, where something is quantized."""
    acceleration: Acceleration | None = None
    """What runs on the target's accelerator, where it has one."""
    outcome: Outcome | None = None
    """How the model was quantized, where it was so here."""

    def after(self, stage: Stage, job: Job, given: Any, value: Any, seconds: float) -> None:
        if stage.name == "quantize":
            self.outcome = value.outcome
        if stage.name == "schedule":
            self.decisions, self.quantization = value.decisions, value.quantization
            self.acceleration = value.acceleration
            self.elsewhere = job.known.elsewhere([each.task for each in value.decisions if not each.tuned])


class Locking(Instrument):
    """Writes the lock that was asked for once the library is there, or sees to it that one is followed."""

    def __init__(self) -> None:
        self._decisions: tuple[Decision, ...] = ()

    def after(self, stage: Stage, job: Job, given: Any, value: Any, seconds: float) -> None:
        if stage.name == "schedule":
            self._decisions = value.decisions
            if job.lock is not None:
                job.lock.check(value.decisions)
        if stage.name == "build" and job.lock is None and job.config.lock is not None:
            write_lock(job.config.lock, job.target, self._decisions)


@dataclass
class Timing(Instrument):
    """How long each stage took."""

    seconds: dict[str, float] = field(default_factory=dict)

    def after(self, stage: Stage, job: Job, given: Any, value: Any, seconds: float) -> None:
        self.seconds[stage.name] = seconds


def write_stage(value: Any, stem: Path) -> Path:
    """Write a stage's value to `stem` with a suffix: ``.onnx``, or ``.txt`` (TVMScript, or the program's page)."""
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(value, Model):
            from nncc.frontend.proto import save

            path = stem.with_name(stem.name + ".onnx")
            save(value, path)
            return path
        path = stem.with_name(stem.name + ".txt")
        path.write_text(stage_text(value), encoding="utf-8")
        return path
    except OSError as error:
        raise OutputError(
            f"cannot write to `{stem.parent}`: {error.strerror or error}", "choose another folder"
        ) from error


def stage_text(value: Any) -> str:
    """A stage's value for people: one line an operator, TVMScript, or the program's page."""
    if isinstance(value, Model):
        from nncc.text import graph_text

        return graph_text(value)
    if isinstance(value, Network | Kernels):
        parts = [value.module.script(show_meta=False) + "\n"]
        for name, region in value.regions.items():
            words = ("then", "else") if region.kind == "branch" else ("body",)
            parts += [f"# {name}, {w}\n{stage_text(body)}" for w, body in zip(words, region.bodies, strict=True)]
        return "".join(parts)
    if isinstance(value, Program):
        return value.text()
    if isinstance(value, Artifact):
        return f"{value.library}\n"
    if isinstance(value, Opened):
        return value.text()
    raise InternalError(f"a value of type {type(value).__name__} has no text")


@dataclass
class SaveStages(Instrument):
    """Writes each stage's value to `folder`: ``0-import.onnx``, ``1-simplify.onnx``, ``2-specialize.txt`` ..."""

    folder: Path

    def after(self, stage: Stage, job: Job, given: Any, value: Any, seconds: float) -> None:
        if not isinstance(value, Artifact):
            number = [each.name for each in stages(job.config)].index(stage.name)
            write_stage(value, self.folder / f"{number}-{stage.name}")


@dataclass
class Verify(Instrument):
    """ONNX Runtime on the imported (or the quantized) model is right: simplified models and the library must agree.

    Inputs are random, the same for the same `seed`. A disagreement is an InternalError that names the outputs; the
    files stay, for whoever looks into it. What could not be checked, and why, is in `skipped`.
    """

    seed: int = 0
    results: dict[str, list[Comparison]] = field(default_factory=dict)
    """By stage."""
    skipped: str = ""
    emulated_by: str = ""
    seconds: float = 0.0
    """What the checks took, all together."""
    announce: Callable[[str, str], None] = lambda name, what: None
    """Told what is being checked, since it may take a while."""
    _model: Model | None = None
    """The last model of the portable stages, whose rounding errors are granted: products of integers show theirs only
    once they are those of dequantized numbers."""
    _inputs: dict[str, np.ndarray] = field(default_factory=dict)
    _expected: dict[str, np.ndarray] | None = None
    _opened: Opened | None = None

    def after(self, stage: Stage, job: Job, given: Any, value: Any, seconds: float) -> None:
        start = time.perf_counter()
        if stage.name == "quantize":
            self._expected = None  # another function, by intention: what comes after has to agree with it
            return
        if isinstance(given, Model) and isinstance(value, Model):
            self.announce("check", f"{stage.name}, against ONNX Runtime")
            self._check_model(stage, given, value)
        elif isinstance(value, Opened):
            self._opened = value
        elif isinstance(value, Artifact) and self._opened is not None:
            self._check_sizes(stage, job, value, self._opened)
        elif isinstance(value, Artifact):
            self._check_library(stage, job, value)
        self.seconds += time.perf_counter() - start

    def _check_model(self, stage: Stage, given: Model, value: Model) -> None:
        from nncc.verify import random_operator, reference, sample_inputs

        if self._expected is None and not self.skipped and (name := random_operator(given)):
            self.skipped = f"the model has random numbers, of `{name}`, and ONNX Runtime makes others"
        if self._expected is None and not self.skipped:
            self._inputs = sample_inputs(given, self.seed)
            try:
                self._expected = reference(given, self._inputs)
            except RunError as error:
                self.skipped = error.message
        if self._expected is None:
            return
        try:
            found = reference(value, self._inputs)
        except RunError as error:
            raise InternalError(f"{stage.name}: made a model that does not run: {error.message}", _REPORT) from error
        self._model = value
        self._compare(stage, found, "the model computes something else after it")

    def _check_library(self, stage: Stage, job: Job, artifact: Artifact) -> None:
        from nncc.emulation import build_runner, emulator
        from nncc.execute import open_library

        if self._expected is None:
            self.skipped = self.skipped or "nothing to compare with"
            return
        if "so" not in job.config.emit:
            self.skipped = f"no shared library was made, only {', '.join(job.config.emit)}"
            return
        device = ""
        try:
            words = emulator(job.target)
            if job.target.hardware.drives_accelerator:
                from nncc.vta.devices import SIMULATOR, simulated

                device, self.emulated_by = SIMULATOR, "the simulator"
                self.announce("check", "the library, on the simulated accelerator")
                simulated(artifact.description)
            elif words:
                self.emulated_by = Path(words[0]).name
                self.announce("check", f"the library, by {self.emulated_by}")
                build_runner(job.target)
            else:
                self.announce("check", "the library, against ONNX Runtime")
        except NnccError as error:  # this machine cannot run it: its owner can
            self.skipped = f"{error.message} ({error.hint})" if error.hint else error.message
            return
        try:
            opened = open_library(artifact.library, job.target.hardware.cores, job.target, device)
            found = opened.run(self._inputs)
        except RunError as error:
            raise InternalError(f"{stage.name}: `{artifact.library}` does not run: {error.message}", _REPORT) from error
        problem = f"`{artifact.library}` computes something else than ONNX Runtime"
        self._compare(stage, found, problem, job.config.precision)

    def _check_sizes(self, stage: Stage, job: Job, artifact: Artifact, opened: Opened) -> None:
        """Check the library at some sizes of its open dimensions, each as a model of its own."""
        from nncc.dynamic.shapes import checked_points
        from nncc.frontend.onnx import import_onnx
        from nncc.verify import reference, sample_inputs

        for point in checked_points(opened.inputs.dims, job.config.buckets, job.config.general, self.seed):
            where = ", ".join(f"{name} = {size}" for name, size in point.items())
            self._model = import_onnx(job.path, shape=opened.inputs.at(point), bind=job.config.bind, name=job.name)
            self._inputs = sample_inputs(self._model, self.seed)
            try:
                self._expected = reference(self._model, self._inputs)
            except RunError as error:
                self.skipped = error.message
                return
            self._check_library(replace(stage, name=f"{stage.name} at {where}"), job, artifact)
            if self.skipped:
                return

    def _compare(self, stage: Stage, found: dict[str, np.ndarray], problem: str, precision: str = "float32") -> None:
        from nncc.verify import judge

        if self._model is None or self._expected is None:
            return
        comparisons = judge(self._model, self._inputs, self._expected, found, precision)
        self.results[stage.name] = comparisons
        wrong = [f"  {comparison}" for comparison in comparisons if not comparison.ok]
        if wrong:
            raise InternalError("\n".join([f"{stage.name}: {problem}:", *wrong]), _REPORT)


_REPORT = "please report this, with the model; `--no-verify` compiles without the check"
