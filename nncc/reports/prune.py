"""`nncc prune` for people and for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nncc.reports import clipped, plural, table
from nncc.reports.quantize import agreement_text, samples_text
from nncc.reports.sensitivity_plot import decibels
from nncc.text import count, size

if TYPE_CHECKING:
    from nncc.compress.api import Pruned

__all__ = ["prune_facts", "prune_text"]

_SHOWN = 40
"""Groups in the list."""


def prune_facts(found: Pruned, target: str) -> dict[str, Any]:
    """What `nncc prune --json` prints."""
    outcome = found.outcome
    groups = []
    for group in outcome.found.groups:
        left = int(outcome.keep[group.units].sum())
        curve = outcome.curves.get(group.name)
        gone = 1 - left / len(group.units)
        groups.append(
            {
                "name": group.name,
                "makers": list(group.makers),
                "channels": [len(group.units) * group.width, left * group.width],
                "reason": group.reason,
                "loss": {} if curve is None else {f"{part:.4g}": loss for part, loss in curve.points},
                "chosen": {"part": gone, "loss": curve.at(gone)} if curve is not None and gone else None,
            }
        )
    return {
        "model": str(found.path),
        "structure": {"name": found.structure, "unit": outcome.structure.unit, "gain": outcome.structure.gain},
        "macs": {"before": round(outcome.macs[0]), "after": round(outcome.macs[1])},
        "parameters": {"before": outcome.parameters[0], "after": outcome.parameters[1]},
        "stored_bytes": {"before": round(outcome.stored_bytes[0]), "after": round(outcome.stored_bytes[1])},
        "bytes": {"before": found.bytes_before, "after": found.bytes_after},
        "predicted_seconds": None
        if outcome.seconds is None
        else {"before": outcome.seconds[0], "after": outcome.seconds[1]},
        "peak": None
        if outcome.seconds is None
        else {
            "gflops": found.hardware.peak_gflops,
            "dram_gbps": found.hardware.dram_gbps,
            "measured": found.measured,
        },
        "target": target,
        "samples": {"calibrated": outcome.calibrated, "held_out": outcome.held_out},
        "refit": outcome.refitted,
        "agreement": {kind: value if math.isfinite(value) else None for kind, value in outcome.agreement.items()},
        "metric": None if outcome.scores is None else {"before": outcome.scores[0], "after": outcome.scores[1]},
        "floor": outcome.floor,
        "evaluations": outcome.evaluations,
        "groups": groups,
    }


def prune_text(facts: Mapping[str, Any]) -> str:
    """What `nncc prune` prints, of `prune_facts`."""
    macs, parameters, sizes, stored = (facts[name] for name in ("macs", "parameters", "bytes", "stored_bytes"))
    zeros = "" if facts["structure"]["name"] == "channels" else ": zeros are in it"
    rows = [
        ["multiplications", f"{count(macs['before'])} -> {count(macs['after'])}, {_fewer(macs)} fewer"],
        ["parameters", f"{count(parameters['before'])} -> {count(parameters['after'])}, {_fewer(parameters)} fewer"],
        ["size", f"{size(sizes['before'])} -> {size(sizes['after'])}{zeros}"],
        ["agreement", f"{agreement_text(facts['agreement'])}; on {samples_text(facts['samples'])}"],
        ["refit", "weights fitted to what is left" if facts["refit"] else "none: weights as they were"],
    ]
    if zeros:
        rows.insert(3, ["without zeros", f"weights {size(stored['before'])} -> {size(stored['after'])} of float32"])
        rows.insert(4, ["gain", facts["structure"]["gain"]])
    if facts["metric"] is not None:
        score = facts["metric"]
        rows.append(["metric", f"{score['before']:.6g} of the original, {score['after']:.6g} now"])
    if facts["floor"] is not None:
        asked = plural(facts["evaluations"], "evaluation")
        rows.append(["gate", f"at least {facts['floor']:.6g}: holds, after {asked}"])
    if facts["predicted_seconds"] is not None:
        before, after = (facts["predicted_seconds"][when] * 1e3 for when in ("before", "after"))
        rows.append(["predicted", f"{before:.3g} -> {after:.3g} ms on one core of {facts['target']}"])
        rows.append(["", _peak_text(facts["peak"])])
    return table(rows) + _groups_text(facts) + f"\nwritten to {facts['model']}\n"


def _groups_text(facts: Mapping[str, Any]) -> str:
    """The groups that were pruned, and those that were left, with the reason."""
    rows, left = [], []
    for group in facts["groups"]:
        before, after = group["channels"]
        name = clipped(group["name"], 40)
        if len(group["makers"]) > 1:
            name += f" and {len(group['makers']) - 1} more"
        if after < before:
            rows.append([f"{before} -> {after}", name, *_losses(group["loss"])])
        else:
            left.append([str(before), name, group["reason"] or "the goal did not need it"])
    words = "and the error of the outputs in dB where so many of a group alone go"
    text = f"\n{facts['structure']['unit']}, {words}\n" if rows else ""
    text += table(rows[:_SHOWN], "><<<<", "  ") + _more(len(rows))
    return text + ("\nleft as they were\n" + table(left[:_SHOWN], "><<", "  ") + _more(len(left)) if left else "")


def _peak_text(peak: Mapping[str, Any]) -> str:
    """What the prediction rests on."""
    memory = f", {peak['dram_gbps']:.3g} GB/s from memory" if peak["dram_gbps"] else ""
    how = "measured here" if peak["measured"] else "as the target says"
    return f"by {peak['gflops']:.3g} GFLOP/s{memory}: {how}"


def _losses(loss: Mapping[str, float]) -> list[str]:
    """``25 % -31.2``: a point of the group's curve a cell."""
    return [f"{float(part) * 100:.0f} % {decibels(each):.1f}" for part, each in loss.items()]


def _more(number: int) -> str:
    return f"  and {number - _SHOWN} more\n" if number > _SHOWN else ""


def _fewer(numbers: Mapping[str, float]) -> str:
    return f"{(1 - numbers['after'] / numbers['before']) * 100:.1f} %" if numbers["before"] else "0 %"
