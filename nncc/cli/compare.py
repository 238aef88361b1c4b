"""``nncc compare``: two models, layer by layer; or a compiled model and ONNX Runtime, down to one operator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nncc.cli.options import JSON, SHAPES, all_of, option, print_json
from nncc.cli.quant import IMAGE_OPTIONS, preprocessing
from nncc.errors import UsageError

__all__ = ["compare_command"]


@click.command("compare", short_help="Two models, layer by layer: where they part.")
@click.argument("model", type=Path)
@click.argument("other", type=Path, required=False)
@click.option(
    "-i",
    "--inputs",
    type=Path,
    metavar="DATA",
    help="Samples: an .npz, an .npy, or a folder of such or of images. `--bisect` takes the first, by default a random "
    "one.",
)
@click.option(
    "--bisect",
    is_flag=True,
    help="Compile MODEL itself, find the first operator that computes something else than ONNX Runtime, and write it "
    "out as a small model with inputs.",
)
@option("target", "-t", "--target", default="native", show_default=True, note=" For `--bisect`.")
@all_of(*SHAPES)
@click.option("-o", "--output", type=Path, metavar="FOLDER", help="What `--bisect` writes.  [default: MODEL-culprit]")
@click.option(
    "--isolate", is_flag=True, help="What each layer adds by itself: every layer of OTHER reads MODEL's values."
)
@click.option("--samples", type=click.IntRange(min=1), default=32, show_default=True, metavar="N",
              help="How many samples to run, the first ones.")  # fmt: skip
@click.option("--threshold", type=float, default=20.0, show_default=True, metavar="DB",
              help="An SQNR below this is bad.")  # fmt: skip
@click.option("--top", type=click.IntRange(min=0), default=15, show_default=True, metavar="N",
              help="How many layers to print, the worst first; 0 for all.")  # fmt: skip
@all_of(*IMAGE_OPTIONS)
@JSON
def compare_command(
    model: Path,
    other: Path | None,
    inputs: Path | None,
    bisect: bool,
    target: str,
    shape: Mapping[str, tuple[int, ...]],
    input_shapes: Mapping[str, tuple[int, ...]],
    output: Path | None,
    isolate: bool,
    samples: int,
    threshold: float,
    top: int,
    as_json: bool,
    **options: Any,
) -> int:
    """Compare OTHER, a quantized ONNX file or a compiled library, with MODEL, the float model that it was made of.

    SQNR is 10 log10(sum x^2 / sum (x - y)^2) in dB, over all samples. Of a library only outputs are compared.

    With `--bisect`, without OTHER: what nncc makes of MODEL is compared with ONNX Runtime; the exit status is 1 where
    they differ.
    """
    if bisect:
        if other is not None or isolate:
            raise UsageError("`--bisect` takes one model, and compiles it itself", "leave out OTHER and `--isolate`")
        return _bisect(model, inputs, target, {**shape, **input_shapes}, output, as_json)
    if other is None:
        raise UsageError("there is nothing to compare with", "give a second model, or `--bisect`")
    if inputs is None:
        raise UsageError("there are no samples to compare the models on", "give some with `--inputs`")
    from nncc.execute import open_library
    from nncc.frontend.read_graph import read_graph
    from nncc.library_facts import is_library
    from nncc.quant.compare import compare_library, compare_models
    from nncc.quant.samples import input_specs, read_samples
    from nncc.reports import compare as report
    from nncc.reports.console import working

    images = preprocessing(options)
    with working() as progress:
        progress.start("read", str(model))
        graph = read_graph(model)
        library = is_library(other)
        if library and isolate:
            raise UsageError(f"`{other}` is a library: only its outputs can be compared", "leave out `--isolate`")
        opened = open_library(other, 1) if library else None
        progress.start("samples", str(inputs))
        data = read_samples(inputs, input_specs(graph), images)[:samples]
        progress.start("compare", f"on {len(data)} samples")
        if opened is not None:
            found = compare_library(graph, opened, data)
        else:
            found = compare_models(graph, read_graph(other), data, isolate=isolate, progress=progress.tell)
    facts = report.compare_facts(found, threshold)
    if as_json:
        print_json(facts)
        return 0
    click.echo(report.compare_text(facts, top), nl=False)
    return 0


def _bisect(
    model: Path,
    inputs: Path | None,
    target: str,
    shape: Mapping[str, tuple[int, ...]],
    output: Path | None,
    as_json: bool,
) -> int:
    from nncc.bisect import bisect, write_culprit
    from nncc.config import Config
    from nncc.frontend.onnx import import_onnx
    from nncc.frontend.samples import choose_inputs
    from nncc.reports.compare import culprit_facts, culprit_text
    from nncc.reports.console import working

    with working() as progress:
        progress.start("read", str(model))
        imported = import_onnx(model, shape=shape)
        arrays, how = choose_inputs(imported.inputs, inputs, None if inputs else "random", 0)
        progress.start("bisect", f"{len(imported.graph.graph)} operators")
        found = bisect(imported, Config(target=target), arrays, progress.tell)
        folder = output or Path(f"{imported.name}-culprit")
        files = write_culprit(found, folder) if found is not None else ()
    facts = culprit_facts(found, imported.name, target, how, files)
    if as_json:
        print_json(facts)
    else:
        click.echo(culprit_text(facts), nl=False)
    return 0 if found is None else 1
