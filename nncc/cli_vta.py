"""``nncc vta``: programs of the accelerator, as people read them."""

from __future__ import annotations

from pathlib import Path

import click

from nncc.cli_errors import Group

__all__ = ["vta"]


@click.group("vta", cls=Group, short_help="The accelerator: its programs as text.")
def vta() -> None:
    """Look at programs of the accelerator."""


@vta.command("disasm", short_help="A program's instructions, one a line.")
@click.argument("file", type=Path)
@click.option("--uops", is_flag=True, help="Print the micro-operations too.")
def disasm_command(file: Path, uops: bool) -> None:
    """Print the instructions of FILE, a program of the accelerator or a library with such programs in it."""
    from nncc.errors import RunError
    from nncc.vta.disassemble import disassemble
    from nncc.vta.program import find_binaries

    try:
        data = file.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read `{file}`: {error.strerror}") from error
    for binary in find_binaries(data, f"`{file}`"):
        click.echo(disassemble(binary, uops), nl=False)
