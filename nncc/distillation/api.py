"""`nncc.distill`: a student's file, its teacher's and samples without labels become a better student's file."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError, ToolError, UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from nncc.distillation.distill import Outcome
    from nncc.distillation.settings import Settings
    from nncc.quant.images import Preprocessing
    from nncc.quant.request import Start, Tell
    from nncc.quant.samples import InputSpec

__all__ = ["Distilled", "distill"]


@dataclass(frozen=True)
class Distilled:
    """The file that was written, and what is known of it."""

    path: Path
    outcome: Outcome
    settings: Settings


def distill(
    student: str | Path,
    teacher: str | Path,
    data: str | Path | Sequence[Mapping[str, np.ndarray]],
    output: str | Path | None = None,
    *,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    shape: Mapping[str, Sequence[int]] | None = None,
    images: Preprocessing | None = None,
    start: Start = lambda name, what: None,
    tell: Tell = lambda done, total, what: None,
    **choices: Any,
) -> Distilled:
    """Train the weights of an ONNX model until it answers as its teacher does, on data without labels.

    Parameters
    ----------
    student
        The ``.onnx`` file to improve: pruned, sparse, or quantized in QDQ form. Only its weights change: floats, and
        integers, which stay integers of the same scales.
    teacher
        The ``.onnx`` file that it was made of, or another one of the same inputs and outputs.
    data
        Inputs like those of real use, thousands if there are: a file or a folder, see `nncc.quant.samples`, or a
        sequence of mappings from names to arrays, one a sample. A tenth of them is held out to judge by.
    output
        The file to write; by default ``<student>.distilled.onnx`` beside the student.
    checkpoint
        A file that keeps the state of training, written after each evaluation.
    resume
        Go on from `checkpoint`; student, teacher, data and settings must be the same.
    shape
        Static shapes for inputs with open dimensions, which the written file then has; by default they stay open.
    images
        What becomes of images in `data`.
    start, tell
        Told what begins, and how far it is.
    choices
        Fields of `nncc.distillation.settings.Settings`.

    Raises
    ------
    NnccError
        UsageError, ModelError, DataError, RunError, ToolError (torch is missing) or OutputError, with a hint.
    """
    from nncc.frontend.read_graph import read_graph
    from nncc.frontend.shapes import fix_shapes
    from nncc.quant.closed_loop import save_graph
    from nncc.quant.request import output_file, read_model
    from nncc.quant.samples import input_specs

    student, teacher = Path(student), Path(teacher)
    settings = _settings(choices)
    if resume and checkpoint is None:
        raise UsageError("`--resume` wants to know from where", "give the file with `--checkpoint FILE`")
    if importlib.util.find_spec("torch") is None:
        raise ToolError("training needs torch, which is not installed", "`pip install 'nncc[distill]'`")
    path = output_file(student, output, "distilled", "the student")
    if path.exists() and teacher.exists() and path.samefile(teacher):
        raise UsageError(f"`-o {path}` is the teacher itself", "choose another file")
    if checkpoint is not None:
        _check_checkpoint(Path(checkpoint), (student, teacher, path))
    graph, samples = read_model(student, data, shape, images, start, "some thousand")
    start("read", str(teacher))
    original = read_graph(teacher)
    if shape:
        fix_shapes(original, shape)
    _compare(input_specs(graph), input_specs(original))

    from nncc.distillation.distill import distill_graph

    outcome = distill_graph(
        graph, original, samples, settings, None if checkpoint is None else Path(checkpoint), resume, start, tell
    )
    outcome.graph.metadata_props["nncc.distill"] = _record(settings, outcome)
    save_graph(outcome.graph, path)
    return Distilled(path, outcome, settings)


def _settings(choices: Mapping[str, Any]) -> Settings:
    """Settings of these fields, the others by default. Raises UsageError."""
    from nncc.distillation.settings import Settings

    known = [field.name for field in fields(Settings)]
    for name in choices:
        if name not in known:
            raise UsageError(f"distillation has no setting `{name}`", did_you_mean(name, known) or None)
    augment = choices.get("augment", ())
    settings = Settings(**{**choices, "augment": (augment,) if isinstance(augment, str) else tuple(augment)})
    for name in ("epochs", "batch", "learning_rate", "time_budget", "temperature", "patience"):
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise UsageError(f"`{name}` is {value}; it must be more than 0")
    for name in ("logits_weight", "feature_weight", "held_out", "threads"):
        value = getattr(settings, name)
        if value is not None and not value >= 0:
            raise UsageError(f"`{name}` is {value}; it cannot be negative")
    return settings


def _check_checkpoint(checkpoint: Path, models: Sequence[Path]) -> None:
    """Refuse early what cannot be written late, and models that it would replace."""
    from nncc.quant.request import check_folder

    if checkpoint.is_dir():
        raise UsageError(
            f"`--checkpoint {checkpoint}` is a folder", f"give a file, for example `{checkpoint / 'state'}`"
        )
    check_folder(checkpoint)
    for model in models:
        if checkpoint.absolute() == model.absolute() or (
            checkpoint.exists() and model.exists() and checkpoint.samefile(model)
        ):
            raise UsageError(f"`--checkpoint {checkpoint}` is a model, `{model}`", "choose another file")


def _compare(ours: Sequence[InputSpec], theirs: Sequence[InputSpec]) -> None:
    """Raise ModelError where a sample of one model is none of the other."""
    words = [
        ", ".join(f"`{spec.name}` ({spec.dtype} {'x'.join(map(str, spec.shape))})" for spec in each) or "none"
        for each in (ours, theirs)
    ]
    other = {spec.name: spec for spec in theirs}
    if sorted(spec.name for spec in ours) != sorted(other) or not all(_fit(s, other[s.name]) for s in ours):
        raise ModelError(
            f"the student has the inputs {words[0]}, the teacher {words[1]}",
            "a student takes what its teacher takes: give the model that it was made of",
        )


def _fit(one: InputSpec, other: InputSpec) -> bool:
    """Whether an array may be both; its first axis, that of samples, is not looked at."""
    sizes = zip(one.shape[1:], other.shape[1:], strict=False)
    known = (pair for pair in sizes if not any(isinstance(size, str) for size in pair))
    ranks = {len(spec.shape) for spec in (one, other) if spec.shape}
    return one.dtype == other.dtype and len(ranks) < 2 and all(a == b for a, b in known)


def _record(settings: Settings, outcome: Outcome) -> str:
    """What was done, as JSON for the file's metadata."""
    from nncc.version import VERSION

    facts: dict[str, Any] = {
        "nncc": VERSION,
        **asdict(settings),
        "learning_rate": outcome.learning_rate,
        "loss": list(outcome.terms),
        "epochs": outcome.trained.epochs,
        "steps": outcome.trained.steps,
        "samples": [outcome.seen, outcome.held_out],
        "held_out_loss": [outcome.trained.first_loss, outcome.trained.best_loss],
        "agreement": {kind: list(pair) for kind, pair in outcome.agreement.items()},
        "zeros_kept": outcome.zeros_kept,
    }
    for name in ("threads", "patience"):
        del facts[name]
    return json.dumps(facts)
