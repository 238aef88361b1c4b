"""Tuning records in a folder: plain lines that git merges, that several processes write, and that survive their death.

A folder has one file a target, ``x86-64-v4-2t.jsonl``, and whatever other ``*.jsonl`` came from shared places.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from nncc.errors import OutputError, RecordError
from nncc.tuning.locked_file import append, locked, replace
from nncc.tuning.record import LONGEST, Key, OtherFormat, Record, Workload, from_line
from nncc.tuning.record_set import RecordSet

__all__ = ["Journal", "Problem", "add_to_folder", "files_of", "keep_in_folder", "read_folder", "read_lines"]

SUFFIX = ".jsonl"
_METASCHEDULE = "database_workload.json"


class Problem(NamedTuple):
    """A line that was left out, and why."""

    file: str
    line: int
    reason: str


class Line(NamedTuple):
    """A line of a file, with what it says or why it says nothing."""

    number: int
    data: bytes
    found: Record | Workload | None
    reason: str
    foreign: bool
    """Whether a later nncc wrote it."""


def read_folder(path: str | Path, must_exist: bool = True) -> tuple[RecordSet, list[Problem]]:
    """The records of a folder, and the lines that were left out.

    Raises RecordError for a folder that cannot be read, that has MetaSchedule's files only, or is missing although it
    `must_exist`.
    """
    path = Path(path)
    with _readable(path):
        missing = not path.exists()
    return (RecordSet(), []) if missing and not must_exist else read_files(files_of(path))


def read_files(files: Iterable[Path]) -> tuple[RecordSet, list[Problem]]:
    """The records of files, of which some may be gone by now. Raises RecordError where one cannot be read."""

    def opened() -> Iterator[tuple[str, BinaryIO]]:
        for file in files:
            with _readable(file), contextlib.ExitStack() as stack:
                try:
                    stream = stack.enter_context(open(file, "rb"))
                except FileNotFoundError:  # pruned while this process looked
                    continue
                yield str(file), stream

    return read_streams(opened())


def read_streams(streams: Iterable[tuple[str, BinaryIO]]) -> tuple[RecordSet, list[Problem]]:
    """The records of open files, which problems call by their names."""
    records: list[Record] = []
    workloads: list[Workload] = []
    problems = []
    for name, stream in streams:
        for line in read_lines(stream):
            if isinstance(line.found, Record):
                records.append(line.found)
            elif line.found is not None:
                workloads.append(line.found)
            else:
                problems.append(Problem(name, line.number, line.reason))
    return RecordSet(records, workloads), problems


def files_of(folder: Path) -> list[Path]:
    """The files of records in a folder, sorted. Raises RecordError as :func:`read_folder`."""
    with _readable(folder):
        if not folder.exists():
            hint = "give the folder that `nncc tune` wrote"
            raise RecordError(f"there is no folder `{folder}` of tuning records", hint)
        if not folder.is_dir():
            raise RecordError(f"`{folder}` is a file, not a folder of tuning records", "give the folder it is in")
        files = sorted(file for file in folder.iterdir() if file.suffix == SUFFIX and file.is_file())
        if not files and (folder / _METASCHEDULE).exists():
            raise RecordError(
                f"`{folder}` holds records of TVM's MetaSchedule, not of nncc",
                f"`nncc records import {folder} FOLDER` makes records of nncc of them",
            )
    return files


def read_lines(stream: BinaryIO) -> Iterator[Line]:
    """The lines of an open file, in bytes, but for blank ones. None of them is an error."""
    for number, data in enumerate(_bounded(stream), 1):
        if not data.strip():
            continue
        found, reason, foreign = None, "", False
        try:
            found = from_line(data)
        except OtherFormat as error:
            reason, foreign = str(error), True
        except ValueError as error:
            whole = data.endswith(b"\n") or len(data) > LONGEST
            reason = str(error) if whole else f"it is cut off, or being written: {error}"
        yield Line(number, data, found, reason, foreign)


def _bounded(stream: BinaryIO) -> Iterator[bytes]:
    """Lines; one that is longer than a line may be is cut."""
    while data := stream.readline(LONGEST + 2):
        yield data
        while len(data) > LONGEST + 1 and not data.endswith(b"\n"):
            data = stream.readline(LONGEST + 2)


class Journal:
    """Adds records to a folder's file for `key`, one after another; any number of processes may do so at once.

    What is appended is on the disk when `append` returns. A writer that is killed loses no more than what it was
    appending. Raises OutputError at once where the folder cannot be made or written.
    """

    def __init__(self, folder: str | Path, key: Key) -> None:
        self.path = Path(folder) / (key.file_name + SUFFIX)
        with _writable(self.path.parent):
            _make(self.path.parent)
            with locked(self.path):
                pass

    def append(self, *items: Record | Workload) -> None:
        """Add lines. Raises OutputError, and leaves the file as it was, where there is no room.

        ValueError is for a line that is longer than 1 MiB.
        """
        data = b"".join(item.to_line().encode() + b"\n" for item in items)
        with _writable(self.path), locked(self.path) as descriptor:
            append(descriptor, data)


def add_to_folder(records: RecordSet, folder: str | Path) -> int:
    """Add to a folder what it does not have, each record in its target's file; gives the number of new records.

    A workload goes with the records of its task. A file gets all of its lines or none.
    """
    folder = Path(folder)
    known, _ = read_folder(folder, must_exist=False)
    with _writable(folder):
        _make(folder)
    for name, items in by_file(records - known, known).items():
        path = folder / (name + SUFFIX)
        with _writable(path), locked(path) as descriptor:
            before = path.read_bytes()
            if before and not before.endswith(b"\n"):
                before += b"\n"
            replace(path, before + b"".join(item.to_line().encode() + b"\n" for item in items), descriptor)
    return len(records - known)


def by_file(records: RecordSet, known: RecordSet | None = None) -> dict[str, list[Record | Workload]]:
    """What belongs into which file; workloads come first, beside a record of their task (of `known`, if need be)."""
    found: dict[str, list[Record | Workload]] = {}
    homes: dict[str, str] = {}
    for record in [*(known or ()), *records]:
        name = record.key.file_name
        homes[record.task.hash] = min(name, homes.get(record.task.hash, name))
    for workload in sorted(records.workloads.values(), key=lambda each: each.hash):
        found.setdefault(homes.get(workload.hash, "workloads"), []).append(workload)
    for record in records:
        found.setdefault(record.key.file_name, []).append(record)
    return found


def keep_in_folder(folder: str | Path, choose: Callable[[RecordSet], RecordSet]) -> tuple[RecordSet, RecordSet]:
    """Drop from a folder's files the lines that `choose` leaves out of what they hold; gives all, and what was kept.

    Nobody appends meanwhile. Lines stay in their files, once each, those of a later nncc too; damaged ones go, and so
    does a file without lines.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_writable(folder))
        held = [(file, stack.enter_context(locked(file))) for file in files_of(folder)]
        whole, _ = read_files(file for file, _ in held)
        kept = choose(whole)
        seen: set[Record | Workload] = set()
        for file, descriptor in held:
            lines = []
            with open(file, "rb") as stream:
                for line in read_lines(stream):
                    item = line.found
                    if line.foreign or (item is not None and item not in seen and _has(kept, item)):
                        lines.append(line.data.rstrip(b"\r\n") + b"\n")
                    if item is not None:
                        seen.add(item)
            replace(file, b"".join(lines), descriptor)
    return whole, kept


def _has(records: RecordSet, item: Record | Workload) -> bool:
    return item in records if isinstance(item, Record) else records.workloads.get(item.hash) == item


def _make(folder: Path) -> None:
    """The folder, and in a new one what tells git to keep the lines of both sides."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), open(folder / ".gitattributes", "x", encoding="utf-8") as file:
        file.write("*.jsonl merge=union\n")


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "look at its permissions" if error.errno == errno.EACCES else None
        raise RecordError(f"the tuning records in `{path}` cannot be read: {error.strerror or error}", hint) from error


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "free some space" if full else "choose another folder, or its permissions"
        raise OutputError(f"cannot write tuning records to `{path}`: {error.strerror or error}", hint) from error
