"""``nncc records``: what people do with tuning records, in folders and in the places where they share them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nncc.cli.errors import Group
from nncc.cli.options import JSON, TARGET, option, print_json
from nncc.reports.console import working

if TYPE_CHECKING:
    from nncc.tuning.record_files import Problem
    from nncc.tuning.record_set import RecordSet

__all__ = ["records"]


@click.group("records", cls=Group, short_help="Tuning records: look at them, merge and share them.")
def records() -> None:
    """Look at tuning records, merge and share them.

    A PLACE is a folder, or a URL: file://, ssh://, s3://, gs://; http:// and https:// can be read.
    """


@records.command("stats", short_help="How many there are, and what they bring.")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@JSON
def stats_command(places: tuple[str, ...], as_json: bool) -> None:
    """Count the records of all PLACEs: tasks, failures, and the gain for each target and processor."""
    from nncc.reports import records as report
    from nncc.tuning.set_operations import stats

    facts = stats(_read(*places))
    _print(report.stats_facts(facts) if as_json else report.stats_text(facts))


@records.command("query", short_help="Show some of them.")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@click.option("--task", default="", metavar="TEXT", help="Of tasks with this in their text, or a hash that begins so.")
@click.option("--target", default="", metavar="NAME", help="Of this target.")
@click.option("--best", is_flag=True, help="Only what would be compiled with.")
@JSON
def query_command(places: tuple[str, ...], task: str, target: str, best: bool, as_json: bool) -> None:
    """Show the records of all PLACEs, or some of them."""
    from nncc.reports import records as report
    from nncc.tuning.set_operations import prune, query

    found = _read(*places)
    if target:
        target = _target_name(target, {name for key in found.keys for name in (key.target, key.file_name)})
    found = query(found, task, target)
    shown = [each for each in prune(found) if each.accepted] if best else list(found)
    _print(report.record_facts(shown) if as_json else report.query_text(shown))


@records.command("diff", short_help="Which of two is faster, and where.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@JSON
def diff_command(a: str, b: str, as_json: bool) -> None:
    """Compare the best records of two places, task by task."""
    from nncc.reports import records as report
    from nncc.tuning.set_operations import diff

    rows = diff(_read(a), _read(b))
    _print(report.diff_facts(rows) if as_json else report.diff_text(rows))


@records.command("merge", short_help="All records of several places into one folder.")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@click.option("-o", "--output", type=Path, metavar="FOLDER", required=True, help="It keeps what it has.")
@JSON
def merge_command(places: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Add the records of all PLACEs to a folder."""
    from nncc.tuning.record_files import add_to_folder

    found = _read(*places)
    with working():
        added = add_to_folder(found, output)
    _added(added, str(output), {"added": added, "folder": str(output)}, as_json)


@records.command("prune", short_help="Keep the best of a folder, drop the rest.")
@click.argument("folder", type=Path)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Of each task, target and processor.",
)
@click.option("--history", is_flag=True, help="Keep what failed or lost, too.")
@JSON
def prune_command(folder: Path, keep: int, history: bool, as_json: bool) -> None:
    """Keep the best records of each task, target and processor in FOLDER, drop the rest and damaged lines."""
    from nncc.reports import plural
    from nncc.tuning.record_files import keep_in_folder
    from nncc.tuning.set_operations import prune

    with working() as progress:
        progress.start("prune", str(folder))
        before, after = keep_in_folder(folder, lambda found: prune(found, keep, history))
    if as_json:
        return _print({"before": len(before), "after": len(after), "folder": str(folder)})
    dropped = len(before) - len(after)
    return _print(f"{plural(dropped, 'record')} dropped, {len(after)} kept in {folder}\n")


@records.command("verify", short_help="Measure a folder's winners again, drop what no longer holds.")
@click.argument("folder", type=Path)
@TARGET
@option("threads", "--threads", type=int, metavar="N")
@option("runner", "--runner", default="local", show_default=True, metavar="RUNNER")
@JSON
def verify_command(folder: Path, target: str, threads: int | None, runner: str, as_json: bool) -> None:
    """Measure the winners in FOLDER for a target again, on this machine or on boards, and refuse what is no faster."""
    from nncc.config import Config
    from nncc.pipeline import target_for
    from nncc.reports import records as report
    from nncc.tuning.verify_records import verify

    found = _read(str(folder))
    with working() as progress:
        progress.start("verify", str(folder))
        verdicts = verify(found, target_for(Config(target=target, threads=threads)), folder, runner, progress.tell)
    _print(report.verdict_facts(verdicts) if as_json else report.verdict_text(verdicts))


@records.command("export", short_help="The best records in the form of TVM's own tools.")
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@click.option("-o", "--output", type=Path, metavar="FOLDER", required=True, help="For MetaSchedule's two files.")
@JSON
def export_command(places: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Write the best record of each kernel of all PLACEs as MetaSchedule's database."""
    from nncc.reports import plural
    from nncc.tuning.exchange import export

    found = _read(*places)
    with working() as progress:
        progress.start("export", str(output))
        count, left_out = export(found, output)
    _left_out(left_out)
    facts = {"exported": count, "left_out": left_out, "folder": str(output)}
    _print(facts if as_json else f"{plural(count, 'record')} exported to {output}\n")


@records.command("import", short_help="Records of TVM's own tools into a folder.")
@click.argument("source", metavar="FOLDER", type=Path)
@click.option("-o", "--output", type=Path, metavar="FOLDER", required=True, help="It keeps what it has.")
@click.option("--measured-here", is_flag=True, help="They were measured on this machine: then they hold for `native`.")
@JSON
def import_command(source: Path, output: Path, measured_here: bool, as_json: bool) -> None:
    """Add the records of a MetaSchedule database in FOLDER."""
    from nncc.host import host
    from nncc.tuning.exchange import import_
    from nncc.tuning.record_files import add_to_folder

    with working() as progress:
        progress.start("import", str(source))
        found, left_out = import_(source, host().processor if measured_here else "")
        added = add_to_folder(found, output)
    _left_out(left_out)
    _added(added, str(output), {"added": added, "left_out": left_out, "folder": str(output)}, as_json)


@records.command("push", short_help="Add a folder's records to a shared place.")
@click.argument("folder", metavar="FOLDER")
@click.argument("url")
@JSON
def push_command(folder: str, url: str, as_json: bool) -> None:
    """Add to URL the records of FOLDER that it does not have yet. Others may push at the same time."""
    from nncc.tuning.places import push

    found = _read(folder)
    with working() as progress:
        progress.start("push", url)
        done = push(found, url)
    _added(done.records, url, {"added": done.records, "files": list(done.files), "url": url}, as_json)


@records.command("pull", short_help="Add a shared place's records to a folder.")
@click.argument("url")
@click.argument("folder", type=Path)
@JSON
def pull_command(url: str, folder: Path, as_json: bool) -> None:
    """Add to FOLDER the records of URL that it does not have yet."""
    from nncc.tuning.places import pull

    with working() as progress:
        progress.start("pull", url)
        added, problems = pull(url, folder)
    _warn(problems)
    _added(added, str(folder), {"added": added, "folder": str(folder)}, as_json)


def _read(*places: str) -> RecordSet:
    """The records of places; what is damaged is a warning."""
    from nncc.tuning.places import open_records

    with working() as progress:
        progress.start("read", ", ".join(places))
        found, problems = open_records(places)
    _warn(problems)
    return found


def _warn(problems: list[Problem]) -> None:
    from nncc.reports.records import warnings_text

    click.echo(warnings_text(problems), err=True, nl=False)


def _target_name(word: str, known: set[str]) -> str:
    """The name that records have for what ``--target`` says: ``native`` is one of the others."""
    from nncc.errors import NnccError
    from nncc.target import resolve

    if word in known:
        return word
    try:
        return resolve(word).base
    except NnccError:
        return word


def _added(number: int, where: str, facts: dict[str, Any], as_json: bool) -> None:
    from nncc.reports import plural

    _print(facts if as_json else f"{plural(number, 'record')} added to {where}\n")


def _print(what: Any) -> None:
    """Text as it is, anything else as JSON."""
    if isinstance(what, str):
        click.echo(what, nl=False)
    else:
        print_json(what)


def _left_out(lines: list[str]) -> None:
    """At most ten lines of what was not taken, and a count."""
    for line in lines[:10]:
        click.echo(f"warning: left out: {line}", err=True)
    if len(lines) > 10:
        click.echo(f"warning: {len(lines) - 10} more left out", err=True)
