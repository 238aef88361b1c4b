"""``nncc quantize``: a float model becomes int8, within an accuracy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nncc.cli.options import JSON, SHAPES, TARGET, all_of, documentation, print_json, time_span
from nncc.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir

    from nncc.quant.images import Preprocessing

__all__ = [
    "CALIBRATION", "IMAGE_OPTIONS", "METRIC_TIMEOUT", "next_compile", "preprocessing", "quantize_command",
]  # fmt: skip

_RECIPE = documentation("quant/recipe.py")
_IMAGES = documentation("quant/images.py")
_STEP = click.Choice(["true", "false", "auto"])
_OBSERVERS = ("auto", "minmax", "moving_average", "percentile", "entropy", "mse")
_PRECISIONS = (
    "int8", "dynamic", "weight_int8", "weight_int4", "weight_float16", "weight_bfloat16", "float",
)  # fmt: skip


def _choice(field: str, *names: str, note: str = "", **settings: Any) -> Callable[[Any], Any]:
    """An option for a field of Recipe, with its docstring as help; not given, the recipe decides."""
    return click.option(*names, field, default=None, help=f"{_RECIPE.get(field, '')}{note}", **settings)


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """``0.485,0.456,0.406``, also as fractions: ``127/255``."""
    if value is None:
        return None
    numbers = []
    for word in value.split(","):
        above, _, below = word.partition("/")
        try:
            numbers.append(float(above) / float(below or 1))
        except (ValueError, ZeroDivisionError):
            raise UsageError(
                f"`{parameter.opts[0]} {value}` is no list of numbers", "for example `0.485,0.456,0.406` or `127/255`"
            ) from None
    if parameter.name == "std" and 0.0 in numbers:
        raise UsageError(f"`{parameter.opts[0]} {value}` has a zero, by which pixels would be divided")
    return tuple(numbers)


def _size(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """``224``, or height and width: ``224x320``."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", value.strip())
    if found is None:
        raise UsageError(f"`--image-size {value}` is no size", "for example `224`, or height and width, `224x320`")
    return int(found[1]), int(found[2] or found[1])


_CALIBRATION = (
    "Inputs like those of real use: an .npz, an .npy, or a folder of such or of images. "
    "A quarter of them is held out to judge by."
)
CALIBRATION = click.option("--calibration", type=Path, required=True, metavar="DATA", help=_CALIBRATION)
METRIC_TIMEOUT = click.option(
    "--metric-timeout",
    "metric_seconds",
    default="1h",
    show_default=True,
    callback=time_span,
    metavar="TIME",
    help="How long the command may take.",
)


def _image(field: str, name: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(name, field, help=f"Images: {_IMAGES.get(field, '')}", **settings)


IMAGE_OPTIONS = (
    _image("size", "--image-size", callback=_size, metavar="HxW"),
    _image("mean", "--image-mean", callback=_numbers, metavar="X,Y,Z"),
    _image("std", "--image-std", callback=_numbers, metavar="X,Y,Z"),
    _image("layout", "--image-layout", type=click.Choice(["nchw", "nhwc"])),
    _image("bgr", "--image-bgr", is_flag=True),
)


def preprocessing(options: dict[str, Any]) -> Preprocessing:
    """The options for images, taken out of `options`."""
    from nncc.quant.images import Preprocessing

    given = {name: options.pop(name) for name in ("size", "mean", "std", "layout", "bgr")}
    return Preprocessing(**{name: value for name, value in given.items() if value is not None})


def _nodes(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str] | None:
    """``NAME=PRECISION``, repeatable."""
    found: dict[str, str] = {}
    for value in values:
        name, _, precision = value.rpartition("=")
        if not name:
            raise UsageError(f"`--node {value}` is not NAME=PRECISION", "for example `--node Conv_1=weight_int8`")
        found[name] = precision
    return found or None


def _float_nodes(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...] | None:
    return tuple(values) or None


@click.command("quantize", short_help="Float ONNX to int8 ONNX, within an accuracy.")
@click.argument("model", type=Path)
@click.option(
    "--calibration", type=Path, metavar="DATA", help=f"{_CALIBRATION} Needed for int8, not for other precisions."
)
@click.option(
    "-o", "--output", type=Path, metavar="FILE", help="The QDQ model to write.  [default: <model>.int8.onnx beside it]"
)
@click.option("--recipe", type=Path, metavar="TOML", help="Follow what an earlier call wrote; flags go before it.")
@click.option(
    "--metric",
    metavar="COMMAND",
    help="Prints a score last, higher is better, of the model whose path is appended, or stands where it says "
    "`{model}`. Or top1 or sqnr: agreement with the float model on samples held out.  [default: one of these]",
)
@click.option(
    "--max-drop",
    metavar="DROP",
    help="Leave layers float until the score holds: `0.5%` is half a percent of the float model's score, `0.005` as "
    "much in the metric's own unit.",
)
@METRIC_TIMEOUT
@click.option(
    "--rank-by",
    type=click.Choice(["output", "metric"]),
    default="output",
    show_default=True,
    help="What ranks layers: the error of the model's outputs, or the metric, once for each layer.",
)
@click.option(
    "--evaluations",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    metavar="N",
    help="How often the metric may be asked while layers are chosen.",
)
@TARGET
@all_of(*SHAPES)
@_choice("observer", "--observer", type=click.Choice(_OBSERVERS), note=" auto: the one with the least error.")
@_choice("percentile", "--percentile", type=float, metavar="P")
@_choice("activations", "--activations", type=click.Choice(["uint8", "int8"]))
@_choice("symmetric", "--symmetric/--asymmetric")
@_choice("per_channel", "--per-channel/--per-tensor")
@_choice("weight_observer", "--weight-observer", type=click.Choice(["minmax", "mse"]))
@_choice("equalize", "--equalize", type=_STEP)
@_choice("correct_bias", "--correct-bias", type=_STEP)
@_choice("reconstruct", "--reconstruct", type=_STEP)
@_choice("precision", "--precision", type=click.Choice(_PRECISIONS))
@click.option("--node", "nodes", multiple=True, callback=_nodes, metavar="NAME=PRECISION",
              help=f"{_RECIPE.get('nodes', '')} Repeatable.")  # fmt: skip
@click.option("--float-node", "float_nodes", multiple=True, callback=_float_nodes, metavar="NAME",
              help=f"{_RECIPE.get('float_nodes', '')} Repeatable.")  # fmt: skip
@_choice("group_size", "--group-size", type=int, metavar="N")
@_choice("seed", "--seed", type=int, metavar="N", note=" And which samples are held out.")
@all_of(*IMAGE_OPTIONS)
@click.option(
    "--plot",
    type=Path,
    metavar="FILE",
    help="Draw what the model loses by each layer, the only one in int8, to an .svg or .png: every layer is tried. "
    "With --json, the same numbers are in `lost`.",
)
@JSON
def quantize_command(model: Path, as_json: bool, plot: Path | None, **options: Any) -> None:
    """Quantize MODEL, a float ONNX file, to a standard QDQ file that any ONNX tool reads.

    Without `--max-drop`, everything that can be int8 is. Beside the file, `<model>.quantize.toml` says how it was made.
    """
    from nncc.quant.api import quantize
    from nncc.reports import quantize as report
    from nncc.reports.console import working
    from nncc.reports.sensitivity_plot import check_plot, plot_layers

    if plot is not None:
        check_plot(plot)
    images = preprocessing(options)
    shape = options.pop("shape") | options.pop("input_shapes")
    own = ("output", "recipe", "metric", "max_drop", "metric_seconds", "rank_by", "evaluations", "target")
    call = {name: options.pop(name) for name in own}
    calibration = options.pop("calibration")
    choices = {name: _step(value) for name, value in options.items() if value is not None}
    with working() as progress:
        call |= {"shape": shape, "images": images, "sensitivity": plot is not None}
        found = quantize(model, calibration, start=progress.start, tell=progress.tell, **call, **choices)
    facts = report.quantize_facts(found, call["target"])
    if plot is not None and facts["lost"]:
        floats = [each["name"] for each in facts["stays_float"]]
        plot_layers(facts["lost"], floats, "score" if call["rank_by"] == "metric" else "dB", plot)
    if as_json:
        return print_json(facts)
    click.echo(report.quantize_text(facts), nl=False)
    if plot is not None:
        click.echo(f"drawn in {plot}" if facts["lost"] else f"no layer is in int8: nothing to draw in {plot}")
    click.echo(f"\nnext: {next_compile(found.path, found.outcome.graph, call['target'])}")
    return None


def next_compile(path: Path, graph: onnx_ir.Model, target: str | None = None) -> str:
    """The command that compiles a file, with a word for each input of `graph` that still has open dimensions."""
    from nncc.quant.samples import input_specs

    words = ["nncc", "compile", str(path), *(() if target is None else ("--target", target))]
    for spec in input_specs(graph):
        if any(isinstance(size, str) for size in spec.shape):  # a batch of 1, and what else there is to choose by name
            sizes = ("1" if at == 0 and isinstance(size, str) else str(size) for at, size in enumerate(spec.shape))
            words += ["--shape", f"{spec.name}={'x'.join(sizes)}"]
    return shlex.join(words)


def _step(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
