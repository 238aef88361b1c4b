"""``nncc vta``: programs of the accelerator, as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from nncc.cli.errors import Group
from nncc.cli.options import JSON, SHAPES, all_of, option, print_json
from nncc.errors import UsageError

__all__ = ["vta"]


@click.group("vta", cls=Group, short_help="The accelerator: its programs as text, its simulator, other sizes of it.")
def vta() -> None:
    """Look at programs of the accelerator, simulate it for programs in C, and see what other sizes of it would do."""


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in (value or "").split(",") if word.strip())
    except ValueError:
        raise UsageError(f"`{parameter.opts[0]} {value}` is no list of numbers", "for example `16,32`") from None


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


@vta.command("simulator", short_help="A target's simulator, as a driver for programs in C.")
@option("target", "-t", "--target", default="vta", show_default=True)
@click.option("-o", "--output", type=Path, help="Write it here; by default it stays where it is kept.")
def simulator_command(target: str, output: Path | None) -> None:
    """Compile the simulator of a target's accelerator, and print where it is.

    It is a driver as that of a board: `nncc-bench LIBRARY --device FILE:sim`, or NNCC_ACCELERATOR=FILE:sim.
    """
    import shutil

    from nncc.errors import OutputError
    from nncc.target import resolve
    from nncc.vta.simulator import build_simulator

    machine = resolve(target).hardware.accelerator
    if machine is None:
        raise UsageError(
            f"`{target}` has no accelerator to simulate", "`--target vta`, or a TOML file with [accelerator]"
        )
    library = build_simulator(machine)
    if output is not None:
        try:
            shutil.copyfile(library, output)
        except OSError as error:
            raise OutputError(f"cannot write `{output}`: {error.strerror or error}", "choose another file") from error
    click.echo(output or library)


@vta.command("explore", short_help="A model's cycles on accelerators of other sizes.")
@click.argument("model", type=Path)
@option("target", "-t", "--target", default="vta", show_default=True)
@click.option("--block", callback=_numbers, metavar="16,32", help="Lanes of the matrix unit to try.")
@click.option("--bus", callback=_numbers, metavar="8,16", help="Bytes a cycle of the DRAM port to try.")
@click.option("--inp", callback=_numbers, metavar="32,64", help="KiB of the scratchpad of activations to try.")
@click.option("--wgt", callback=_numbers, metavar="128,256", help="KiB of the scratchpad of weights to try.")
@click.option("--acc", callback=_numbers, metavar="64,128", help="KiB of the scratchpad of sums to try.")
@click.option("--memory", default="", metavar="ideal|pynq|ultra96", help="The DRAM beside it; by default the target's.")
@click.option(
    "--budget",
    default="",
    metavar="AREA",
    help="Leave out machines that are larger: mm² of 40 nm silicon, as 3.5, or times the target's own, as 1.5x.",
)
@all_of(*SHAPES)
@JSON
def explore_command(
    model: Path,
    target: str,
    block: tuple[int, ...],
    bus: tuple[int, ...],
    inp: tuple[int, ...],
    wgt: tuple[int, ...],
    acc: tuple[int, ...],
    memory: str,
    budget: str,
    shape: Mapping[str, tuple[int, ...]],
    input_shapes: Mapping[str, tuple[int, ...]],
    as_json: bool,
) -> None:
    """Compile MODEL, a quantized ONNX file, for each combination of sizes, and count the cycles of an inference.

    Nothing is computed but time; what a machine cannot hold is said. How large a machine is, is estimated from what it
    is made of, with the areas of a 40 nm library: good to compare machines, not to order silicon.
    """
    from nncc.reports.console import working
    from nncc.vta.area import budget_of
    from nncc.vta.explore import candidates_json, candidates_text, explore

    asked = {"block": block, "bus_bytes": bus, "inp_kib": inp, "wgt_kib": wgt, "acc_kib": acc}
    sizes = {name: values for name, values in asked.items() if values}
    if not sizes:
        raise UsageError("there is nothing to explore", "give some sizes: `--block 16,32 --bus 8,16`")
    most = budget_of(budget) if budget else None
    with working() as progress:
        progress.start("explore", str(model))
        found = explore(model, target, sizes, memory, {**shape, **input_shapes}, most, progress.tell)
    if as_json:
        print_json(candidates_json(found))
    else:
        click.echo(candidates_text(found, memory), nl=False)
