"""``nncc prune``: a model with fewer channels, for a goal, within an accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nncc.cli.options import JSON, SHAPES, TARGET, all_of, print_json
from nncc.cli.quant import CALIBRATION, IMAGE_OPTIONS, METRIC_TIMEOUT, next_compile, preprocessing

__all__ = ["prune_command"]


@click.command("prune", short_help="Fewer channels: less time and fewer bytes, within an accuracy.")
@click.argument("model", type=Path)
@CALIBRATION
@click.option(
    "-o", "--output", type=Path, metavar="FILE", help="The model to write.  [default: <model>.pruned.onnx beside it]"
)
@click.option(
    "--sparsity",
    metavar="PERCENT",
    help="The goal: so much of all multiplications goes, `50%`; unstructured, of all weights.",
)
@click.option("--size", "weights", metavar="BYTES", help="The goal: the weights take no more, `2MB` or `800KiB`.")
@click.option(
    "--latency",
    metavar="TIME",
    help="The goal: no more predicted time on one core of the target, `8ms`. Predicted is each layer as its kernel "
    "computes it, near the processor's peak, or at its memory's bandwidth, whichever takes longer. What `native` can "
    "do is measured, once.",
)
@click.option(
    "--metric",
    metavar="COMMAND",
    help="Prints a score last, higher is better, of the model whose path is appended, or stands where it says "
    "`{model}`. Or top1 or sqnr: agreement with the original on samples held out.  [default: one of these]",
)
@click.option(
    "--max-drop",
    metavar="DROP",
    help="How much lower the score may be: `1%` is a percent of the original's, `0.01` as much in the metric's own "
    "unit. Without a goal, as much is pruned as holds it.",
)
@METRIC_TIMEOUT
@click.option("--evaluations", type=click.IntRange(min=1), default=20, show_default=True, metavar="N",
              help="How often the metric may be asked.")  # fmt: skip
@click.option(
    "--structure",
    default="channels",
    show_default=True,
    metavar="NAME",
    help="What goes as one: channels, from which any runtime gains; block16x4, blocks of 16 outputs by 4 inputs that "
    "become zero, which the kernels of `nncc compile` skip (or block8x4 and the like); unstructured, single weights, "
    "which makes libraries smaller, but nothing faster.",
)
@click.option(
    "--importance",
    default="reconstruction",
    show_default=True,
    metavar="NAME",
    help="What ranks channels: reconstruction (what the layers that read them lose once they are refitted), activation "
    "(variance times the weights that read it), taylor (what the outputs change, to first order) or magnitude (of all "
    "weights). All but taylor rank weights that become zero too.",
)
@click.option(
    "--refit/--no-refit",
    default=True,
    show_default=True,
    help="Fit weights to what is left of their inputs, by least squares; kept where it lowers the error.",
)
@click.option(
    "--multiple",
    type=int,
    metavar="N",
    help="Counts of channels stay multiples of it; int8 kernels like 16. Not for zeros.  "
    "[default: the target's float vectors]",
)
@click.option(
    "--least", type=int, metavar="N", help="No group is left with fewer channels. Not for zeros.  [default: 1]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the samples held out, and positions fitted.")
@TARGET
@all_of(*SHAPES)
@all_of(*IMAGE_OPTIONS)
@click.option(
    "--plot",
    type=Path,
    metavar="FILE",
    help="Draw what the model loses by each group of channels, and how far each was pruned, to an .svg or .png. With "
    "--json, the same numbers are in `groups`.",
)
@JSON
def prune_command(model: Path, as_json: bool, plot: Path | None, **options: Any) -> None:
    """Remove channels from MODEL, a float ONNX file, or put zeros into it; write an ONNX file that any tool reads.

    Give a goal, `--sparsity`, `--size` or `--latency`, or only `--max-drop`. Channels go where the predicted loss is
    least for what they save; what is left is fitted to the original. The file's metadata says what was done.
    """
    from nncc.compress.api import prune
    from nncc.reports import prune as report
    from nncc.reports.console import working
    from nncc.reports.sensitivity_plot import check_plot, plot_groups

    if plot is not None:
        check_plot(plot)
    images = preprocessing(options)
    shape = options.pop("shape") | options.pop("input_shapes")
    calibration, size = options.pop("calibration"), options.pop("weights")
    with working() as progress:
        told: dict[str, Any] = {"start": progress.start, "tell": progress.tell}
        found = prune(model, calibration, size=size, shape=shape, images=images, **told, **options)
    facts = report.prune_facts(found, options["target"])
    if plot is not None:
        plot_groups(facts, plot)
    if as_json:
        return print_json(facts)
    click.echo(report.prune_text(facts), nl=False)
    if plot is not None:
        click.echo(f"drawn in {plot}")
    click.echo(f"\nnext: {next_compile(found.path, found.outcome.graph, options['target'])}")
    return None
