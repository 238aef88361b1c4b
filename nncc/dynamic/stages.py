"""The stages of a compilation with open dimensions: what the static ones make at some sizes, as one program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.dynamic.shapes import OpenInputs, bucket_points, open_inputs, sample_points
from nncc.errors import ModelError, UsageError
from nncc.ir import Acceleration, Decision, Dim, Kernels, Model, Program, Quantization, TensorSpec

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
    shapes: tuple[Mapping[str, tuple[int, ...]], ...] = ()
    """Of all values of the simplified model, in each of the first samples."""
    general: General | None = None
    scheduled: Kernels | None = None
    """The kernels of the general form with their loops."""
    buckets: tuple[tuple[Mapping[str, int], Kernels], ...] = ()
    """By sizes, those of the static pipelines."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """Those of all forms, each task once."""
        return tuple({each.task: each for kernels in self._forms for each in kernels.decisions}.values())

    @property
    def quantization(self) -> Quantization | None:
        """That of the general form, or else of the first bucket."""
        return self._forms[0].quantization if self._forms else None

    @property
    def acceleration(self) -> Acceleration | None:
        """None: libraries for accelerators take fixed sizes only."""
        return None

    @property
    def _forms(self) -> list[Kernels]:
        general = [self.scheduled] if self.scheduled is not None else []
        return [*general, *(kernels for _, kernels in self.buckets)]

    def text(self) -> str:
        """The kernels of the general form, or the sizes of the samples."""
        kernels = self.scheduled or (self.general.kernels if self.general is not None else None)
        if kernels is not None:
            return kernels.module.script(show_meta=False) + "\n"
        return "".join(f"{'x'.join(map(str, sample.point.values()))}\n" for sample in self.samples)


def import_open(path: Path, job: Job) -> Opened:
    """Find the open dimensions, and lower the model at some sizes of them."""
    from nncc.frontend.binding import bind_inputs
    from nncc.frontend.read_graph import read_graph

    graph = read_graph(path)
    bind_inputs(graph, job.config.bind)
    inputs = open_inputs(graph, job.config.shape, job.config.range)
    bucket_points(inputs.dims, job.config.buckets)
    points = sample_points(inputs.dims)
    if not job.config.general:
        _refuse_selections(_until(job, inputs, points[0], "import"))
        return Opened(inputs)
    models = [_until(job, inputs, point, "simplify") for point in points]
    _refuse_selections(models[0])
    shapes = tuple(map(_shapes, models))
    samples = tuple(_sample(job, inputs, point, model, shapes) for point, model in zip(points, models, strict=True))
    return Opened(inputs, samples, shapes)


def _refuse_selections(model: Model) -> None:
    """Raise ModelError where the size of an output depends on the data."""
    for spec in model.outputs:
        if spec.extents:
            raise ModelError(
                f"the size of output `{spec.name}` depends on the data, which cannot be compiled with open dimensions",
                "compile a library for each size, with `--shape`",
            )


def _until(job: Job, inputs: OpenInputs, point: Mapping[str, int], stage: str) -> Any:
    """What the static pipeline makes at these sizes."""
    from nncc.pipeline import run

    return run(_at(job, inputs, point, stage))


def _at(job: Job, inputs: OpenInputs, point: Mapping[str, int], stage: str) -> Job:
    config = replace(job.config, shape=inputs.at(point), range={}, buckets={}, until=stage, verify=False)
    return replace(job, config=config)


def _sample(
    job: Job,
    inputs: OpenInputs,
    point: Mapping[str, int],
    model: Model,
    others: Sequence[Mapping[str, tuple[int, ...]]],
) -> Sample:
    """The simplified model lowered; `others` are the shapes that its values have at other sizes."""
    from nncc.dynamic.general import Sample
    from nncc.pipeline import run

    open_sizes: set[int] = set()
    static_sizes: set[int] = set()
    for name, shape in _shapes(model).items():
        same = [other[name] for other in others if len(other.get(name, ())) == len(shape)]
        for axis, size in enumerate(shape):
            (open_sizes if any(other[axis] != size for other in same) else static_sizes).add(size)
    at = replace(_at(job, inputs, point, "lower"), open_sizes=frozenset(open_sizes))
    return Sample(point, run(at, after="simplify", value=model), not open_sizes & static_sizes)


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
    tried: list[Mapping[str, int]] = []
    while len(tried) < _MOST_SAMPLES:
        point = next((each for each in general.unclear if each not in tried), None)
        if point is None:
            break
        tried.append(point)
        job.progress(len(tried), _MOST_SAMPLES, "x".join(map(str, point.values())))
        model = _until(job, opened.inputs, point, "simplify")
        sample = _sample(job, opened.inputs, point, model, opened.shapes)
        if sample.clear:
            samples.insert(-1, sample)
            general = generalize(samples, dims)
    return replace(opened, samples=tuple(samples), general=general)


def schedule_open(opened: Opened, job: Job) -> Opened:
    """Scheduled kernels: those of the buckets, and those of the general form.

    The bucket with the largest sizes decides how weights are laid out; others follow where it costs them little.
    """
    from nncc.codegen.schedule import schedule
    from nncc.dynamic.layouts import Use, laid_out_like, panels_of, uses_of
    from nncc.kernels.templates import load_templates

    templates = load_templates(job.config.schedules)
    panels: dict[bytes, int] = {}

    def scheduled(kernels: Kernels, uses: Sequence[Use]) -> Kernels:
        made = schedule(laid_out_like(kernels, uses, panels), templates, job.known, job.progress)
        panels.update(panels_of(uses, kernels, made) | panels)
        return made

    buckets = []
    for point in reversed(bucket_points(opened.inputs.dims, job.config.buckets)):
        kernels = _until(job, opened.inputs, point, "lower")
        buckets.append((point, scheduled(kernels, list(uses_of(kernels)))))
    opened = replace(opened, buckets=tuple(reversed(buckets)))
    general = opened.general
    if general is None:
        return opened
    uses = [
        Use(call.kernel, at, array)
        for (number, at), array in general.constants.items()
        if number >= 0 and array.size and (call := general.calls[number]).kernel
    ]
    return replace(opened, scheduled=scheduled(general.kernels, uses))


def flatten_open(opened: Opened, job: Job) -> Program:
    """One program: the static pipelines of the buckets, and the general form."""
    from nncc.codegen.flatten import flatten
    from nncc.dynamic.buckets import joined
    from nncc.dynamic.flatten_general import flatten_general
    from nncc.kernels.templates import load_templates

    dims = opened.inputs.dims
    general = None
    if opened.general is not None and opened.scheduled is not None:
        general = flatten_general(opened.general, opened.scheduled, load_templates(job.config.schedules))
    buckets = [(point, flatten(kernels)) for point, kernels in opened.buckets]
    if general is None and not buckets:
        raise UsageError("without a general form, the library needs sizes to be for", "give some with `--buckets`")
    if general is not None:
        return joined(dims, general.inputs, general.outputs, general, buckets)
    points = sample_points(dims)
    models = [_until(job, opened.inputs, point, "import") for point in points]
    inputs = _described([model.inputs for model in models], points, dims)
    outputs = _described([model.outputs for model in models], points, dims)
    return joined(dims, inputs, outputs, None, buckets)


def _described(
    specs: Sequence[Sequence[TensorSpec]], points: Sequence[Mapping[str, int]], dims: Sequence[Dim]
) -> list[TensorSpec]:
    """Inputs or outputs in terms of the open dimensions, as they are at some sizes of these."""
    from nncc.dynamic.fit import fits

    largest = {dim.name: dim.high for dim in dims}
    found = []
    for same in zip(*specs, strict=True):
        candidates = [fits(points, sizes) for sizes in zip(*(spec.shape for spec in same), strict=True)]
        if not all(candidates):
            raise ModelError(
                f"the shape of `{same[0].name}` depends on the open dimensions in no simple way",
                "compile a library for each size, with `--shape`",
            )
        extents = tuple(each[0] for each in candidates)
        is_open = any(extent.terms for extent in extents)
        shape = tuple(extent.at(largest) for extent in extents)
        found.append(replace(same[0], shape=shape, extents=extents if is_open else ()))
    return found
