"""What the command line says of errors, and with which exit status; what to do instead of what tvmc had."""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from nncc.errors import InternalError, NnccError, UsageError
from nncc.reports.console import wants_traceback

__all__ = ["FORMER_OPTIONS", "Group", "said"]

DEFECT = 70
INTERRUPTED = 130

_FORMER_COMMANDS = {
    "micro": "for a microcontroller, compile with `--emit a` for a target described in a TOML file",
    "benchmark": "did you mean `nncc bench`?",
}
FORMER_OPTIONS = {
    "--executor": "nncc compiles straight-line code: there is no executor to choose",
    "--runtime": "nncc's libraries need no runtime",
    "--opt-level": "nncc always optimizes; `--until STAGE` and `nncc show --stage STAGE` look inside",
    "-O": "nncc always optimizes; `--until STAGE` and `nncc show --stage STAGE` look inside",
    "--desired-layout": "nncc chooses the layout for the target; inputs and outputs stay as they are in the model",
    "--model-format": "nncc reads ONNX: convert the model first",
    "--cross-compiler": "the target chooses a C compiler; `$CC` names your own, for this machine",
    "--device": "the library knows where it runs",
    "--pass-config": "`--schedules FILE` brings loops of your own; targets are described in TOML files",
    "--rpc-tracker": "`nncc tune --runner rpc://HOST:PORT/KEY`, or a program for the board, `nncc bench --runner`",
    "--rpc-key": "`nncc tune --runner rpc://HOST:PORT/KEY`, or a program for the board, `nncc bench --runner`",
    "--number": "`--repeat N` runs N times",
    "--print-pass-times": "`nncc compile` prints the time of every stage",
    "--target-host": "`--target` describes the processor that runs the library",
}
"""What tvmc had and nncc has not, and what to do instead."""


def said(run: Callable[[], Any], words: Sequence[str]) -> Any:
    """What `run` returns; of an error, its exit status, once it is told on stderr, or as JSON if `words` ask for it."""
    try:
        return run()
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except click.ClickException as error:
        return _fail(_usage_message(error), _usage_hint(error), 2, "--json" in words)
    except InternalError as error:
        return _defect(error, error.message, error.hint, words)
    except NnccError as error:
        _trace(error)
        return _fail(error.message, error.hint, error.exit_code, "--json" in words)
    except Exception as error:
        return _defect(error, f"{type(error).__name__}: {error}", None, words)


class Group(click.Group):
    """A group of commands whose errors all look alike, and whose exit status says whose they are."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]
        words = list(sys.argv[1:] if args is None else args)
        extra["standalone_mode"] = False
        if not words:
            click.echo(self.get_help(self.make_context("nncc", ["--help"], resilient_parsing=True)), err=True)
            sys.exit(2)
        code = said(lambda: super(Group, self).main(words, "nncc", **extra), words)
        sys.exit(code if isinstance(code, int) else 0)

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not args and not context.resilient_parsing:
            click.echo(self.get_help(context), err=True)
            context.exit(2)
        return super().parse_args(context, args)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if self.get_command(context, name) is None and not name.startswith("-"):
            path = context.command_path
            answer = _FORMER_COMMANDS.get(name) if path == "nncc" else None
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = answer or (f"did you mean `{path} {near[0]}`?" if near else f"there are: {', '.join(self.commands)}")
            raise UsageError(f"{path} has no command `{name}`", hint)
        return super().resolve_command(context, args)

    def list_commands(self, context: click.Context) -> list[str]:
        return list(self.commands)  # in the order of use, not of the alphabet


def _usage_message(error: click.ClickException) -> str:
    if isinstance(error, click.exceptions.NoSuchOption):
        return f"there is no option `{error.option_name}`"
    message = error.format_message()
    message = re.sub(r"'(-?-[\w-]+|[A-Z_.]+)'", r"`\1`", message.rstrip("."))
    return message[:1].lower() + message[1:]


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "nncc"
    if isinstance(error, click.exceptions.NoSuchOption):
        if answer := FORMER_OPTIONS.get(error.option_name):
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
    if wants_traceback():
        import traceback

        click.echo("".join(traceback.format_exception(error)), err=True)
