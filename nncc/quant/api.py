"""`nncc.quantize`: a float ONNX file and samples become a QDQ file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import UsageError, did_you_mean
from nncc.ir import Model
from nncc.quant.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np

    from nncc.quant.closed_loop import Outcome
    from nncc.quant.images import Preprocessing
    from nncc.quant.request import Start, Tell

__all__ = ["Quantized", "QuantizedModel", "quantize", "quantize_model"]


@dataclass(frozen=True)
class QuantizedModel(Model):
    """What the stage `quantize` makes of a float model."""

    outcome: Outcome
    """How: which layers, by which recipe, and how well the result agrees with the float model."""


@dataclass(frozen=True)
class Quantized:
    """The files that were written, and what is known of them."""

    path: Path
    """The QDQ model."""
    recipe_path: Path
    """How it was made: edit it, and give it as `recipe`."""
    outcome: Outcome
    float_bytes: int
    int8_bytes: int


def quantize(
    model: str | Path,
    calibration: str | Path | Sequence[Mapping[str, np.ndarray]] | None,
    output: str | Path | None = None,
    *,
    metric: str | Callable[[Path], float] | None = None,
    max_drop: str | float | None = None,
    target: str = "native",
    recipe: str | Path | Recipe | None = None,
    shape: Mapping[str, Sequence[int]] | None = None,
    images: Preprocessing | None = None,
    rank_by: str = "output",
    sensitivity: bool = False,
    evaluations: int = 30,
    metric_seconds: float = 3600.0,
    start: Start = lambda name, what: None,
    tell: Tell = lambda done, total, what: None,
    **choices: Any,
) -> Quantized:
    """Quantize a float ONNX file to a standard QDQ file, and write how it was done beside it.

    Parameters
    ----------
    model
        The float ``.onnx`` file.
    calibration
        Inputs like those of real use: a file or a folder, see `nncc.quant.samples`, or a sequence of mappings from
        names to arrays, one a sample. A quarter of them is held out to judge by. Precisions other than ``int8`` need
        none: with None, random inputs tell how near the result is.
    output
        The file to write; by default ``<model>.int8.onnx`` beside the model. ``<model>.quantize.toml`` goes with it.
    metric
        A function from a file's path to a score, higher is better; or a command that prints one last; or ``top1`` or
        ``sqnr``: agreement with the float model on the held-out samples, one of which is the default.
    max_drop
        How much lower than the float model's the score may be: ``"0.5%"`` of it, or ``0.005`` in its own unit. Layers
        stay float until it holds. By default none does.
    target
        The processor whose time the layers that stay float should cost least.
    recipe
        A file that an earlier call wrote, or a Recipe; by default Recipe's defaults.
    shape
        Static shapes for inputs with open dimensions, which the written file then has; by default they stay open.
    images
        What becomes of images in `calibration`.
    rank_by
        ``output``: layers are ranked by the error of the model's outputs; ``metric``: by the metric, once for each.
    sensitivity
        Measure what each layer loses by itself (`Outcome.lost`) even where no layer has to stay float.
    evaluations
        How often the metric may be asked while layers are chosen.
    metric_seconds
        How long a command may take.
    start, tell
        Told what begins, and how far it is.
    choices
        Fields of `nncc.quant.recipe.Recipe`, which go before those of `recipe`. With ``observer="auto"`` the one with
        the least error of the outputs is taken.

    Raises
    ------
    NnccError
        UsageError, ModelError, DataError, RunError, ToolError (of the metric) or OutputError, each with a hint.
    """
    from nncc.quant.closed_loop import Gate, closed_loop, gather, save_graph
    from nncc.quant.metric import max_drop as read_drop
    from nncc.quant.recipe_file import recipe_text, write_recipe
    from nncc.quant.request import judge_of, read_model
    from nncc.target import resolve

    model = Path(model)
    auto = choices.get("observer") == "auto"
    chosen = chosen_recipe(recipe, choices)
    path, recipe_path = _outputs(model, output)
    drop = None if max_drop is None else read_drop(max_drop)
    judge = judge_of(metric, metric_seconds)
    if rank_by not in ("output", "metric"):
        raise UsageError(f"layers cannot be ranked by `{rank_by}`", "by `output` or by `metric`")
    hardware = resolve(target).hardware
    if calibration is None and "int8" in (chosen.precision, *chosen.nodes.values()):
        raise UsageError(
            "int8 needs samples of real inputs: activations have ranges by these",
            "give some with `--calibration`, or choose a `--precision` that needs none: dynamic, weight_int8, "
            "weight_int4",
        )
    graph, samples = read_model(model, calibration, shape, images, start, "a hundred")
    material = gather(graph, samples, chosen, judge if isinstance(judge, str) else "", start)
    gate = Gate(judge, drop, rank_by == "metric", evaluations, sensitivity)
    outcome = closed_loop(
        material, chosen, gate, hardware, float_file=model, choose_observer=auto, start=start, tell=tell
    )
    if calibration is None:
        outcome = replace(outcome, calibrated=0)
    save_graph(outcome.graph, path)
    head = _head(model, path, outcome)
    write_recipe(recipe_path, recipe_text(outcome.recipe, head, outcome.reasons))
    return Quantized(path, recipe_path, outcome, model.stat().st_size, path.stat().st_size)


def quantize_model(
    model: Model, calibration: Path, recipe: Path | None, tell: Tell = lambda done, total, what: None
) -> QuantizedModel:
    """The stage of a compilation: the same QDQ graph that `quantize` would write without a gate."""
    from nncc.quant.closed_loop import Gate, closed_loop, gather
    from nncc.quant.samples import input_specs, read_samples

    chosen = chosen_recipe(recipe, {})
    samples = read_samples(calibration, input_specs(model.graph))
    material = gather(model.graph, samples, chosen)
    found = closed_loop(material, chosen, Gate(), None, tell=tell)
    return QuantizedModel(
        **{f.name: getattr(model, f.name) for f in fields(model)} | {"graph": found.graph}, outcome=found
    )


def chosen_recipe(recipe: str | Path | Recipe | None, choices: Mapping[str, Any]) -> Recipe:
    """The recipe that was given, with `choices` before its own. UsageError for a field that there is not."""
    from nncc.quant.recipe_file import read_recipe

    known = [field.name for field in fields(Recipe)]
    if unknown := [name for name in choices if name not in known]:
        raise UsageError(
            f"a recipe has no `{unknown[0]}`", did_you_mean(unknown[0], known) or f"it has {', '.join(known)}"
        )
    base = recipe if isinstance(recipe, Recipe) else Recipe() if recipe is None else read_recipe(recipe)
    return replace(base, **{name: value for name, value in choices.items() if (name, value) != ("observer", "auto")})


def _outputs(model: Path, output: str | Path | None) -> tuple[Path, Path]:
    from nncc.quant.request import output_file

    path = output_file(model, output, "int8", "the float model")
    return path, path.with_name(f"{path.name.removesuffix('.onnx').removesuffix('.int8')}.quantize.toml")


def _head(model: Path, path: Path, outcome: Outcome) -> list[str]:
    from nncc.version import VERSION

    agreed = ", ".join(f"{kind} {value:.6g}" for kind, value in outcome.agreement.items())
    lines = [
        f"How nncc {VERSION} made {path.name} of {model.name}: edit it, and give it to `nncc quantize --recipe`.",
        f"{outcome.calibrated} samples for the statistics, {outcome.held_out} to judge by: agreement {agreed}",
    ]
    if outcome.scores is not None:
        lines.append(f"metric: {outcome.scores[0]:.6g} in float, {outcome.scores[1]:.6g} so")
    return lines
