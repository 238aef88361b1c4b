"""The command line: its commands, each in a file that parses, calls one function and prints. Nothing heavy is
imported before a command needs it.

Exit status: 0 ok; 1 an error that its reader can act on; 2 the words of the call are off; 70 a defect of nncc;
130 interrupted.
"""

from __future__ import annotations

import click

from nncc.cli.compare import compare_command
from nncc.cli.compile import check_command, compile_command
from nncc.cli.distill import distill_command
from nncc.cli.errors import Group
from nncc.cli.prune import prune_command
from nncc.cli.quant import quantize_command
from nncc.cli.records import records
from nncc.cli.run import bench_command, run_command
from nncc.cli.show import doctor_command, show_command, targets_command
from nncc.cli.tune import tune_command
from nncc.cli.vta import vta
from nncc.version import VERSION

__all__ = ["cli", "main"]


_COMMANDS = (
    compile_command,
    check_command,
    quantize_command,
    prune_command,
    distill_command,
    compare_command,
    tune_command,
    run_command,
    bench_command,
    show_command,
    records,
    vta,
    targets_command,
    doctor_command,
)
"""In the order in which help lists them."""


@click.group(
    cls=Group, commands=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(VERSION, message="nncc %(version)s")
def cli() -> None:
    """An ONNX model in, one small, fast, self-contained shared library out.

    \b
      nncc check   model.onnx --target rpi4
      nncc compile model.onnx --target rpi4
      nncc run     model-rpi4/model.so --fill random --print-top 5
      nncc bench   model-rpi4/model.so --threads 2
    """


_ISOLATED = ("check", "compare", "compile", "show")
"""Commands in which models of others reach TVM and LLVM; `tune` isolates every candidate by itself."""


def main() -> None:
    """The console script."""
    import sys

    if sys.argv[1:2] and sys.argv[1] in _ISOLATED:
        from nncc.cli.errors import said
        from nncc.isolation import isolated

        sys.exit(said(lambda: isolated(cli), sys.argv[1:]))
    cli()
