"""The options of the command line that several commands have, how their words are read, and what `--json` prints."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from nncc.errors import UsageError

__all__ = [
    "BIND",
    "DEVICE",
    "FILL",
    "JSON",
    "RANGES",
    "SHAPES",
    "SIZES",
    "TARGET",
    "THREADS",
    "all_of",
    "comma_words",
    "documentation",
    "option",
    "print_json",
    "time_span",
]


def documentation(file: str) -> dict[str, str]:
    """The docstring of each field of the classes in one of nncc's files: the one place where an option is explained."""
    try:
        tree = ast.parse(Path(__file__).parents[1].joinpath(file).read_text(encoding="utf-8"))
    except OSError:  # installed without sources
        return {}
    classes = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    return {
        field.target.id: " ".join(after.value.value.replace("``", "`").split())
        for body in classes
        for field, after in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(after, ast.Expr)
        and isinstance(after.value, ast.Constant)
        and isinstance(after.value.value, str)
    }


_HELP = documentation("config.py")


def option(field: str, *names: str, note: str = "", **settings: Any) -> Callable[[Any], Any]:
    """An option of the command line for a field of Config or Tuning, with its docstring as help."""
    return click.option(*names, field, help=f"{_HELP.get(field, '')}{note}", **settings)


def comma_words(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    """``--emit so,a --emit o`` and ``--emit so,a,o`` are the same."""
    words = [word.strip() for value in values for word in value.split(",") if word.strip()]
    known = {"emit": ("so", "a", "o"), "dump_code": ("asm", "ll", "tir", "cu", "ptx")}[str(parameter.name)]
    for word in words:
        if word not in known:
            raise UsageError(f"`{parameter.opts[0]} {word}` is none of {', '.join(known)}")
    return tuple(dict.fromkeys(words))


def time_span(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """``90``, ``90s``, ``10m``, ``1h30m`` in seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", value.strip())
    numbers = [float(number or 0) for number in found.groups()] if found and value.strip() else [0.0, 0.0, 0.0]
    seconds = 3600 * numbers[0] + 60 * numbers[1] + numbers[2]
    if seconds <= 0:
        raise UsageError(f"`{parameter.opts[0]} {value}` is no time", "for example `10m`, `90s` or `1h30m`")
    return seconds


def _shapes(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> dict[str, tuple[int | str, ...]]:
    """``NAME=1x3x224x224`` (commas will do) as name and sizes, of which some may be names of open dimensions; of lists,
    ``NAME[0]=``, a scalar, and ``NAME[]=``."""
    shapes: dict[str, tuple[int | str, ...]] = {}
    for value in values:
        name, _, text = value.rpartition("=")
        if name.endswith("]") and not text.strip():
            shapes[name.strip()] = ()
            continue
        text = text.strip().strip("[]()")
        sizes = [word.strip() for word in text.split("," if "," in text else "x")]
        if not name or not all(re.fullmatch(r"\d+|[A-Za-z_][\w.]*", word) for word in sizes):
            raise UsageError(f"`--shape {value}` is not NAME=SIZExSIZE...", "for example `--shape input=1x3x224x224`")
        shapes[name.strip()] = tuple(int(word) if word.isdigit() else word for word in sizes)
    return shapes


def _ranges(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, tuple[int, int]]:
    """``N=1..16`` as name, lowest and highest size."""
    ranges: dict[str, tuple[int, int]] = {}
    for value in values:
        found = re.fullmatch(r"(.+)=(\d{1,12})\.\.(\d{1,12})", value.strip())
        if not found:
            raise UsageError(f"`--range {value}` is not NAME=LOW..HIGH", "for example `--range N=1..16`")
        ranges[found[1].strip()] = int(found[2]), int(found[3])
    return ranges


def _buckets(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """``N:1,4,16`` as name and sizes; without a name, of the only open dimension, whose name is then empty."""
    buckets: dict[str, tuple[int, ...]] = {}
    for value in values:
        name, _, text = value.rpartition(":")
        words = [word.strip() for word in text.split(",")]
        if not all(re.fullmatch(r"\d{1,12}", word) for word in words):
            raise UsageError(f"`--buckets {value}` is not NAME:SIZE,SIZE...", "for example `--buckets N:1,4,16`")
        buckets[name.strip()] = (*buckets.get(name.strip(), ()), *map(int, words))
    return buckets


def _sizes(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, int]:
    """``N=4`` as name and size."""
    sizes: dict[str, int] = {}
    for value in values:
        found = re.fullmatch(r"(.+)=(\d{1,12})", value.strip())
        if not found:
            raise UsageError(f"`--size {value}` is not NAME=SIZE", "for example `--size N=4`")
        sizes[found[1].strip()] = int(found[2])
    return sizes


def _bindings(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """``NAME=0,1`` or ``NAME=@FILE.npy`` as name and text."""
    bindings: dict[str, str] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not name.strip() or not equals:
            raise UsageError(f"`--bind {value}` is not NAME=VALUES", "for example `--bind axes=0,1`")
        bindings[name.strip()] = text
    return bindings


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


SHAPES = (
    option("shape", "--shape", multiple=True, callback=_shapes, metavar="NAME=1x3x224x224", note=" Repeatable."),
    click.option(
        "--input-shapes", callback=_input_shapes, metavar='"A:[1,3] B:[1]"', help="The same, as tvmc spells it."
    ),
)
RANGES = (
    option("range", "--range", multiple=True, callback=_ranges, metavar="NAME=1..16", note=" Repeatable."),
    option("buckets", "--buckets", multiple=True, callback=_buckets, metavar="[NAME:]1,4,16", note=" Repeatable."),
    option("general", "--general/--no-general", default=True, show_default=True),
)
SIZES = click.option(
    "--size",
    "sizes",
    multiple=True,
    callback=_sizes,
    metavar="NAME=N",
    help="The size of an open dimension in inputs that no file gives.  [default: the highest]  Repeatable.",
)
BIND = option("bind", "--bind", multiple=True, callback=_bindings, metavar="NAME=VALUES", note=" Repeatable.")
TARGET = option("target", "-t", "--target", default="native", show_default=True)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, also of errors; for scripts.")
DEVICE = click.option(
    "--device",
    default="",
    metavar="sim|rtl[:OPTIONS]|DRIVER[:URI]",
    help="The accelerator of a library for one: the simulator, `sim:memory=ideal` with another memory, its core in "
    "SystemVerilog, which Verilator runs, or a driver's library; by default what NNCC_ACCELERATOR in the environment "
    "says.",
)
THREADS = click.option(
    "--threads", type=click.IntRange(min=0), default=1, show_default=True, help="Threads; 0 for one per processor."
)
FILL = (
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


def all_of(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator for several options, which help shows in this order."""

    def decorate(command: Any) -> Any:
        for each in reversed(options):
            command = each(command)
        return command

    return decorate


def print_json(value: Any) -> None:
    """What a command prints where it is asked for JSON."""
    from nncc.reports import json_text

    click.echo(json_text(value), nl=False)
