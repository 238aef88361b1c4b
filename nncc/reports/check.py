"""`nncc check` for people and for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nncc.reports import clipped, duration, plural, table
from nncc.text import count, size

if TYPE_CHECKING:
    from nncc.check import Check
    from nncc.target import Target

__all__ = ["check_facts", "check_text"]


def check_facts(found: Check, target: Target) -> dict[str, Any]:
    """For JSON: everything that was found; bytes, seconds, counts."""
    return {
        "name": found.name,
        "target": target.name,
        "compiles": found.compiles,
        "producer": found.producer,
        "opsets": dict(found.opsets),
        "inputs": [str(spec) for spec in found.inputs],
        "outputs": [str(spec) for spec in found.outputs],
        "open_inputs": [
            {"name": each.name, "shape": list(each.shape), "checked": list(each.checked)} for each in found.open_inputs
        ],
        "file_operators": dict(sorted(found.file_operators.items())),
        "operators": [
            {
                "operator": use.operator,
                "count": use.count,
                "nodes": list(use.nodes),
                "problem": use.problem or None,
                "hint": use.hint or None,
            }
            for use in found.uses
        ],
        "rewrites": dict(found.rewrites),
        "problems": [{"problem": each.message, "hint": each.hint} for each in found.problems],
        "parameter_bytes": dict(found.parameter_bytes),
        "activation_bytes": found.activation_bytes,
        "macs": found.macs,
        "integer_macs": found.integer_macs,
        "seconds": found.seconds,
    }


def check_text(facts: Mapping[str, Any]) -> str:
    """What `nncc check` prints, of `check_facts`."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in facts["opsets"].items())
    made = f" by {facts['producer']}" if facts["producer"] else ""
    verdict = "can be compiled" if facts["compiles"] else "cannot be compiled"
    lines = [f"{facts['name']} {verdict} for {facts['target']}; {opsets}{made}\n"]
    lines += [_operators(facts), _problems(facts), _shapes(facts)]
    if facts["inputs"]:
        lines.append(_sizes(facts))
    return "\n".join(filter(None, lines))


def _operators(facts: Mapping[str, Any]) -> str:
    """A line an operator: how many the file has, how many are left to compile."""
    left: dict[str, int] = {}
    wrong: dict[str, int] = {}
    for use in facts["operators"]:
        (wrong if use["problem"] else left).setdefault(use["operator"], 0)
        (wrong if use["problem"] else left)[use["operator"]] += use["count"]
    rows = [["operator", "in the file", "compiled", "not"]]
    for operator in sorted({*facts["file_operators"], *left, *wrong}):
        numbers = (table_.get(operator, 0) for table_ in (facts["file_operators"], left, wrong))
        rows.append([clipped(operator, 44), *(str(number) if number else "" for number in numbers)])
    lines = [table(rows, "<>>>")]
    if facts["rewrites"]:
        rewrites = ", ".join(f"{name} {number}" for name, number in facts["rewrites"].items())
        lines.append(f"rewritten before: {rewrites}\n")
    return "".join(lines)


def _problems(facts: Mapping[str, Any]) -> str:
    lines = []
    for use in facts["operators"]:
        if use["problem"]:
            more = ", ..." if use["count"] > len(use["nodes"]) else ""
            nodes = ", ".join(f"`{clipped(node, 40)}`" for node in use["nodes"]) + more
            lines.append(f"{plural(use['count'], use['operator'])} ({nodes}): {use['problem']}\n")
            lines.append(f"  hint: {use['hint']}\n" if use["hint"] else "")
    for each in facts["problems"]:
        lines.append(f"{each['problem']}\n")
        lines.append(f"  hint: {each['hint']}\n" if each["hint"] else "")
    return "".join(lines)


def _shapes(facts: Mapping[str, Any]) -> str:
    lines = []
    for each in facts["open_inputs"]:
        words = "x".join(map(str, each["shape"]))
        checked = "x".join(map(str, each["checked"]))
        lines.append(f"`{each['name']}` is {words}; checked as {checked}: `--shape {each['name']}={checked}`\n")
    return "".join(lines)


def _sizes(facts: Mapping[str, Any]) -> str:
    weights = ", ".join(f"{size(nbytes)} {dtype}" for dtype, nbytes in facts["parameter_bytes"].items()) or "none"
    rows = [["inputs", "; ".join(facts["inputs"])], ["outputs", "; ".join(facts["outputs"])], ["weights", weights]]
    if not facts["operators"]:
        return table(rows)
    rows.append(["activations", f"{size(facts['activation_bytes'])} at most, before operators are fused"])
    integers = f", {count(facts['integer_macs'])} of them on integers" if facts["integer_macs"] else ""
    rows.append(["multiply-adds", f"{count(facts['macs'])}{integers}"])
    if facts["seconds"] is not None:
        rows.append(["time", f"{duration(facts['seconds'])} predicted on one core, of products alone"])
    return table(rows)
