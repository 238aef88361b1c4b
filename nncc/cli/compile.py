"""``nncc compile``; and ``nncc check``, which says beforehand what will come of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from nncc.cli.options import BIND, JSON, RANGES, SHAPES, TARGET, all_of, comma_words, option, print_json
from nncc.config import Config
from nncc.pipeline import STAGES
from nncc.reports.console import working

__all__ = ["check_command", "compile_command"]

_STAGE_NAMES = tuple(stage.name for stage in STAGES)


@click.command("compile", short_help="ONNX model to shared library.")
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
    from nncc.instruments import Decided, Timing, Verify, wanted
    from nncc.ir import Artifact
    from nncc.pipeline import plan, run
    from nncc.reports.acceleration import acceleration_facts, acceleration_text
    from nncc.reports.compile import compile_facts, compile_text
    from nncc.reports.decisions import decision_facts, decisions_text
    from nncc.reports.quantization import quantization_facts, quantization_text
    from nncc.reports.quantize import outcome_facts, outcome_text

    config = Config(**options | {"shape": options["shape"] | options.pop("input_shapes")})
    timing, decided, watchers = Timing(), Decided(), wanted(config)
    verify = next((each for each in watchers if isinstance(each, Verify)), None)
    with working() as progress:
        job = plan(model, config, progress.tell)
        if verify is not None:
            verify.announce = progress.start
        value = run(job, [progress, timing, decided, *watchers])
        artifact = value if isinstance(value, Artifact) else None
        toolchain = ""
        if artifact is not None:
            from nncc.codegen.toolchains import find_toolchain

            toolchain = find_toolchain(job.target).name
        facts = compile_facts(job.target, timing.seconds, artifact, toolchain, verify)
        facts["decisions"] = decision_facts(decided.decisions)
        facts["quantize"] = outcome_facts(decided.outcome, job.target) if decided.outcome is not None else None
        facts["quantization"] = quantization_facts(decided.quantization)
        facts["acceleration"] = acceleration_facts(decided.acceleration)
    if job.known.problems:
        from nncc.reports.records import warnings_text

        click.echo(warnings_text(list(job.known.problems)), err=True, nl=False)
    if as_json:
        return print_json(facts)
    click.echo(compile_text(facts, job.target), nl=False)
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


@click.command("check", short_help="What a model needs, and whether all of it can be compiled.")
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
    from nncc.reports.check import check_facts, check_text
    from nncc.roofline import with_peak
    from nncc.target import resolve

    with working() as progress:
        progress.start("check", str(model))
        named = resolve(target)
        found = check_model(model, with_peak(named, required=False), {**shape, **input_shapes}, progress.tell)
    facts = check_facts(found, named)
    if as_json:
        print_json(facts)
    else:
        click.echo(check_text(facts), nl=False)
    return 0 if found.compiles else 1
