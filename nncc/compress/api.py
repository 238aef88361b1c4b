"""`nncc.prune`: an ONNX file and samples become a smaller ONNX file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from nncc.compress.goals import Goal
    from nncc.compress.material import Choices
    from nncc.compress.prune import Outcome
    from nncc.compress.structures import Structure
    from nncc.quant.images import Preprocessing
    from nncc.quant.request import Start, Tell
    from nncc.target import Hardware

__all__ = ["Pruned", "prune"]


@dataclass(frozen=True)
class Pruned:
    """The file that was written, and what is known of it."""

    path: Path
    structure: str
    """What went as one, as it was asked for."""
    outcome: Outcome
    bytes_before: int
    bytes_after: int
    hardware: Hardware
    """By which time was predicted."""
    measured: bool
    """Whether its peak was measured here, rather than taken from the description of the target."""


def prune(
    model: str | Path,
    calibration: str | Path | Sequence[Mapping[str, np.ndarray]],
    output: str | Path | None = None,
    *,
    sparsity: str | float | None = None,
    size: str | float | None = None,
    latency: str | float | None = None,
    metric: str | Callable[[Path], float] | None = None,
    max_drop: str | float | None = None,
    structure: str = "channels",
    target: str = "native",
    importance: str = "reconstruction",
    refit: bool = True,
    multiple: int | None = None,
    least: int | None = None,
    seed: int = 0,
    shape: Mapping[str, Sequence[int]] | None = None,
    images: Preprocessing | None = None,
    evaluations: int = 20,
    metric_seconds: float = 3600.0,
    start: Start = lambda name, what: None,
    tell: Tell = lambda done, total, what: None,
) -> Pruned:
    """Remove channels of an ONNX model, or put zeros into it, where that costs least, and fit the weights left.

    Parameters
    ----------
    model
        The ``.onnx`` file, in floating point.
    calibration
        Inputs like those of real use: a file or a folder, see `nncc.quant.samples`, or a sequence of mappings from
        names to arrays, one a sample. A quarter of them is held out to judge by.
    output
        The file to write; by default ``<model>.pruned.onnx`` beside the model.
    sparsity, size, latency
        The goal, one of them: the part of the multiplications that goes (``"50%"``; unstructured, of the weights), what
        the weights may take (``"2MB"``; as they are stored without zeros), or the predicted time on `target`
        (``"8ms"``), which `nncc.layer_time` explains.
    metric
        A function from a file's path to a score, higher is better; or a command that prints one last; or ``top1`` or
        ``sqnr``: agreement with the original on the held-out samples, one of which is the default.
    max_drop
        How much lower than the original's the score may be: ``"1%"`` of it, or ``0.01`` in its own unit. With a goal,
        the goal must hold it; alone, as much is pruned as holds it.
    structure
        What goes as one: ``channels``; blocks of weights such as ``block16x4``, 16 outputs by 4 inputs, which become
        zeros that kernels skip; or single weights, ``unstructured``, which makes nothing faster. See
        `nncc.compress.structures`.
    target
        The processor whose vectors the counts of channels fit, and whose time is predicted. What ``native`` can do is
        measured, once, where a time is asked for, or `max_drop` alone.
    importance
        What ranks what goes: ``reconstruction``, ``activation``, ``magnitude``, and others for channels, see
        `nncc.compress.importance.IMPORTANCE`.
    refit
        Fit weights to what is left of their inputs, where that lowers the error of the outputs.
    multiple
        Counts of channels stay multiples of it; by default of the floats in a vector of `target`, or of 4. Kernels of
        int8 like 16. For channels only.
    least
        No group is left with fewer channels. For channels only.
    seed
        Of the samples that are held out, and of the positions that are fitted.
    shape
        Static shapes for inputs with open dimensions, which the written file then has; by default they stay open.
    images
        What becomes of images in `calibration`.
    evaluations
        How often the metric may be asked.
    metric_seconds
        How long a command may take.
    start, tell
        Told what begins, and how far it is.

    Raises
    ------
    NnccError
        UsageError, ModelError, DataError, TargetError, RunError, ToolError (of the metric) or OutputError, with a hint.
    """
    from nncc.compress.goals import goal_of
    from nncc.compress.material import Choices, Gate, gather
    from nncc.compress.prune import prune_graph
    from nncc.compress.structures import structure_of
    from nncc.quant.closed_loop import save_graph
    from nncc.quant.metric import max_drop as read_drop
    from nncc.quant.request import judge_of, output_file, read_model
    from nncc.roofline import with_peak
    from nncc.target import resolve

    model = Path(model)
    way = structure_of(structure)
    _check_words(structure, way, importance, {"multiple": multiple, "least": least})
    goal = goal_of(sparsity, size, latency, max_drop)
    if goal is not None and goal.kind == "latency" and way.slow:
        raise UsageError(
            f"structure `{structure}` saves no time: {way.slow}",
            "give `--size` or `--sparsity`, or choose `--structure channels` or `block16x4`",
        )
    drop = None if max_drop is None else read_drop(max_drop)
    path = output_file(model, output, "pruned", "the model")
    judge = judge_of(metric, metric_seconds)
    processor = resolve(target)
    described = processor.hardware.peak_gflops
    if goal is None or goal.kind == "latency":
        start("roofline", "what this machine can do, once")
        processor = with_peak(processor, required=goal is not None)
    if multiple is None:
        multiple = max(4, processor.hardware.vector_bits // 32) if way.shrinks else 1
    graph, samples = read_model(model, calibration, shape, images, start, "some hundred")
    choices = Choices(importance, refit, multiple, least or 1, seed)
    material = gather(graph, samples, seed, judge if isinstance(judge, str) else "", start, way)
    gate = Gate(judge, drop, evaluations)
    outcome = prune_graph(material, choices, goal, gate, processor, file=model, start=start, tell=tell)
    outcome.graph.metadata_props["nncc.prune"] = _record(choices, goal, max_drop, structure, outcome)
    save_graph(outcome.graph, path)
    hardware = processor.hardware
    sizes = model.stat().st_size, path.stat().st_size
    return Pruned(path, structure, outcome, *sizes, hardware, hardware.peak_gflops != described)


def _check_words(structure: str, way: Structure, importance: str, counts: Mapping[str, int | None]) -> None:
    if importance not in way.ranks:
        raise UsageError(
            f"{way.unit.split()[0]} cannot be ranked by `{importance}`",
            did_you_mean(importance, way.ranks) or f"by {' or '.join(f'`{name}`' for name in way.ranks)}",
        )
    for name, count in counts.items():
        if count is not None and not way.shrinks:
            raise UsageError(f"`--{name}` is of channels, and structure `{structure}` leaves them all", "leave it out")
    multiple, least = counts["multiple"], counts["least"]
    if multiple is not None and multiple < 1:
        raise UsageError(f"counts of channels cannot be multiples of {multiple}", "1 allows any count")
    if least is not None and least < 1:
        raise UsageError(f"no layer can do with {least} channels", "`--least 1` lets all go but one")


def _record(choices: Choices, goal: Goal | None, max_drop: str | float | None, structure: str, outcome: Outcome) -> str:
    """What was done, as JSON for the file's metadata: the same for the same model, samples and choices."""
    from nncc.version import VERSION

    facts: dict[str, Any] = {
        "nncc": VERSION,
        "structure": structure,
        "goal": None if goal is None else {goal.kind: goal.amount},
        "max_drop": None if max_drop is None else str(max_drop),
        "importance": choices.importance,
        "refit": outcome.refitted,
        "multiple": choices.multiple if outcome.structure.shrinks else None,
        "least": choices.least if outcome.structure.shrinks else None,
        "seed": choices.seed,
        "macs": [round(each) for each in outcome.macs],
        "parameters": list(outcome.parameters),
        outcome.structure.unit.split()[0]: {
            group.name: [len(group.units), left]
            for group in outcome.found.prunable()
            if (left := int(outcome.keep[group.units].sum())) < len(group.units)
        },
    }
    return json.dumps(facts)
