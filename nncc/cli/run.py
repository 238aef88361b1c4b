"""``nncc run`` and ``nncc bench``: what a library computes, and how long it takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nncc.cli.options import DEVICE, FILL, JSON, SIZES, THREADS, all_of, print_json
from nncc.reports.console import working

if TYPE_CHECKING:
    from nncc.execute import OpenLibrary
    from nncc.frontend.samples import Fill
    from nncc.measurement import Simulation

__all__ = ["bench_command", "run_command"]


@click.command("run", short_help="Run a library once, here or in an emulator.")
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
    from nncc.execute import open_library
    from nncc.frontend.samples import choose_inputs, write_outputs
    from nncc.reports import bench as report
    from nncc.reports.library import output_facts, output_text

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
    facts |= {"inputs": how, "emulated_by": opened.emulated_by, "outputs": output_facts(results, print_top or 0)}
    if print_time:
        facts["time"] = report.measurement_facts(opened, measured)
    if as_json:
        return print_json(facts)
    where = f", emulated by {opened.emulated_by}" if opened.emulated_by else ""
    click.echo(f"{facts['name']} for {facts['target']}{where}; inputs: {how}\n")
    click.echo(output_text(facts["outputs"]), nl=False)
    if print_time:
        click.echo("\n" + report.measurement_text(opened, measured), nl=False)
    if outputs is not None:
        click.echo(f"\nwritten to {outputs}")


@click.command("bench", short_help="Time a library, and each of its kernels.")
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
    from nncc.emulation import write_runner
    from nncc.execute import open_library
    from nncc.frontend.samples import choose_inputs
    from nncc.library_facts import device_beside, schedules_beside
    from nncc.reports import bench as report
    from nncc.roofline import attempt, typical, working_set

    if runner is not None:
        with working() as progress:
            progress.start("link", "the bench program")
            program = write_runner(library, runner)
        if as_json:
            return print_json({"runner": str(program)})
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
        rows, limits, around = [], None, []
        if profile:
            progress.start("measure", "what this machine can do")
            around.append(attempt(opened))
        progress.start("time", str(library))
        found = opened.benchmark(arrays, repeat=repeat, seconds=seconds, warmup=warmup, profile=profile)
        if profile:
            progress.start("measure", "what this machine can do")
            limits = typical([*around, attempt(opened)])
            about = opened.describe()
            schedules, code = schedules_beside(library, about), device_beside(library, about)
            rows = report.kernel_rows(about["calls"], found.call_seconds, schedules, limits, code, working_set(about))
    if as_json:
        return print_json(report.measurement_facts(opened, found, rows, limits))
    click.echo(report.measurement_text(opened, found, rows, limits), nl=False)


def _show_simulation(opened: OpenLibrary, found: Simulation, profile: bool, as_json: bool) -> None:
    from nncc.library_facts import schedules_beside
    from nncc.reports.simulation import layer_rows, simulation_facts, simulation_text

    about = opened.describe()
    rows = layer_rows(about, found.cycles, schedules_beside(opened.path, about)) if profile else []
    if as_json:
        return print_json(simulation_facts(opened, found, rows))
    click.echo(simulation_text(opened, found, rows), nl=False)
