"""``nncc show``, ``nncc targets`` and ``nncc doctor``: what is in a file, and what there is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from nncc.cli.options import BIND, JSON, SHAPES, TARGET, all_of, option, print_json
from nncc.config import Config
from nncc.pipeline import stages
from nncc.reports.console import working

__all__ = ["doctor_command", "show_command", "targets_command"]


@click.command("show", short_help="A model or a library as text.")
@click.argument("file", type=Path)
@click.option(
    "--stage",
    type=click.Choice([stage.name for stage in stages(Config())][:-1]),
    default="import",
    show_default=True,
    help="Show the model after this stage.",
)
@TARGET
@all_of(*SHAPES, BIND)
@option("schedules", "--schedules", type=Path, multiple=True, metavar="FILE", note=" Repeatable.")
@JSON
def show_command(
    file: Path,
    stage: str,
    target: str,
    shape: dict[str, tuple[int, ...]],
    input_shapes: dict[str, tuple[int, ...]],
    bind: dict[str, str],
    schedules: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show FILE: a model as text, one line an operator, after any stage; or what a library says of itself."""
    from nncc.library_facts import is_library

    if is_library(file):
        return _show_library(file, as_json)
    from nncc.instruments import stage_text
    from nncc.pipeline import plan, run

    with working() as progress:
        shape = _with_guesses(file, shape | input_shapes, bind)
        config = Config(target=target, shape=shape, bind=bind, schedules=schedules, until=stage, verify=False)
        text = stage_text(run(plan(file, config, progress.tell), [progress]))
    if as_json:
        return print_json({"stage": stage, "text": text})
    click.echo(text, nl=False)


def _with_guesses(
    file: Path, shape: Mapping[str, tuple[int, ...]], bind: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """`shape`, with sizes for open dimensions that it leaves open, which are guessed and named on stderr."""
    from nncc.frontend.onnx import read_graph
    from nncc.frontend.shapes import open_dimensions

    shapes = dict(shape)
    for name, (words, sizes) in open_dimensions(read_graph(file, lists=True), shape).items():
        if name not in shapes and name not in bind:
            shapes[name] = sizes
            taken = "x".join(map(str, sizes))
            click.echo(f"`{name}` is {'x'.join(map(str, words))}; shown as {taken}: `--shape {name}={taken}`", err=True)
    return shapes


def _show_library(file: Path, as_json: bool) -> None:
    from nncc.execute import describe
    from nncc.reports.gpu import device_text
    from nncc.reports.library import description_text

    with working() as progress:
        progress.start("open", str(file))
        about = describe(file)
    if as_json:
        return print_json(about)
    click.echo(description_text(about, file.stat().st_size), nl=False)
    if "device" in about:
        click.echo("\n" + device_text(about["device"], about["schedules"]), nl=False)


@click.command("targets", short_help="What can be compiled for, linked and run here.")
@click.argument("name", required=False)
@JSON
def targets_command(name: str | None, as_json: bool) -> None:
    """List the targets, and what this machine can link and run; or describe the one called NAME in full."""
    from nncc.reports.target import target_facts, target_table, target_text
    from nncc.target import available, resolve

    if name is not None:
        with working():
            target = resolve(name)
        if as_json:
            return print_json(target_facts(target))
        return click.echo(target_text(target), nl=False)
    facts = [target_facts(target) for target in available()]
    if as_json:
        return print_json(facts)
    click.echo(target_table(facts), nl=False)
    click.echo(
        "\n`nncc targets NAME` says more; `--target` also takes a TOML file, JSON, or NAME,mcpu=...,num-cores=..."
    )
    return None


@click.command("doctor", short_help="What works on this machine, what is missing.")
@JSON
def doctor_command(as_json: bool) -> int:
    """Look at this installation and this machine: what works, what is missing, and how to get it."""
    from nncc.doctor import diagnose
    from nncc.reports.doctor import doctor_text

    with working() as progress:
        progress.start("look", "at this machine")
        findings = diagnose()
    if as_json:
        print_json([row._asdict() for row in findings])
    else:
        click.echo(doctor_text(findings), nl=False)
    return 1 if any(row.status == "fail" for row in findings) else 0
