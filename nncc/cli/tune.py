"""``nncc tune``: search, on this machine or on boards, what a model's kernels do best; keep it as records."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, TextIO

import click

from nncc.cli.options import BIND, JSON, SHAPES, TARGET, all_of, option, print_json, time_span
from nncc.errors import UsageError

__all__ = ["tune_command"]


@click.command("tune", short_help="Search for faster kernels, keep what was found.")
@click.argument("model", type=Path)
@TARGET
@option(
    "records",
    "--records",
    "--tuning-records",
    multiple=True,
    metavar="PLACE",
    default=("records",),
    show_default=True,
    note=" Repeatable; the first is a folder, to which what is found is added.",
)
@option("seconds", "--time-budget", callback=time_span, metavar="TIME", note=" For example 90s, 10m, 1h30m.")
@option("trials", "--trials", type=click.IntRange(min=1), metavar="N")
@option("runner", "--runner", default="local", show_default=True, metavar="RUNNER")
@option("tasks", "--tasks", default="", metavar="list|TEXT")
@option("graph", "--graph/--no-graph", default=True, show_default=True)
@option("precision", "--precision", default="float32", show_default=True, metavar="float32|tf32|float16|bfloat16")
@option("threads", "--threads", type=int, metavar="N")
@all_of(*SHAPES, BIND)
@option("seed", "--seed", type=click.IntRange(min=0), default=0, show_default=True)
@option("by", "--by", default="", metavar="NAME")
@option("schedules", "--schedules", type=Path, multiple=True, metavar="FILE", note=" Repeatable.")
@JSON
def tune_command(model: Path, as_json: bool, **options: Any) -> None:
    """Tune MODEL, an ONNX file, for a target; Ctrl-C keeps everything, and running again goes on."""
    from nncc.config import Config, Tuning
    from nncc.reports import tune as report
    from nncc.reports.console import working
    from nncc.tuning.tune import tune

    into, *others = options.pop("records")
    if "://" in into and not into.startswith("file://"):
        raise UsageError(
            f"`--records {into}`: the first place is written to, and has to be a folder",
            "`nncc records push` shares it",
        )
    names = ("seconds", "trials", "runner", "tasks", "graph", "seed", "by")
    tuning = Tuning(into=Path(into.removeprefix("file://")), **{name: options.pop(name) for name in names})
    shape = options.pop("shape") | options.pop("input_shapes")
    config = Config(**options, shape=shape, records=tuple(others), shipped_records=False)
    watcher: list[report.TuneProgress] = []

    def show(stream: TextIO) -> report.TuneProgress:
        watcher.append(report.TuneProgress(stream))
        return watcher[0]

    with working(show):
        found = tune(model, config, tuning, watcher[0])
    stored = tuning.runner != "qemu"
    if tuning.tasks == "list":
        if as_json:
            return print_json(report.task_facts(found.state))
        return click.echo(report.task_table(found.state), nl=False)
    if as_json:
        return print_json(report.outcome_facts(found, str(tuning.into), stored))
    click.echo(report.outcome_text(found, str(tuning.into), stored), nl=False)
    if stored:
        words = ["nncc", "compile", str(model), "--target", config.target]
        words += [word for name, sizes in shape.items() for word in ("--shape", f"{name}={'x'.join(map(str, sizes))}")]
        words += [word for name, text in config.bind.items() for word in ("--bind", f"{name}={text}")]
        words += ["--precision", config.precision] if config.precision != "float32" else []
        words += ["--threads", str(config.threads)] if config.threads is not None else []
        words += [word for place in (tuning.into, *others) for word in ("--records", str(place))]
        words += [word for file in config.schedules for word in ("--schedules", str(file))]
        click.echo(f"\nnext: {shlex.join(words)}")
    return None
