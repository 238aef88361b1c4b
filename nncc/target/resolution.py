"""A target from what people write: a name with overrides, a path, JSON, or a string of earlier TVM."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from nncc.errors import TargetError
from nncc.host import llvm_features, system_of
from nncc.target.descriptions import SECTIONS, available, checked, load, order_of_choice, types_of
from nncc.target.facts import Hardware, Target
from nncc.target.words import check_keys, parse_overrides, parse_tvm_string, value_text

if TYPE_CHECKING:
    from nncc.vta.machine import Machine

__all__ = ["resolve"]


def resolve(text: str) -> Target:
    """The target that `text` names.

    `text` is a name (``native``), a path to a TOML file, either followed by overrides of ``[tvm]`` and
    ``[hardware]`` (``name,mcpu=...,num-cores=4,vector_bits=256``), a JSON object (TVM's own with ``kind``, or
    ``{"extends": ..., "tvm": {}, "hardware": {}}``), or a target string of earlier TVM (``llvm -mcpu=...``).
    Only a change of ``mcpu`` or ``mattr`` imports TVM: LLVM is asked which processor features follow.
    """
    text = text.strip()
    if text.startswith("{"):
        return _from_json(text)
    if re.match(r"llvm$|\w+\s+-", text):
        return _from_tvm(parse_tvm_string(text))
    base, *words = text.split(",")
    target = load(base.strip())
    machine = {f.name: type(f.default) for f in _fields(target.hardware.accelerator)}
    return _override(target, parse_overrides(words, text, types_of(Hardware) | machine))


def _from_json(text: str) -> Target:
    try:
        description = json.loads(text)
    except ValueError as error:
        raise TargetError(f"the target is not valid JSON: {error}: {text}") from error
    if "kind" in description:
        return _from_tvm(description)
    check_keys(description, {key: SECTIONS[key] for key in ("extends", "tvm", "hardware")}, text, "a target in JSON")
    if "extends" not in description:
        hint = "a target of TVM has a `kind`, a target of nncc an `extends`"
        raise TargetError(f"{text}: has neither `kind` nor `extends`", hint)
    checked(description, text)
    return _override(load(description["extends"]), description.get("tvm", {}) | description.get("hardware", {}))


def _from_tvm(tvm: dict[str, Any]) -> Target:
    """A target for a dictionary of TVM: the nearest that is known, with what differs as overrides."""
    if tvm["kind"] != "llvm":
        native = load("native")
        name = ",".join(f"{key}={value_text(value)}" for key, value in tvm.items())
        tvm = {"host": native.tvm} | tvm
        return replace(native, name=name, doc=f"TVM's `{tvm['kind']}`", tvm=tvm, base=tvm["kind"])
    if "mtriple" not in tvm:
        own = load("native").tvm
        tvm = {key: own[key] for key in ("mtriple", "mabi", "mfloat-abi", "num-cores") if key in own} | tvm
    machine, *rest = tvm["mtriple"].split("-")
    if rest[0:1] in (["linux"], ["windows"]):
        # LLVM takes the second word for the vendor whatever it is, and then knows of no system.
        tvm = tvm | {"mtriple": "-".join([machine, "unknown", *rest])}
    nearest = _nearest(tvm)
    kept = {"num-cores"}  # a fact of the board rather than of its code: what is not said stays
    changes = {key: tvm.get(key, "") for key in nearest.tvm | tvm if key in tvm or key not in kept}
    return _override(nearest, {key: value for key, value in changes.items() if value != nearest.tvm.get(key, "")})


def _nearest(tvm: dict[str, Any]) -> Target:
    """The target for the same processor, else the first of ``native``'s choice that its features allow."""
    features = set(llvm_features(tvm))
    kin = [
        t for t in available() if t.name == t.base and system_of(t.tvm.get("mtriple", "")) == system_of(tvm["mtriple"])
    ]
    allowed = [t for t in kin if features.issuperset(t.hardware.features)]
    exact = [t for t in allowed if t.tvm.get("mcpu", "") == tvm.get("mcpu")]
    if exact:
        return max(exact, key=lambda t: len(t.hardware.features))
    order = order_of_choice()
    general = [t for t in allowed if t.name in order]
    if not general:
        known = sorted({t.tvm["mtriple"] for t in available() if "mtriple" in t.tvm})
        hint = f"describe the machine in a TOML file; known triples: {', '.join(known)}"
        raise TargetError(f"no target is like `{json.dumps(tvm)}`", hint)
    return min(general, key=lambda t: order.index(t.name))


def _override(target: Target, changes: Mapping[str, Any]) -> Target:
    """`target` with other values of ``[tvm]`` and ``[hardware]``; an empty text removes a key of ``[tvm]``."""
    if not changes:
        return target
    tvm = dict(target.tvm)
    facts: dict[str, Any] = {}
    machine = target.hardware.accelerator
    own = {f.name for f in _fields(machine)} & changes.keys()
    if machine is not None and own:
        facts["accelerator"] = replace(machine, **{key: changes[key] for key in own})
    for key, value in changes.items():
        if key in own:
            continue
        if key in types_of(Hardware):
            facts[key] = tuple(value) if isinstance(value, list) else value
        elif value in ("", []):
            tvm.pop(key, None)
        else:
            tvm[key] = value
    if "num-cores" in changes:
        facts.setdefault("cores", tvm.get("num-cores", 1))
    if tvm["kind"] == "llvm" and any(key in changes for key in ("mcpu", "mattr", "mtriple")):
        facts.setdefault("features", llvm_features(tvm))
    name = ",".join([target.name, *(f"{key}={value_text(value)}" for key, value in changes.items())])
    doc = f"{target.doc}, with changes"
    return replace(target, name=name, doc=doc, tvm=tvm, hardware=replace(target.hardware, **facts))


def _fields(machine: Machine | None) -> tuple[Any, ...]:
    return () if machine is None else fields(machine)
