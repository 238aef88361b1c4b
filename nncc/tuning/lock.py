"""Lock files: what was decided for every kernel of a model, and for which machine: others get the same bytes by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from nncc.errors import RecordError, TargetError
from nncc.ir import Decision
from nncc.target import Hardware, Target, resolve
from nncc.version import VERSION
from nncc.whole_files import write_whole

__all__ = ["Lock", "read_lock", "write_lock"]

FORMAT = 1


@dataclass(frozen=True)
class Lock:
    """The contents of a lock file."""

    path: Path
    target: Target
    decisions: Mapping[str, Mapping[str, Any]]
    """By task."""

    def check(self, decisions: Sequence[Decision]) -> None:
        """RecordError where a model has kernels that the lock does not know, or that do not take its decisions."""
        off = [each for each in decisions if dict(each.taken) != self.decisions.get(each.task)]
        if off:
            shown = "".join(f"\n  {each.text[:90]}" for each in off[:5])
            more = f"\n  and {len(off) - 5} more" if len(off) > 5 else ""
            raise RecordError(
                f"the lock `{self.path}` does not fit the model; it has no decisions for{shown}{more}",
                "remove the file to write a new one",
            )


def read_lock(path: Path, wanted: str) -> Lock:
    """Read a lock file for the target that was asked for.

    RecordError where it cannot be read or another nncc wrote it, TargetError where it is for another target.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        number, version, target, entries = (found[key] for key in ("lock", "nncc", "target", "decisions"))
        name, base, tvm, hardware = (target[key] for key in ("name", "base", "tvm", "hardware"))
        decisions = {str(each["task"]): dict(each["taken"]) for each in entries}
        if number != FORMAT or not isinstance(tvm, dict):
            raise ValueError(f"it is of format {number}")
        facts = _hardware(dict(hardware))
    except OSError as error:
        raise RecordError(f"the lock `{path}` cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError, TargetError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise RecordError(f"`{path}` is no lock of this nncc: {what}", "remove the file to write a new one") from error
    if version != VERSION:
        raise RecordError(
            f"the lock `{path}` was written by nncc {version}, this is {VERSION}: other bytes would come of it",
            "use that version, or remove the file to write a new one",
        )
    asked = resolve(wanted)
    if asked.base != base:
        if wanted != "native":
            raise TargetError(f"the lock `{path}` is for the target `{base}`, not for `{wanted}`", f"`--target {base}`")
        asked = resolve(base)
    return Lock(path, replace(asked, name=name, tvm=tvm, hardware=facts), decisions)


def _hardware(given: dict[str, Any]) -> Hardware:
    """Hardware's facts from JSON; ValueError for what they cannot be."""
    known = {each.name: each.default for each in fields(Hardware)}
    if isinstance(machine := given.pop("accelerator", None), dict):
        from nncc.vta.machine import Machine

        given["accelerator"] = Machine.from_table(machine, "its target")
    elif machine is not None:
        raise ValueError(f"`accelerator` is {json.dumps(machine)}")
    for name, value in given.items():
        if name == "accelerator":
            continue
        if name not in known:
            raise ValueError(f"`{name}` is no fact of hardware")
        kind = type(known[name])
        number = kind in (int, float) and type(value) in (int, float) and 0 <= value < 1 << 40
        words = kind is tuple and isinstance(value, list) and all(isinstance(word, str) for word in value)
        if not (number or words or (kind in (bool, str) and type(value) is kind)):
            raise ValueError(f"`{name}` is {json.dumps(value)}")
        given[name] = tuple(value) if words else value
    facts = Hardware(**given)
    if min(facts.cores, facts.vector_bits, facts.vector_registers) < 1:
        raise ValueError("its hardware has no cores or no registers")
    return facts


def write_lock(path: Path, target: Target, decisions: Sequence[Decision]) -> None:
    """Write what was decided. Raises OutputError."""
    lines = [
        json.dumps({"task": each.task, "kind": each.kind, "text": each.text, "taken": dict(each.taken)}, sort_keys=True)
        for each in sorted(decisions, key=lambda each: each.task)
    ]
    facts = {"name": target.name, "base": target.base, "tvm": target.tvm, "hardware": asdict(target.hardware)}
    head = f'"lock": {FORMAT},\n"nncc": {json.dumps(VERSION)},\n"target": {json.dumps(facts, sort_keys=True)},\n'
    text = "{\n" + head + '"decisions": [\n' + ",\n".join(lines) + "\n]\n}\n"
    write_whole(path, lambda file: file.write_text(text, encoding="utf-8"), "the lock ", "choose another file")
