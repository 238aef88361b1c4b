"""The command line: parse, call one function, print. Nothing heavy is imported before a command needs it.

Exit status: 0 ok; 1 an error that its reader can act on; 2 the words of the call are off; 70 a defect of nncc;
130 interrupted.
"""

from __future__ import annotations

import ast
import difflib
import errno
import itertools
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nncc.errors import InternalError, NnccError, OutputError, UsageError
from nncc.version import VERSION

if TYPE_CHECKING:
    from nncc.execute import OpenLibrary
    from nncc.ir import TensorSpec

__all__ = ["cli", "main"]

DEFECT = 70
INTERRUPTED = 130


# ---- errors -----------------------------------------------------------------------------------------------------


class _Group(click.Group):
    """A group of commands whose errors all look alike, and whose exit status says whose they are."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        words = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        if not words:
            click.echo(self.get_help(self.make_context("nncc", ["--help"], resilient_parsing=True)), err=True)
            sys.exit(2)
        try:
            code = super().main(words, "nncc", **extra)
        except (click.exceptions.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            code = INTERRUPTED
        except click.ClickException as error:
            code = _fail(_usage_message(error), _usage_hint(error, self), 2, "--json" in words)
        except InternalError as error:
            code = _defect(error, error.message, error.hint, words)
        except NnccError as error:
            _trace(error)
            code = _fail(error.message, error.hint, error.exit_code, "--json" in words)
        except Exception as error:
            code = _defect(error, f"{type(error).__name__}: {error}", None, words)
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if self.get_command(context, name) is None and not name.startswith("-"):
            answer = _FORMER_COMMANDS.get(name)
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = answer or (f"did you mean `nncc {near[0]}`?" if near else f"there are: {', '.join(self.commands)}")
            raise UsageError(f"nncc has no command `{name}`", hint)
        return super().resolve_command(context, args)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet


_FORMER_COMMANDS = {
    "micro": "for a microcontroller, compile with `--emit a` for a target described in a TOML file",
    "benchmark": "did you mean `nncc bench`?",
}
_FORMER_OPTIONS = {
    "--executor": "nncc compiles straight-line code: there is no executor to choose",
    "--runtime": "nncc's libraries need no runtime",
    "--opt-level": "nncc always optimizes; `--until STAGE` and `nncc show --stage STAGE` look inside",
    "-O": "nncc always optimizes; `--until STAGE` and `nncc show --stage STAGE` look inside",
    "--desired-layout": "nncc chooses the layout for the target; inputs and outputs stay as they are in the model",
    "--model-format": "nncc reads ONNX: convert the model first",
    "--cross-compiler": "the target chooses a C compiler; `$CC` names your own, for this machine",
    "--device": "the library knows where it runs",
    "--pass-config": "`--schedules FILE` brings loops of your own; targets are described in TOML files",
    "--rpc-tracker": "`nncc bench LIBRARY --runner FOLDER` writes a program for the board",
    "--rpc-key": "`nncc bench LIBRARY --runner FOLDER` writes a program for the board",
    "--number": "`--repeat N` runs N times",
    "--print-pass-times": "`nncc compile` prints the time of every stage",
    "--target-host": "`--target` describes the processor that runs the library",
}
"""What tvmc had and nncc has not, and what to do instead."""


def _usage_message(error: click.ClickException) -> str:
    if isinstance(error, click.exceptions.NoSuchOption):
        return f"there is no option `{error.option_name}`"
    message = error.format_message()
    message = re.sub(r"'(-?-[\w-]+|[A-Z_.]+)'", r"`\1`", message.rstrip("."))
    return message[:1].lower() + message[1:]


def _usage_hint(error: click.ClickException, group: click.Group) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "nncc"
    if isinstance(error, click.exceptions.NoSuchOption):
        if answer := _FORMER_OPTIONS.get(error.option_name):
            return answer
        if error.possibilities:
            return f"did you mean `{sorted(error.possibilities)[0]}`?"
    return f"`{command} --help` shows what it takes"


def _fail(message: str, hint: str | None, code: int, as_json: bool) -> int:
    click.echo(f"error: {message}\n" + (f"\nhint: {hint}" if hint else ""), err=True, nl=bool(hint))
    if as_json:
        click.echo(json.dumps({"error": message, "hint": hint}))
    return code


def _defect(error: Exception, message: str, hint: str | None, words: Sequence[str]) -> int:
    _trace(error)
    message += "\n\nThis is a defect of nncc, not a mistake of yours."
    more = "NNCC_TRACEBACK=1 shows the whole traceback"
    return _fail(
        message, f"{hint or 'please report this, with the command and the model'}; {more}", DEFECT, "--json" in words
    )


def _trace(error: Exception) -> None:
    from nncc.console import wants_traceback

    if wants_traceback():
        import traceback

        click.echo("".join(traceback.format_exception(error)), err=True)


# ---- options ----------------------------------------------------------------------------------------------------


def _documentation() -> dict[str, str]:
    """The docstring of each field of Config: the one place where an option is explained."""
    try:
        tree = ast.parse(Path(__file__).with_name("config.py").read_text(encoding="utf-8"))
    except OSError:  # installed without sources
        return {}
    body = next((node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Config"), [])
    return {
        field.target.id: " ".join(after.value.value.replace("``", "`").split())
        for field, after in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


_HELP = _documentation()


def _option(field: str, *names: str, note: str = "", **settings: Any) -> Callable[[Any], Any]:
    """An option of the command line for a field of Config, with its docstring as help."""
    return click.option(*names, field, help=f"{_HELP.get(field, '')}{note}", **settings)


def _words(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """``--emit so,a --emit o`` and ``--emit so,a,o`` are the same."""
    words = [word.strip() for value in values for word in value.split(",") if word.strip()]
    known = {"emit": ("so", "a", "o"), "dump_code": ("asm", "ll", "tir")}[str(parameter.name)]
    for word in words:
        if word not in known:
            raise UsageError(f"`{parameter.opts[0]} {word}` is none of {', '.join(known)}")
    return tuple(dict.fromkeys(words))


def _shapes(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``NAME=1x3x224x224`` (commas will do) as name and sizes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, text = value.rpartition("=")
        sizes = re.split(r"[x,]", text.strip().strip("[]()"))
        if not name or not all(re.fullmatch(r"\s*\d+\s*", word) for word in sizes):
            raise UsageError(f"`--shape {value}` is not NAME=SIZExSIZE...", "for example `--shape input=1x3x224x224`")
        shapes[name.strip()] = tuple(map(int, sizes))
    return shapes


def _input_shapes(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, tuple[int, ...]]:
    """tvmc's ``a:[1,3,224,224] b:[1]``."""
    shapes: dict[str, tuple[int, ...]] = {}
    rest = (value or "").strip()
    while rest:
        found = re.match(r"([^\s\[\]]+?)\s*:\s*\[([\d,\s]+)\]\s*,?\s*", rest)
        if not found:
            hint = 'for example `--input-shapes "a:[1,3,224,224] b:[1]"`'
            raise UsageError(f"`--input-shapes`: `{rest}` does not begin with NAME:[SIZE,...]", hint)
        shapes[found[1]] = tuple(int(word) for word in found[2].split(",") if word.strip())
        rest = rest[found.end() :]
    return shapes


_SHAPES = (
    _option("shape", "--shape", multiple=True, callback=_shapes, metavar="NAME=1x3x224x224", note=" Repeatable."),
    click.option(
        "--input-shapes", callback=_input_shapes, metavar='"A:[1,3] B:[1]"', help="The same, as tvmc spells it."
    ),
)
_TARGET = _option("target", "-t", "--target", default="native", show_default=True)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, also of errors; for scripts.")
_THREADS = click.option(
    "--threads", type=click.IntRange(min=0), default=1, show_default=True, help="Threads; 0 for one per processor."
)
_STAGES = ("import", "simplify", "specialize", "lower", "schedule", "flatten", "build")
_FILL = (
    click.option(
        "--fill",
        "--fill-mode",
        type=click.Choice(["random", "zeros", "ones"]),
        help="What the inputs that no file gives are filled with.  [default: random, without --inputs]",
    ),
    click.option("--seed", type=int, default=0, show_default=True, help="Of the random fill."),
    click.option(
        "-i", "--inputs", type=Path, metavar="FILE", help="An .npz with the inputs by name; .npy for a single one."
    ),
)


def _all(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


# ---- commands ---------------------------------------------------------------------------------------------------


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, message="nncc %(version)s")
def cli() -> None:
    """An ONNX model in, one small, fast, self-contained shared library out.

    \b
      nncc compile model.onnx --target rpi4
      nncc run     model-rpi4/model.so --fill random --print-top 5
      nncc bench   model-rpi4/model.so --threads 2
    """


@cli.command("compile", short_help="ONNX model to shared library.")
@click.argument("model", type=Path)
@_TARGET
@_option("output", "-o", "--output", type=Path, metavar="FOLDER")
@_option("name", "--name", "--module-name")
@_all(*_SHAPES)
@_option("threads", "--threads", type=int, metavar="N")
@_option("records", "--records", "--tuning-records", type=Path, multiple=True, metavar="PATH", note=" Repeatable.")
@_option("schedules", "--schedules", type=Path, multiple=True, metavar="FILE", note=" Repeatable.")
@_option("until", "--until", metavar="STAGE", note=f" Stages: {', '.join(_STAGES)}.")
@_option("save_stages", "--save-stages", type=Path, metavar="FOLDER")
@_option("emit", "--emit", "-f", "--output-format", multiple=True, callback=_words, metavar="so,a,o", default=("so",))
@_option("dump_code", "--dump-code", multiple=True, callback=_words, metavar="asm,ll,tir")
@_option("verify", "--verify/--no-verify", default=True, show_default=True)
@_JSON
def compile_command(model: Path, as_json: bool, **options: Any) -> None:
    """Compile MODEL, an ONNX file, to a shared library with its header and description."""
    from nncc.config import Config
    from nncc.instruments import Timing, Verify, wanted
    from nncc.ir import Artifact
    from nncc.pipeline import plan, run

    config = Config(**options | {"shape": options["shape"] | options.pop("input_shapes")})
    timing, watchers = Timing(), wanted(config)
    verify = next((each for each in watchers if isinstance(each, Verify)), None)
    with _working() as progress:
        job = plan(model, config, progress.tell)
        if verify is not None:
            verify.announce = progress.start
        value = run(job, [progress, timing, *watchers])
        artifact = value if isinstance(value, Artifact) else None
        from nncc import report

        toolchain = ""
        if artifact is not None:
            from nncc.codegen.link import find_toolchain

            toolchain = find_toolchain(job.target).name
        facts = report.compile_facts(job.target, timing.seconds, artifact, toolchain, verify)
    if as_json:
        return _print_json(facts)
    click.echo(report.compile_text(facts, job.target), nl=False)
    if config.save_stages is not None:
        click.echo(f"\nthe stages are in {config.save_stages}")
    if artifact is not None and "so" in config.emit:
        click.echo(f"\nnext: {_next(facts)}")


def _next(facts: Mapping[str, Any]) -> str:
    library, folder = shlex.quote(facts["library"]), shlex.quote(str(Path(facts["library"]).parent))
    if facts["target"]["runs"]:
        return f"nncc run {library} --fill random --print-top 5"
    return f"nncc bench {library} --runner {folder}   # a bench program for the board"


@contextmanager
def _working() -> Iterator[Any]:
    """Progress is shown, chatter is not, and what no one foresaw is an InternalError that names the stage."""
    from nncc.console import Progress, quiet

    with quiet() as stream, Progress(stream) as progress:
        try:
            yield progress
        except NnccError:
            raise
        except MemoryError as error:
            raise NnccError(f"{progress.stage}: there is not enough memory", "close other programs") from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise InternalError(f"{progress.stage}: {type(error).__name__}: {error}") from error
            where = f" `{error.filename}`" if error.filename else ""
            raise OutputError(f"{progress.stage}: cannot write{where}: {error.strerror}", "free some space") from error
        except Exception as error:
            raise InternalError(f"{progress.stage}: {type(error).__name__}: {error}") from error


@cli.command("run", short_help="Run a library once, here or in an emulator.")
@click.argument("library", type=Path)
@_all(*_FILL)
@click.option("-o", "--outputs", type=Path, metavar="FILE", help="An .npz to write the outputs to, by name.")
@click.option(
    "--print-top", type=click.IntRange(min=1), metavar="N", help="Print the N largest elements of each output."
)
@click.option("--print-time", is_flag=True, help="Also time it; see `nncc bench` for more.")
@click.option(
    "--repeat", type=click.IntRange(min=1), default=10, show_default=True, help="Runs that --print-time times."
)
@_THREADS
@_JSON
def run_command(
    library: Path,
    outputs: Path | None,
    print_top: int | None,
    print_time: bool,
    repeat: int,
    threads: int,
    as_json: bool,
    **source: Any,
) -> None:
    """Run LIBRARY once, here or in an emulator, and say what came out."""
    from nncc import report
    from nncc.execute import open_library
    from nncc.frontend.samples import write_outputs

    with _working() as progress:
        progress.start("open", str(library))
        opened = open_library(library, threads)
        inputs, how = _inputs(opened, **source)
        if print_time:
            progress.start("time", str(library))
            measured = opened.benchmark(inputs, repeat=repeat)
        progress.start("run", f"in {opened.emulated_by}" if opened.emulated_by else str(library))
        results = opened.run(inputs)
        if outputs is not None:
            write_outputs(outputs, results)
    facts: dict[str, Any] = {key: opened.describe()[key] for key in ("name", "target", "build")}
    facts |= {"inputs": how, "emulated_by": opened.emulated_by, "outputs": report.output_facts(results, print_top or 0)}
    if print_time:
        facts["time"] = report.measurement_facts(opened, measured, [])
    if as_json:
        return _print_json(facts)
    where = f", emulated by {opened.emulated_by}" if opened.emulated_by else ""
    click.echo(f"{facts['name']} for {facts['target']}{where}; inputs: {how}\n")
    click.echo(report.output_text(facts["outputs"]), nl=False)
    if print_time:
        click.echo("\n" + report.measurement_text(opened, measured, []), nl=False)
    if outputs is not None:
        click.echo(f"\nwritten to {outputs}")


def _inputs(opened: OpenLibrary, inputs: Path | None, fill: str | None, seed: int) -> tuple[dict[str, Any], str]:
    """The inputs of a run, and a word on where they are from."""
    from nncc.frontend import samples

    mode: Any = fill or "random"
    word = f"random, seed {seed}" if mode == "random" else mode
    if inputs is None:
        return samples.fill(opened.inputs, mode, seed), word
    given = _named_in(inputs) if fill else None
    rest: list[TensorSpec] = []
    if given is not None and given <= {spec.name for spec in opened.inputs}:
        rest = [spec for spec in opened.inputs if spec.name not in given]
    arrays = samples.read_inputs(inputs, [spec for spec in opened.inputs if spec not in rest])
    if not rest:
        return arrays, str(inputs)
    filled = samples.fill(rest, mode, seed)
    return arrays | filled, f"{inputs}; {', '.join(spec.name for spec in rest)} {word}"


def _named_in(path: Path) -> set[str] | None:
    """The names of the arrays in an .npz; None where it is none, which its reader will say."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return None


@cli.command("bench", short_help="Time a library, and each of its kernels.")
@click.argument("library", type=Path)
@_THREADS
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
@_all(*_FILL)
@_JSON
def bench_command(
    library: Path,
    threads: int,
    repeat: int | None,
    seconds: float,
    warmup: int,
    profile: bool,
    runner: Path | None,
    as_json: bool,
    **source: Any,
) -> None:
    """Time LIBRARY in a process of its own: p50, p90, min, mean, load time, memory, and each kernel."""
    from nncc import report
    from nncc.execute import open_library, schedules_beside, write_runner

    if runner is not None:
        with _working() as progress:
            progress.start("link", "the bench program")
            program = write_runner(library, runner)
        if as_json:
            return _print_json({"runner": str(program)})
        click.echo(f"{program}\n\non the board: ./{program.name} {library.name} --threads N --repeat 100 --profile")
        return
    with _working() as progress:
        progress.start("open", str(library))
        opened = open_library(library, threads)
        progress.start("time", str(library))
        inputs, _ = _inputs(opened, **source)
        found = opened.benchmark(inputs, repeat=repeat, seconds=seconds, warmup=warmup, profile=profile)
    calls = opened.describe()["calls"]
    rows = report.kernel_rows(calls, found.call_seconds, schedules_beside(opened)) if profile else []
    if as_json:
        return _print_json(report.measurement_facts(opened, found, rows))
    click.echo(report.measurement_text(opened, found, rows), nl=False)


@cli.command("show", short_help="A model or a library as text.")
@click.argument("file", type=Path)
@click.option(
    "--stage",
    type=click.Choice(_STAGES[:-1]),
    default="import",
    show_default=True,
    help="Show the model after this stage.",
)
@_TARGET
@_all(*_SHAPES)
@_option("schedules", "--schedules", type=Path, multiple=True, metavar="FILE", note=" Repeatable.")
@_JSON
def show_command(
    file: Path,
    stage: str,
    target: str,
    shape: dict[str, tuple[int, ...]],
    input_shapes: dict[str, tuple[int, ...]],
    schedules: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show FILE: a model as text, one line an operator, after any stage; or what a library says of itself."""
    if _is_library(file):
        return _show_library(file, as_json)
    from nncc.config import Config
    from nncc.instruments import stage_text
    from nncc.pipeline import plan, run

    config = Config(target=target, shape=shape | input_shapes, schedules=schedules, until=stage, verify=False)
    with _working() as progress:
        text = stage_text(run(plan(file, config, progress.tell), [progress]))
    if as_json:
        return _print_json({"stage": stage, "text": text})
    click.echo(text, nl=False)


def _is_library(file: Path) -> bool:
    from nncc.execute import is_library

    return is_library(file)


def _show_library(file: Path, as_json: bool) -> None:
    from nncc import report
    from nncc.execute import describe

    with _working() as progress:
        progress.start("open", str(file))
        about = describe(file)
    if as_json:
        return _print_json(about)
    click.echo(report.description_text(about, file.stat().st_size), nl=False)


@cli.command("targets", short_help="What can be compiled for, linked and run here.")
@click.argument("name", required=False)
@_JSON
def targets_command(name: str | None, as_json: bool) -> None:
    """List the targets, and what this machine can link and run; or describe the one called NAME in full."""
    from nncc import report
    from nncc.target import available, resolve

    if name is not None:
        with _working():
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
@_JSON
def doctor_command(as_json: bool) -> int:
    """Look at this installation and this machine: what works, what is missing, and how to get it."""
    from nncc import report
    from nncc.doctor import diagnose

    with _working() as progress:
        progress.start("look", "at this machine")
        findings = diagnose()
    if as_json:
        _print_json([row._asdict() for row in findings])
    else:
        click.echo(report.doctor_text(findings), nl=False)
    return 1 if any(row.status == "fail" for row in findings) else 0


def _fitted(text: str) -> str:
    """Lines cut to the width of the terminal, if it is one."""
    if not sys.stdout.isatty():
        return text
    columns = shutil.get_terminal_size().columns
    return "".join(f"{line if len(line) <= columns else line[: columns - 3] + '...'}\n" for line in text.splitlines())


def _print_json(value: Any) -> None:
    """Indented, with lists of plain values on one line."""
    text = json.dumps(value, indent=2)
    click.echo(re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r",\s+", ", ", found[1]) + "]", text))


def main() -> None:
    """The console script."""
    cli()
