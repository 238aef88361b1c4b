"""Targets from their descriptions: ``targets/*.toml`` and files like them, one level of ``extends``."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.errors import TargetError, did_you_mean
from nncc.host import host
from nncc.resources import targets_folder
from nncc.target.facts import Hardware, Link, Target
from nncc.target.words import check_keys

if TYPE_CHECKING:
    from nncc.vta.machine import Machine

__all__ = ["SECTIONS", "available", "checked", "load", "order_of_choice", "types_of"]

SECTIONS: dict[str, type] = {"doc": str, "extends": str, "choose": list, "tvm": dict, "hardware": dict, "link": dict}
SECTIONS |= {"accelerator": dict}
"""What a description may have."""


def available() -> list[Target]:
    """Every target of ``targets/``, by name; without ``native`` where this machine is none of them."""
    targets = []
    for path in sorted(targets_folder().glob("*.toml"), key=lambda path: path.stem):
        description = _read(path)
        if (chosen := _chosen(description)) is None or _choose(chosen["choose"]) is not None:
            targets.append(load(path.stem))
    return targets


def order_of_choice() -> list[str]:
    """The targets that ``native`` is the first of that this machine can run."""
    return _read(targets_folder() / "native.toml")["choose"]


def load(name: str) -> Target:
    """The target of a file of ``targets/``, or of a path, without overrides."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise TargetError(f"there is no target file `{name}`")
    else:
        known = {path.stem: path for path in targets_folder().glob("*.toml")}
        if name not in known:
            hint = "`nncc targets` lists all of them"
            raise TargetError(f"unknown target `{name}`", f"{did_you_mean(name, known)} {hint}".strip())
        path = known[name]
    description = _read(path)
    if "choose" in description:
        return _native(path.stem, description, path)
    if "accelerator" in description and _chosen(description) is not None:
        return _hosted(path.stem, description, str(path))
    return _target(path.stem, _extended(description, str(path)), str(path))


def _chosen(description: dict[str, Any]) -> dict[str, Any] | None:
    """The description that chooses the processor: this one, or the one that it extends; None where none does."""
    path = targets_folder() / f"{description.get('extends', '')}.toml"
    found = description if "choose" in description or not path.is_file() else _read(path)
    return found if "choose" in found else None


def _read(path: Path) -> dict[str, Any]:
    """The checked contents of one file, without what it extends."""
    from nncc.toml import tomllib

    try:
        description = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TargetError(f"{path}: {error}") from error
    return checked(description, str(path))


def checked(description: dict[str, Any], where: str) -> dict[str, Any]:
    """The description, if it has known keys only; TargetError that says `where`."""
    check_keys(description, SECTIONS, where, "a target")
    for section, kind in (("hardware", Hardware), ("link", Link)):
        check_keys(description.get(section, {}), types_of(kind), where, f"[{section}]")
    if "extends" in description and "choose" in description:
        raise TargetError(f"{where}: has both `extends` and `choose`", "keep one of them")
    return description


def types_of(kind: type[Hardware] | type[Link]) -> dict[str, type]:
    """By key of ``[hardware]`` or ``[link]``, what its value is."""
    return {f.name: type(f.default) for f in fields(kind) if f.default is not MISSING and f.default is not None}


def _extended(description: dict[str, Any], where: str) -> dict[str, Any]:
    """`description` over the one it extends: table by table, key by key."""
    if "extends" not in description:
        return description
    path = targets_folder() / f"{description['extends']}.toml"
    if not path.is_file():
        hint = did_you_mean(path.stem, (other.stem for other in path.parent.glob("*.toml")))
        raise TargetError(f"{where}: `extends` names the unknown target `{path.stem}`", hint)
    base = _read(path)
    for key in ("extends", "choose"):
        if key in base:
            hint = "only one level: extend a target that stands by itself"
            raise TargetError(f"{where}: `extends` names `{path.stem}`, which has `{key}` itself", hint)
    tables = {key: base.get(key, {}) | description.get(key, {}) for key in ("tvm", "hardware", "link")}
    return base | description | tables


def _target(name: str, description: Mapping[str, Any], where: str) -> Target:
    tvm = dict(description.get("tvm", {}))
    if "kind" not in tvm:
        raise TargetError(f"{where}: [tvm] has no `kind`", 'TVM\'s kind of target: `kind = "llvm"` for processors')
    if tvm["kind"] == "llvm" and "mtriple" not in tvm:
        raise TargetError(f"{where}: [tvm] has no `mtriple`", 'for example `mtriple = "aarch64-unknown-linux-gnu"`')
    hardware = dict(description.get("hardware", {}))
    hardware.setdefault("cores", tvm.get("num-cores", 1))
    doc, facts = description.get("doc", ""), Hardware(**_frozen(hardware), accelerator=_machine(description, where))
    return Target(name, doc, tvm, facts, Link(**_frozen(description.get("link", {}))), name)


def _machine(description: Mapping[str, Any], where: str) -> Machine | None:
    if "accelerator" not in description:
        return None
    from nncc.vta.machine import Machine

    return Machine.from_table(description["accelerator"], where)


def _hosted(name: str, description: Mapping[str, Any], where: str) -> Target:
    """This machine with an accelerator beside it, and with other facts where the description has some."""
    for key in ("tvm", "link"):
        if key in description:
            raise TargetError(f"{where}: [{key}] is that of this machine", "leave it out, or extend another target")
    target = load(description["extends"])
    facts = _frozen(description.get("hardware", {})) | {"accelerator": _machine(description, where)}
    doc = f"{description.get('doc', name)}; host: {target.doc}"
    return replace(target, name=name, doc=doc, hardware=replace(target.hardware, **facts), base=name)


def _frozen(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _choose(names: Iterable[str]) -> Target | None:
    """The first of the targets that this machine can run."""
    machine = host()
    return next((target for target in map(load, names) if machine.missing(target) == []), None)


def _native(name: str, description: Mapping[str, Any], path: Path) -> Target:
    """The best of ``choose``, with this machine's own number of cores and cache sizes."""
    target = _choose(description["choose"])
    if target is None:
        message = f"this machine ({platform.system()} on {platform.machine()}) is none of the targets of {path.name}"
        raise TargetError(message, "name the target, or describe it in a TOML file")
    machine = host()
    hardware = replace(
        target.hardware,
        cores=machine.cores,
        l1_kib=machine.l1_kib or target.hardware.l1_kib,
        l2_kib=machine.l2_kib or target.hardware.l2_kib,
    )
    tvm = target.tvm | {"num-cores": machine.cores}
    doc = f"{description.get('doc', 'this machine')}: {target.name}, {machine.cores} cores"
    return replace(target, name=name, doc=doc, tvm=tvm, hardware=hardware)
