"""``nncc distill``: a student is trained to answer as its teacher does, on data without labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from nncc.cli.options import JSON, SHAPES, all_of, documentation, print_json, time_span
from nncc.cli.quant import IMAGE_OPTIONS, next_compile, preprocessing

__all__ = ["distill_command"]

_SETTINGS = documentation("distillation/settings.py")


def _setting(field: str, *names: str, **settings: Any) -> Callable[[Any], Any]:
    """An option for a field of Settings, with its docstring as help; not given, Settings' default counts."""
    return click.option(*names, field, default=None, help=_SETTINGS.get(field, ""), **settings)


def _words(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...] | None:
    """``--augment flip,mixup`` and ``--augment flip --augment mixup`` are the same."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip()) or None


@click.command("distill", short_help="Train a smaller model to answer as the original does.")
@click.argument("student", type=Path)
@click.option("--teacher", type=Path, required=True, metavar="MODEL", help="The ONNX file to learn from: the original.")
@click.option(
    "--data",
    type=Path,
    required=True,
    metavar="DATA",
    help="Inputs like those of real use, without labels, thousands if there are: an .npz, an .npy, or a folder of such "
    "or of images. A tenth of them is held out to judge by.",
)
@click.option(
    "-o",
    "--output",
    type=Path,
    metavar="FILE",
    help="The file to write.  [default: <student>.distilled.onnx beside it]",
)
@_setting("epochs", "--epochs", type=int, metavar="N")
@_setting("time_budget", "--time-budget", callback=time_span, metavar="TIME")
@_setting("batch", "--batch", type=int, metavar="N")
@_setting("learning_rate", "--learning-rate", type=float, metavar="RATE")
@_setting("augment", "--augment", multiple=True, callback=_words, metavar="WORDS")
@_setting("keep_zeros", "--keep-zeros/--no-keep-zeros")
@_setting("temperature", "--temperature", type=float, metavar="T")
@_setting("logits_weight", "--logits-weight", type=float, metavar="WEIGHT")
@_setting("feature_weight", "--feature-weight", type=float, metavar="WEIGHT")
@_setting("held_out", "--held-out", type=int, metavar="N")
@_setting("patience", "--patience", type=int, metavar="N")
@_setting("seed", "--seed", type=int, metavar="N")
@_setting("threads", "--threads", type=int, metavar="N")
@click.option(
    "--checkpoint", type=Path, metavar="FILE", help="Keeps the state of training, written after each evaluation."
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint.")
@all_of(*SHAPES)
@all_of(*IMAGE_OPTIONS)
@JSON
def distill_command(student: Path, teacher: Path, data: Path, as_json: bool, **options: Any) -> None:
    """Train the weights of STUDENT, an ONNX file, until it answers as the teacher does.

    The student may be pruned, sparse (zeros stay zero) or quantized in QDQ form (integers stay integers of the same
    scales). Only weights change in the file, and its metadata says what was done. Needs torch: `pip install
    'nncc[distill]'`.
    """
    from nncc.distillation.api import distill
    from nncc.reports import distill as report
    from nncc.reports.console import working

    images = preprocessing(options)
    shape = options.pop("shape") | options.pop("input_shapes")
    output, checkpoint, resume = (options.pop(name) for name in ("output", "checkpoint", "resume"))
    choices = {name: value for name, value in options.items() if value is not None}
    with working() as progress:
        told: dict[str, Any] = {"start": progress.start, "tell": progress.tell}
        files: dict[str, Any] = {"checkpoint": checkpoint, "resume": resume}
        found = distill(student, teacher, data, output, shape=shape, images=images, **files, **told, **choices)
    facts = report.distill_facts(found)
    if as_json:
        return print_json(facts)
    click.echo(report.distill_text(facts), nl=False)
    click.echo(f"\nnext: {next_compile(found.path, found.outcome.graph)}")
    return None
