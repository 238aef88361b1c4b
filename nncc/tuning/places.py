"""Tuning records that are shared: a folder, or a URL of what fsspec reaches, that many people read and push to.

A push adds files and never changes one: each holds the lines that were missing, and its name their digest. So nobody
overwrites anybody, and a reader reads all files. ``index.json`` tells readers over HTTP what there is; it is made of
the listing, and each push writes it until it names all that the listing does: the last to write it has seen the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import secrets
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from nncc.errors import RecordError
from nncc.resources import cache_folder
from nncc.tuning.connect import Place, connect, explained, local_path
from nncc.tuning.record_files import SUFFIX, Problem, add_to_folder, by_file, read_folder, read_streams
from nncc.tuning.record_set import RecordSet

__all__ = ["Pushed", "fetch_place", "open_records", "pull", "push"]

INDEX = "index.json"
STALE = 86400
"""Seconds after which a cached file that is not at its place any more goes."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}\.jsonl")
_SEGMENT = re.compile(r".*\.([0-9a-f]{16})\.jsonl")
_TRIES = 8


class Pushed(NamedTuple):
    """What a push added."""

    records: int
    files: tuple[str, ...]


def open_records(places: Iterable[str | Path]) -> tuple[RecordSet, list[Problem]]:
    """The records of several places, folders and URLs, united; and the lines that were left out.

    Raises RecordError where a place cannot be read, ToolError where a package for it is missing.
    """
    found = RecordSet()
    problems: list[Problem] = []
    for place in places:
        records, more = fetch_place(place)
        found, problems = found | records, problems + more
    return found, problems


def fetch_place(url: str | Path, cache: Path | None = None, must_exist: bool = True) -> tuple[RecordSet, list[Problem]]:
    """The records of a place, and the lines that were left out. What `cache` has already is not fetched again.

    Raises as :func:`open_records`.
    """
    folder = local_path(url)
    if folder is not None:
        return read_folder(folder, must_exist)
    place = connect(url)
    store = (cache or cache_folder()) / "records" / hashlib.sha256(place.url.encode()).hexdigest()[:16]
    with explained(place.shown):
        return read_streams(_streams(place, _listing(place, must_exist), store))


def pull(url: str | Path, folder: str | Path) -> tuple[int, list[Problem]]:
    """Add the records of a place to a folder; gives how many were new, and the lines that were left out."""
    records, problems = fetch_place(url)
    return add_to_folder(records, folder), problems


def push(source: RecordSet | str | Path, url: str | Path) -> Pushed:
    """Add records to a place that does not have them yet.

    Raises as :func:`open_records`, also where the place cannot be written, and OutputError where it is full.
    """
    place = connect(url, write=True)
    records = source if isinstance(source, RecordSet) else read_folder(source)[0]
    there, _ = fetch_place(url, must_exist=False)
    missing = records - there
    names = []
    with explained(place.shown):
        for stem, items in by_file(missing, there).items():
            data = "".join(item.to_line() + "\n" for item in items).encode()
            names.append(f"{stem}.{hashlib.sha256(data).hexdigest()[:16]}{SUFFIX}")
            _upload(place, names[-1], data)
    with contextlib.suppress(Exception):  # the records are there; whoever pushes next tries again
        _index(place)
    return Pushed(len(missing), tuple(names))


def _streams(place: Place, listed: Mapping[str, str], store: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Each file of a listing by its URL, from the store or, many at once, from the place."""
    kept = {name: store / (hashlib.sha256(f"{name} {mark}".encode()).hexdigest()[:32]) for name, mark in listed.items()}
    wanted = [name for name in listed if not listed[name] or not kept[name].is_file()]
    for name in sorted(set(listed) - set(wanted)):
        try:
            data = kept[name].read_bytes()
        except OSError:
            wanted.append(name)
            continue
        yield f"{place.shown}/{name}", io.BytesIO(data)
    for begin in range(0, len(wanted), 32):
        paths = {place.path(name): name for name in wanted[begin : begin + 32]}
        found = place.fs.cat(list(paths), on_error="return")
        for path, data in _by_path(found, paths).items():
            name = paths[path]
            if isinstance(data, FileNotFoundError):  # it was there when the place was listed, or the index says so
                continue
            if isinstance(data, BaseException):
                raise data
            digest = _SEGMENT.fullmatch(name)
            if listed[name] and (not digest or hashlib.sha256(data).hexdigest().startswith(digest[1])):
                _keep(kept[name], data)
            yield f"{place.shown}/{name}", io.BytesIO(data)
    _forget(store, {path.name for path in kept.values()})


def _by_path(found: Any, paths: Mapping[str, str]) -> dict[str, Any]:
    """What `cat` gives, by the paths it was asked for: some file systems change them, or take one for a single one."""
    if not isinstance(found, dict):
        return {next(iter(paths)): found}
    by_name = {path.rstrip("/").rpartition("/")[2]: data for path, data in found.items()}
    return {path: by_name[name] for path, name in paths.items() if name in by_name}


def _keep(path: Path, data: bytes) -> None:
    with contextlib.suppress(OSError):  # what cannot be kept is fetched again
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".nncc-", dir=path.parent)
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)


def _forget(store: Path, names: set[str]) -> None:
    with contextlib.suppress(OSError):
        for path in store.iterdir():
            if path.name not in names and path.stat().st_mtime < time.time() - STALE:
                path.unlink()


def _listing(place: Place, must_exist: bool = True) -> dict[str, str]:
    """The files of a place with a mark that changes when they do, empty where there is none."""
    if place.lists:
        try:
            return {name: _mark(name, info) for name, info in _listed(place).items()}
        except FileNotFoundError:
            if must_exist:
                raise
            return {}
    # Over HTTP a place may have an index, or a page with links, or both; what hides one need not hide the other.
    named: list[str] | None = None
    with contextlib.suppress(Exception):
        named = _read_index(place)
    links: set[str] = set()
    try:
        links = set(_listed(place))
    except Exception:
        if named is None:
            raise
    if named is None and not links:
        raise RecordError(f"`{place.shown}` answers, but not with tuning records", "look at the address")
    names = sorted(links | set(named or ()))
    return {name: _mark(name, {} if _SEGMENT.fullmatch(name) else _info(place, name)) for name in names}


def _listed(place: Place) -> dict[str, Mapping[str, Any]]:
    place.fs.invalidate_cache()
    found = {info["name"].rstrip("/").rpartition("/")[2]: info for info in place.fs.ls(place.root, detail=True)}
    return {name: info for name, info in found.items() if _NAME.fullmatch(name) and info.get("type") != "directory"}


def _info(place: Place, name: str) -> Mapping[str, Any]:
    try:
        return place.fs.info(place.path(name))
    except FileNotFoundError:
        return {}


def _mark(name: str, info: Mapping[str, Any]) -> str:
    """A segment never changes. Of others it takes a tag, or a time and the size."""
    if _SEGMENT.fullmatch(name):
        return "segment"
    known = {key.lower(): str(value) for key, value in info.items() if value is not None}
    words = [known[key] for key in ("etag", "mtime", "lastmodified", "last-modified", "updated") if key in known]
    return " ".join([*words, known.get("size", "")]) if words else ""


def _upload(place: Place, name: str, data: bytes) -> None:
    """All of a file appears at its place, or nothing."""
    if place.atomic:
        place.fs.pipe_file(place.path(name), data)
        return
    place.fs.makedirs(place.root, exist_ok=True)
    begun = place.path(f".nncc-{secrets.token_hex(8)}.tmp")
    try:
        place.fs.pipe_file(begun, data)
        place.fs.mv(begun, place.path(name))
    except BaseException:
        with contextlib.suppress(Exception):
            place.fs.rm_file(begun)
        raise


def _index(place: Place) -> None:
    """Write the index until it names exactly what is there."""
    for attempt in range(_TRIES):
        names = sorted(_listed(place))
        if _read_index(place) == names:
            return
        if attempt:
            time.sleep(random.uniform(0, 0.05 * 2**attempt))
        _upload(place, INDEX, (json.dumps({"nncc": 1, "files": names}, indent=1) + "\n").encode())


def _read_index(place: Place) -> list[str] | None:
    """The names of the index, or None where there is none that can be read."""
    try:
        data = place.fs.cat_file(place.path(INDEX))
    except FileNotFoundError:
        return None
    try:
        names = json.loads(data)["files"]
        return [name for name in names if isinstance(name, str) and _NAME.fullmatch(name)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
