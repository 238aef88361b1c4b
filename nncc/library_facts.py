"""What a compiled library is, by its file and the one beside it: its machine, its target, its schedules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import NnccError, RunError, TargetError
from nncc.runtime import library_file

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["description_beside", "device_beside", "foreign_machine", "is_library", "schedules_beside", "target_of"]


def is_library(path: Path) -> bool:
    """Whether a file begins like a shared library of any machine."""
    try:
        return _machine(path) is not None
    except OSError:
        return False


def foreign_machine(path: Path) -> str | None:
    """The machine of a library that is for another than this one; None also for what is no library, or not there."""
    try:
        found = _machine(path)
    except OSError:
        found = None
    if found is None or found == library_file.this_machine():
        return None
    return f"{found[0]} {found[1]}"


def target_of(path: Path) -> Target:
    """The target that a library was compiled for, or one that is like it, for linking and emulating.

    A library for a target of the user's own only has its name: then the machine in the file's header decides.
    """
    from nncc.target import available, resolve

    found = _machine(path) if path.is_file() else None
    if found is None:
        library_file.check_file(str(path))
        raise RunError(f"{path} is not a shared library")
    machine, system = found
    try:
        target = resolve(library_file.target_of(str(path)) or "")
        if _same(target, machine, system):
            return target
    except NnccError:
        pass
    processors = [each for each in available() if each.name == each.base and not each.hardware.multiprocessors]
    alike = [target for target in processors if _same(target, machine, system)]
    if not alike:
        raise TargetError(
            f"`{path}` is for {machine} {system}, which is no target of nncc", "`nncc targets` lists them"
        )
    return min(alike, key=lambda each: len(each.hardware.features))


def description_beside(path: Path) -> dict[str, Any]:
    """What the .json beside a library says of one of its name; nothing where there is none."""
    try:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def schedules_beside(path: Path, description: Mapping[str, Any]) -> dict[str, str]:
    """Where each kernel's schedule came from: in the .json beside the library, if it is of the same build."""
    return _beside_of("schedules", path, description)


def device_beside(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of a GPU's code: in the .json beside the library, if it is of the same build, under ``device``."""
    return _beside_of("device", path, description)


def _beside_of(key: str, path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    about = description_beside(path)
    return dict(about.get(key, {})) if about.get("build") == description["build"] else {}


def _machine(path: Path) -> tuple[str, str] | None:
    with path.open("rb") as file:
        return library_file.file_machine(file.read(4096))


def _same(target: Target, machine: str, system: str) -> bool:
    names = {"amd64": "x86_64", "arm64": "aarch64"}
    there = target.link.machine.lower()
    return (
        names.get(there, there) == machine and {"Darwin": "macOS"}.get(target.link.system, target.link.system) == system
    )
