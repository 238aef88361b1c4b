"""`nncc compare` for people and for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nncc.reports import clipped, plural, table

if TYPE_CHECKING:
    from nncc.bisect import Culprit
    from nncc.quant.compare import Comparison, Difference

__all__ = ["compare_facts", "compare_text", "culprit_facts", "culprit_text"]


def compare_facts(found: Comparison, threshold_db: float) -> dict[str, Any]:
    """For JSON: every layer in the order of the model, the first bad one, the outputs. An SQNR of null is no error."""
    first, steepest = found.first_below(threshold_db), found.steepest()
    return {
        "samples": found.samples,
        "isolated": found.isolated,
        "threshold_db": threshold_db,
        "layers": [_facts(each) for each in found.layers],
        "not_compared": found.alone,
        "first_below_threshold": None if first is None else first.name,
        "steepest_fall": None
        if steepest is None
        else {"tensor": steepest[0].name, "from_db": steepest[1], "to_db": _finite(steepest[0].sqnr_db)},
        "outputs": [_facts(each) for each in found.outputs],
    }


def _facts(each: Difference) -> dict[str, Any]:
    return {
        "tensor": each.name,
        "op_type": each.op_type,
        "node": each.node,
        "sqnr_db": _finite(each.sqnr_db),
        "cosine": each.cosine if math.isfinite(each.cosine) else "NaN",
        "max_error": each.max_error if math.isfinite(each.max_error) else "NaN",
        "paired_by": each.by,
    }


def _finite(value: float) -> float | str | None:
    """JSON has no infinities: null is an SQNR without any error."""
    if value == math.inf:
        return None
    return value if math.isfinite(value) else "-infinity" if value == -math.inf else "NaN"


def _decibels(value: float | str | None) -> str:
    return "equal" if value is None else value if isinstance(value, str) else f"{value:.1f} dB"


def _order(fact: Mapping[str, Any]) -> float:
    value = fact["sqnr_db"]
    return math.inf if value is None else -math.inf if isinstance(value, str) else value


def _rows(facts: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows = []
    for each in facts:
        numbers = [
            f"{each[key]:.6g}" if isinstance(each[key], float) else str(each[key]) for key in ("cosine", "max_error")
        ]
        guess = "" if each["paired_by"] == "name" else "by position"
        rows.append([_decibels(each["sqnr_db"]), *numbers, each["op_type"], clipped(each["tensor"], 48), guess])
    return rows


def compare_text(facts: Mapping[str, Any], top: int) -> str:
    """What `nncc compare` prints, of `compare_facts`; the worst `top` layers, or all for 0."""
    head = [["SQNR", "cosine", "max error", "operator", "tensor"]]
    lines: list[str] = []
    layers = sorted(facts["layers"], key=_order)
    if layers:
        shown = layers[: top or None]
        what = "what each layer adds by itself" if facts["isolated"] else "the worst layers first"
        lines.append(f"{what}, over {plural(facts['samples'], 'sample')}\n\n")
        lines.append(table(head + _rows(shown), ">>><<"))
        if len(shown) < len(layers):
            lines.append(f"and {len(layers) - len(shown)} better ones; `--top 0` shows all\n")
        lines.append("\n" + _first_text(facts))
    lines.append("outputs\n" + table(head + _rows(facts["outputs"]), ">>><<", "  "))
    return "".join(lines)


def _first_text(facts: Mapping[str, Any]) -> str:
    threshold = f"{facts['threshold_db']:g} dB"
    first, steepest = facts["first_below_threshold"], facts["steepest_fall"]
    lines = []
    if first is None:
        lines.append(f"no layer is below {threshold}\n")
    else:
        worse = sum(_order(each) < facts["threshold_db"] for each in facts["layers"])
        lines.append(f"first below {threshold}: {first}; {plural(worse, 'layer')} in all\n")
    if steepest is not None and not facts["isolated"]:
        lines.append(
            f"falls most at {steepest['tensor']}: {_decibels(steepest['from_db'])} -> {_decibels(steepest['to_db'])}\n"
        )
    if facts["not_compared"]:
        lines.append(f"{plural(facts['not_compared'], 'operator')} of the float model without a counterpart\n")
    return "".join(lines) + "\n"


def culprit_facts(
    culprit: Culprit | None, name: str, target: str, inputs: str, files: Sequence[Path]
) -> dict[str, Any]:
    """For JSON: the part that differs from ONNX Runtime, how, and the files that show it."""
    facts: dict[str, Any] = {"name": name, "target": target, "inputs": inputs, "differs": culprit is not None}
    if culprit is None:
        return facts
    return facts | {
        "operators": [{"op_type": op_type, "node": node} for op_type, node in culprit.nodes],
        "position": culprit.position,
        "of": culprit.of,
        "error": culprit.error or None,
        "outputs": [str(each) for each in culprit.found],
        "files": [str(path) for path in files],
    }


def culprit_text(facts: Mapping[str, Any]) -> str:
    """What `nncc compare --bisect` prints, of `culprit_facts`."""
    if not facts["differs"]:
        return f"{facts['name']} for {facts['target']} agrees with ONNX Runtime; inputs: {facts['inputs']}\n"
    *before, last = facts["operators"]
    lines = [f"{facts['name']} for {facts['target']}; inputs: {facts['inputs']}\n\n"]
    where = f"{last['op_type']} `{last['node']}`, operator {facts['position']} of {facts['of']}"
    lines.append(f"the first difference from ONNX Runtime is at {where}\n")
    if before:
        lines.append(f"it shows together with the {plural(len(before), 'operator')} before it:\n")
        lines.append(table([[each["op_type"], clipped(each["node"], 60)] for each in before], "<<", "  "))
    lines.append(f"{facts['error']}\n" if facts["error"] else "".join(f"{each}\n" for each in facts["outputs"]))
    model, inputs, expected = facts["files"]
    lines.append(f"\nwritten to {model}, with {inputs} and {expected}: a report of the defect needs no more\n")
    return "".join(lines)
