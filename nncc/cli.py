"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it.

Exit status: 0 ok; 1 an error that its reader can act on; 2 the words of the call are off; 70 a defect of nncc;
130 interrupted.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nncc.cli_compare import compare_command
from nncc.cli_distill import distill_command
from nncc.cli_errors import Group
from nncc.cli_prune import prune_command
from nncc.cli_quant import quantize_command
from nncc.cli_records import records
from nncc.cli_tune import tune_command
from nncc.cli_vta import vta
from nncc.config import Config
from nncc.console import working
from nncc.options import (
    BIND,
    DEVICE,
    FILL,
    JSON,
    RANGES,
    SHAPES,
    SIZES,
    TARGET,
    THREADS,
    all_of,
    comma_words,
    option,
)
from nncc.pipeline import STAGES, stages
from nncc.version import VERSION

if TYPE_CHECKING:
    from nncc.execute import OpenLibrary, Simulation
    from nncc.frontend.samples import Fill

__all__ = ["cli", "main"]

_STAGE_NAMES = tuple(stage.name for stage in STAGES)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, message="nncc %(version)s")
def cli() -> None:
    """An ONNX model in, one small, fast, self-contained shared library out.

    \b
      nncc check   model.onnx --target rpi4
      nncc compile model.onnx --target rpi4
      nncc run     model-rpi4/model.so --fill random --print-top 5
      nncc bench   model-rpi4/model.so --threads 2
    """


@cli.command("compile", short_help="ONNX model to shared library.")
@click.argument("model", type=Path)
@TARGET
@option("output", "-o", "--output", type=Path, metavar="FOLDER")
@option("name", "--name", "--module-name")
@all_of(*SHAPES, *RANGES, BIND)
@option("threads", "--threads", type=int, metavar="N")
@option("records", "--records", "--tuning-records", multiple=True, metavar="PLACE", note=" Repeatable.")
@option("shipped_records", "--shipped-records/--no-shipped-records", default=True, show_default=True)
@option("lock", "--lock", type=Path, metavar="FILE")
@option("schedules", "--schedules", type=Path, multiple=True, metavar="FILE", note=" Repeatable.")
@option("precision", "--precision", default="float32", show_default=True, metavar="float32|tf32|float16|bfloat16")
@option("quantize", "--quantize", type=Path, metavar="DATA")
@option("recipe", "--recipe", type=Path, metavar="TOML")
@option("compress_weights", "--compress-weights", type=click.Choice(["auto", "off"]), default="auto", show_default=True)
@option("until", "--until", metavar="STAGE", note=f" Stages: {', '.join(_STAGE_NAMES)}.")
@option("save_stages", "--save-stages", type=Path, metavar="FOLDER")
@option(
    "emit", "--emit", "-f", "--output-format", multiple=True, callback=comma_words, metavar="so,a,o", default=("so",)
)
@option("dump_code", "--dump-code", multiple=True, callback=comma_words, metavar="asm,ll,tir,cu,ptx")
@option("verify", "--verify/--no-verify", default=True, show_default=True)
@JSON
def compile_command(model: Path, as_json: bool, **options: Any) -> None:
    """Compile MODEL, an ONNX file, to a shared library with its header and description."""
    from nncc.acceleration_report import acceleration_facts, acceleration_text
    from nncc.decisions_report import decision_facts, decisions_text
    from nncc.instruments import Decided, Timing, Verify, wanted
    from nncc.ir import Artifact
    from nncc.pipeline import plan, run
    from nncc.quantization_report import quantization_facts, quantization_text
    from nncc.quantize_report import outcome_facts, outcome_text

    config = Config(**options | {"shape": options["shape"] | options.pop("input_shapes")})
    timing, decided, watchers = Timing(), Decided(), wanted(config)
    verify = next((each for each in watchers if isinstance(each, Verify)), None)
    with working() as progress:
        job = plan(model, config, progress.tell)
        if verify is not None:
            verify.announce = progress.start
        value = run(job, [progress, timing, decided, *watchers])
        artifact = value if isinstance(value, Artifact) else None
        from nncc import report

        toolchain = ""
        if artifact is not None:
            from nncc.codegen.link import find_toolchain

            toolchain = find_toolchain(job.target).name
        facts = report.compile_facts(job.target, timing.seconds, artifact, toolchain, verify)
        facts["decisions"] = decision_facts(decided.decisions)
        facts["quantize"] = outcome_facts(decided.outcome, job.target) if decided.outcome is not None else None
        facts["quantization"] = quantization_facts(decided.quantization)
        facts["acceleration"] = acceleration_facts(decided.acceleration)
    if job.known.problems:
        from nncc.records_report import warnings_text

        click.echo(warnings_text(list(job.known.problems)), err=True, nl=False)
    if as_json:
        return _print_json(facts)
    click.echo(report.compile_text(facts, job.target), nl=False)
    if facts["quantize"] is not None:
        click.echo(outcome_text(facts["quantize"]), nl=False)
    click.echo(quantization_text(decided.quantization), nl=False)
    click.echo(acceleration_text(decided.acceleration), nl=False)
    every = bool(config.records) or config.lock is not None
    click.echo(decisions_text(decided.decisions, decided.elsewhere, every), nl=False)
    if config.save_stages is not None:
        click.echo(f"\nthe stages are in {config.save_stages}")
    if artifact is not None and "so" in config.emit:
        click.echo(f"\nnext: {_next(facts)}")


def _next(facts: Mapping[str, Any]) -> str:
    library, folder = shlex.quote(facts["library"]), shlex.quote(str(Path(facts["library"]).parent))
    if facts["target"]["runs"]:
        device = " --device sim" if facts["target"]["simulated"] else ""
        return f"nncc run {library}{device} --fill random --print-top 5"
    return f"nncc bench {library} --runner {folder}   # a bench program for the board"


@cli.command("check", short_help="What a model needs, and whether all of it can be compiled.")
@click.argument("model", type=Path)
@TARGET
@all_of(*SHAPES)
@JSON
def check_command(
    model: Path,
    target: str,
    shape: Mapping[str, tuple[int, ...]],
    input_shapes: Mapping[str, tuple[int, ...]],
    as_json: bool,
) -> int:
    """Look at MODEL without compiling it: each operator that can or cannot be compiled and why, open dimensions, sizes,
    and what it will take on the target. The exit status is 1 where something cannot be compiled.

    Dimensions that are open, and not given by `--shape`, are guessed.
    """
    from nncc.check import check_model
    from nncc.check_report import check_facts, check_text
    from nncc.roofline import with_peak
    from nncc.target import resolve

    with working() as progress:
        progress.start("check", str(model))
        named = resolve(target)
        found = check_model(model, with_peak(named, required=False), {**shape, **input_shapes}, progress.tell)
    facts = check_facts(found, named)
    if as_json:
        _print_json(facts)
    else:
        click.echo(check_text(facts), nl=False)
    return 0 if found.compiles else 1


cli.add_command(quantize_command)
cli.add_command(prune_command)
cli.add_command(distill_command)
cli.add_command(compare_command)
cli.add_command(tune_command)


@cli.command("run", short_help="Run a library once, here or in an emulator.")
@click.argument("library", type=Path)
@all_of(*FILL)
@SIZES
@click.option("-o", "--outputs", type=Path, metavar="FILE", help="An .npz to write the outputs to, by name.")
@click.option(
    "--print-top", type=click.IntRange(min=1), metavar="N", help="Print the N largest elements of each output."
)
@click.option("--print-time", is_flag=True, help="Also time it; see `nncc bench` for more.")
@click.option(
    "--repeat", type=click.IntRange(min=1), default=10, show_default=True, help="Runs that --print-time times."
)
@THREADS
@DEVICE
@JSON
def run_command(
    library: Path,
    outputs: Path | None,
    print_top: int | None,
    print_time: bool,
    repeat: int,
    threads: int,
    device: str,
    as_json: bool,
    inputs: Path | None,
    fill: Fill | None,
    seed: int,
    sizes: dict[str, int],
) -> None:
    """Run LIBRARY once, here or in an emulator, and say what came out."""
    from nncc import bench_report, report
    from nncc.execute import open_library
    from nncc.frontend.samples import choose_inputs, write_outputs

    with working() as progress:
        progress.start("open", str(library))
        opened = open_library(library, threads, device=device)
        arrays, how = choose_inputs(opened.inputs_at(sizes), inputs, fill, seed)
        if print_time:
            progress.start("time", str(library))
            measured = opened.benchmark(arrays, repeat=repeat)
        progress.start("run", f"in {opened.emulated_by}" if opened.emulated_by else str(library))
        results = opened.run(arrays)
        if outputs is not None:
            write_outputs(outputs, results)
    facts: dict[str, Any] = {key: opened.describe()[key] for key in ("name", "target", "build")}
    facts |= {"inputs": how, "emulated_by": opened.emulated_by, "outputs": report.output_facts(results, print_top or 0)}
    if print_time:
        facts["time"] = bench_report.measurement_facts(opened, measured)
    if as_json:
        return _print_json(facts)
    where = f", emulated by {opened.emulated_by}" if opened.emulated_by else ""
    click.echo(f"{facts['name']} for {facts['target']}{where}; inputs: {how}\n")
    click.echo(report.output_text(facts["outputs"]), nl=False)
    if print_time:
        click.echo("\n" + bench_report.measurement_text(opened, measured), nl=False)
    if outputs is not None:
        click.echo(f"\nwritten to {outputs}")


@cli.command("bench", short_help="Time a library, and each of its kernels.")
@click.argument("library", type=Path)
@THREADS
@DEVICE
@click.option(
    "--repeat", type=click.IntRange(min=1), metavar="N", help="Timed runs.  [default: as many as fit in --seconds]"
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.0, min_open=True), default=2.0, show_default=True, help="How long to time."
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="N",
    help="Runs before the timed ones.",
)
@click.option("--profile", is_flag=True, help="Also time every kernel, in runs of their own.")
@click.option(
    "--runner", type=Path, metavar="FOLDER", help="Write the bench program for the library's target; time nothing."
)
@all_of(*FILL)
@SIZES
@JSON
def bench_command(
    library: Path,
    threads: int,
    device: str,
    repeat: int | None,
    seconds: float,
    warmup: int,
    profile: bool,
    runner: Path | None,
    as_json: bool,
    inputs: Path | None,
    fill: Fill | None,
    seed: int,
    sizes: dict[str, int],
) -> None:
    """Time LIBRARY in a process of its own: p50, p90, min, mean, load time, memory, and each kernel."""
    from nncc import bench_report
    from nncc.execute import open_library, schedules_beside, write_runner
    from nncc.frontend.samples import choose_inputs
    from nncc.roofline import attempt

    if runner is not None:
        with working() as progress:
            progress.start("link", "the bench program")
            program = write_runner(library, runner)
        if as_json:
            return _print_json({"runner": str(program)})
        click.echo(f"{program}\n\non the board: ./{program.name} {library.name} --threads N --repeat 100 --profile")
        return
    with working() as progress:
        progress.start("open", str(library))
        opened = open_library(library, threads, device=device)
        arrays, _ = choose_inputs(opened.inputs_at(sizes), inputs, fill, seed)
        if opened.simulated:  # its cycles are always the same: one inference says all
            progress.start("simulate", device)
            simulated = opened.simulate(arrays)
    if opened.simulated:
        return _show_simulation(opened, simulated, profile, as_json)
    with working() as progress:
        progress.start("time", str(library))
        found = opened.benchmark(arrays, repeat=repeat, seconds=seconds, warmup=warmup, profile=profile)
        rows, limits = [], None
        if profile:
            progress.start("measure", "what this machine can do")
            limits = attempt(opened)
            calls, schedules = opened.describe()["calls"], schedules_beside(library, opened.describe())
            rows = bench_report.kernel_rows(calls, found.call_seconds, schedules, limits)
    if as_json:
        return _print_json(bench_report.measurement_facts(opened, found, rows, limits))
    click.echo(bench_report.measurement_text(opened, found, rows, limits), nl=False)


def _show_simulation(opened: OpenLibrary, found: Simulation, profile: bool, as_json: bool) -> None:
    from nncc.execute import schedules_beside
    from nncc.simulation_report import layer_rows, simulation_facts, simulation_text

    about = opened.describe()
    rows = layer_rows(about, found.cycles, schedules_beside(opened.path, about)) if profile else []
    if as_json:
        return _print_json(simulation_facts(opened, found, rows))
    click.echo(simulation_text(opened, found, rows), nl=False)


@cli.command("show", short_help="A model or a library as text.")
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
    if _is_library(file):
        return _show_library(file, as_json)
    from nncc.instruments import stage_text
    from nncc.pipeline import plan, run

    with working() as progress:
        shape = _with_guesses(file, shape | input_shapes, bind)
        config = Config(target=target, shape=shape, bind=bind, schedules=schedules, until=stage, verify=False)
        text = stage_text(run(plan(file, config, progress.tell), [progress]))
    if as_json:
        return _print_json({"stage": stage, "text": text})
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


def _is_library(file: Path) -> bool:
    from nncc.execute import is_library

    return is_library(file)


def _show_library(file: Path, as_json: bool) -> None:
    from nncc import report
    from nncc.execute import describe

    with working() as progress:
        progress.start("open", str(file))
        about = describe(file)
    if as_json:
        return _print_json(about)
    click.echo(report.description_text(about, file.stat().st_size), nl=False)


cli.add_command(records)
cli.add_command(vta)


@cli.command("targets", short_help="What can be compiled for, linked and run here.")
@click.argument("name", required=False)
@JSON
def targets_command(name: str | None, as_json: bool) -> None:
    """List the targets, and what this machine can link and run; or describe the one called NAME in full."""
    from nncc import report
    from nncc.target import available, resolve

    if name is not None:
        with working():
            target = resolve(name)
        if as_json:
            return _print_json(report.target_facts(target))
        return click.echo(report.target_text(target), nl=False)
    facts = [report.target_facts(target) for target in available()]
    if as_json:
        return _print_json(facts)
    click.echo(report.target_table(facts), nl=False)
    click.echo(
        "\n`nncc targets NAME` says more; `--target` also takes a TOML file, JSON, or NAME,mcpu=...,num-cores=..."
    )
    return None


@cli.command("doctor", short_help="What works on this machine, what is missing.")
@JSON
def doctor_command(as_json: bool) -> int:
    """Look at this installation and this machine: what works, what is missing, and how to get it."""
    from nncc import report
    from nncc.doctor import diagnose

    with working() as progress:
        progress.start("look", "at this machine")
        findings = diagnose()
    if as_json:
        _print_json([row._asdict() for row in findings])
    else:
        click.echo(report.doctor_text(findings), nl=False)
    return 1 if any(row.status == "fail" for row in findings) else 0


def _print_json(value: Any) -> None:
    from nncc.report import json_text

    click.echo(json_text(value), nl=False)


_ISOLATED = ("check", "compare", "compile", "show")
"""Commands in which models of others reach TVM and LLVM; `tune` isolates every candidate by itself."""


def main() -> None:
    """The console script."""
    import sys

    if sys.argv[1:2] and sys.argv[1] in _ISOLATED:
        from nncc.cli_errors import said
        from nncc.isolation import isolated

        sys.exit(said(lambda: isolated(cli), sys.argv[1:]))
    cli()
