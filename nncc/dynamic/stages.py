"""The stages of a compilation with open dimensions: what the static ones make at some sizes, as one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.dynamic.shapes import OpenInputs, bucket_points, open_inputs, sample_points
from nncc.errors import ModelError, UsageError
from nncc.ir import Decision, Model, Program, Quantization, TensorSpec

if TYPE_CHECKING:
    from nncc.dynamic.general import General, Sample
    from nncc.pipeline import Job

__all__ = ["Opened", "flatten_open", "generalize_open", "import_open", "schedule_open"]

_MOST_SAMPLES = 24
"""Where expressions stay unclear after so many, the likeliest are taken; what is checked afterwards may refuse them."""


@dataclass(frozen=True)
class Opened:
    """A model with open dimensions: samples of it, and what they have become."""

    inputs: OpenInputs
    samples: tuple[Sample, ...] = ()
    general: General | None = None

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Those of the general form."""
        return self.general.kernels.decisions if self.general is not None else ()

    @property
    def quantization(self) -> Quantization | None:
        """That of the general form."""
        return self.general.kernels.quantization if self.general is not None else None

    def text(self) -> str:
        """The kernels of the general form, or the sizes of the samples."""
        if self.general is not None:
            return self.general.kernels.module.script(show_meta=False) + "\n"
        return "".join(f"{'x'.join(map(str, sample.point.values()))}\n" for sample in self.samples)


def import_open(path: Path, job: Job) -> Opened:
    """Find the open dimensions, and lower the model at some sizes of them."""
    from nncc.frontend.onnx import read_graph

    inputs = open_inputs(read_graph(path), job.config.shape, job.config.range)
    bucket_points(inputs.dims, job.config.buckets)
    if not job.config.general:
        return Opened(inputs)
    points = sample_points(inputs.dims)
    models = [_until(job, inputs, point, "simplify") for point in points]
    samples = tuple(
        _sample(job, inputs, point, model, _open_sizes(model, models))
        for point, model in zip(points, models, strict=True)
    )
    return Opened(inputs, samples)


def _until(job: Job, inputs: OpenInputs, point: Mapping[str, int], stage: str) -> Any:
    """What the static pipeline makes at these sizes."""
    from nncc.pipeline import run

    return run(_at(job, inputs, point, stage))


def _at(job: Job, inputs: OpenInputs, point: Mapping[str, int], stage: str) -> Job:
    static = {"shape": inputs.at(point), "range": {}, "buckets": {}, "until": stage, "verify": False}
    return replace(job, config=replace(job.config, **static))


def _sample(job: Job, inputs: OpenInputs, point: Mapping[str, int], model: Model, open_sizes: frozenset[int]) -> Sample:
    from nncc.dynamic.general import Sample
    from nncc.pipeline import run

    at = replace(_at(job, inputs, point, "lower"), open_sizes=open_sizes)
    return Sample(point, run(at, after="simplify", value=model))


def _open_sizes(model: Model, others: Sequence[Model]) -> frozenset[int]:
    """The sizes in a model that are others at other sizes of the open dimensions."""
    found: set[int] = set()
    own = _shapes(model)
    for other in others:
        theirs = _shapes(other)
        for name, shape in own.items():
            if len(shape) == len(theirs.get(name, ())):
                found |= {a for a, b in zip(shape, theirs[name], strict=True) if a != b}
    return frozenset(found)


def _shapes(model: Model) -> dict[str, tuple[int, ...]]:
    from nncc.passes.rewriting import static_shape

    values = [*model.graph.graph.inputs, *(value for node in model.graph.graph for value in node.outputs)]
    return {str(value.name): shape for value in values if (shape := static_shape(value)) is not None}


def generalize_open(opened: Opened, job: Job) -> Opened:
    """The general form; further samples are made where the first do not tell expressions apart."""
    from nncc.dynamic.general import generalize

    if not opened.samples:
        return opened
    samples, dims = list(opened.samples), opened.inputs.dims
    general = generalize(samples, dims)
    while general.unclear is not None and len(samples) < _MOST_SAMPLES:
        first = _until(job, opened.inputs, samples[0].point, "simplify")
        model = _until(job, opened.inputs, general.unclear, "simplify")
        open_sizes = _open_sizes(model, [first])
        samples.insert(-1, _sample(job, opened.inputs, general.unclear, model, open_sizes))
        job.progress(len(samples), _MOST_SAMPLES, "x".join(map(str, general.unclear.values())))
        general = generalize(samples, dims)
    return replace(opened, samples=tuple(samples), general=general)


def schedule_open(opened: Opened, job: Job) -> Opened:
    """The general form with scheduled kernels."""
    from nncc.codegen.schedule import schedule
    from nncc.templates import load_templates

    if opened.general is None:
        return opened
    kernels = schedule(opened.general.kernels, load_templates(job.config.schedules), job.known, job.progress)
    return replace(opened, general=replace(opened.general, kernels=kernels))


def flatten_open(opened: Opened, job: Job) -> Program:
    """One program: the static pipelines of the buckets, and the general form."""
    from nncc.codegen.flatten import flatten
    from nncc.dynamic.buckets import joined
    from nncc.dynamic.general import flatten_general

    dims = opened.inputs.dims
    general = None
    if opened.general is not None:
        general = flatten_general(opened.general, opened.general.kernels)
    buckets = []
    for point in bucket_points(dims, job.config.buckets):
        buckets.append((point, flatten(_until(job, opened.inputs, point, "schedule"))))
    if general is None and not buckets:
        raise UsageError("without a general form, the library needs sizes to be for", "give some with `--buckets`")
    if general is not None:
        return joined(dims, general.inputs, general.outputs, general, buckets)
    inputs, outputs = (_of_buckets([getattr(p, what) for _, p in buckets], buckets) for what in ("inputs", "outputs"))
    return joined(dims, inputs, outputs, None, buckets)


def _of_buckets(
    specs: Sequence[Sequence[TensorSpec]], buckets: Sequence[tuple[Mapping[str, int], Program]]
) -> list[TensorSpec]:
    """Inputs or outputs in terms of the open dimensions, where only some sizes are known."""
    from nncc.dynamic.fit import fits

    points = [point for point, _ in buckets]
    found = []
    for same in zip(*specs, strict=True):
        extents = []
        for sizes in zip(*(spec.shape for spec in same), strict=True):
            candidates = fits(points, sizes)
            if not candidates:
                raise ModelError(
                    f"the shape of `{same[0].name}` depends on the open dimensions in no simple way",
                    "compile a library for each size",
                )
            extents.append(candidates[0])
        largest = tuple(max(sizes) for sizes in zip(*(spec.shape for spec in same), strict=True))
        is_open = any(extent.terms for extent in extents)
        found.append(replace(same[0], shape=largest, extents=tuple(extents) if is_open else ()))
    return found
