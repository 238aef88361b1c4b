"""`nncc quantize` for people and for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nncc.reports import clipped, plural, table
from nncc.target import resolve
from nncc.text import size

if TYPE_CHECKING:
    from nncc.quant.api import Quantized
    from nncc.quant.closed_loop import Outcome
    from nncc.target import Target

__all__ = ["agreement_text", "outcome_facts", "outcome_text", "quantize_facts", "quantize_text", "samples_text"]

_SHOWN = 20
"""Layers in the list of those that stay float."""


def outcome_facts(outcome: Outcome, target: Target) -> dict[str, Any]:
    """What `nncc compile --quantize --json` says of how the model was quantized."""
    from nncc.layer_time import LayerTimes
    from nncc.quant.cost import gain, int8_share

    floats = {layer.name for layer in outcome.layers if outcome.recipe.precision_of(layer.name) != "int8"}
    products = [layer for layer in outcome.layers if layer.macs]
    macs = sum(layer.macs for layer in products)
    by_name = {layer.name: layer for layer in products}
    stays = []
    for name in dict.fromkeys((*(layer.name for layer in products if layer.name in floats), *outcome.reasons)):
        layer = by_name.get(name)
        reason = outcome.reasons.get(name, f"the recipe says {outcome.recipe.precision_of(name)}")
        part = layer.macs / macs if layer is not None and macs else None
        stays.append({"name": name, "op_type": layer.op_type if layer else "", "macs_share": part, "reason": reason})
    return {
        "recipe": asdict(outcome.recipe) | {"nodes": dict(outcome.recipe.nodes)},
        "samples": {"calibrated": outcome.calibrated, "held_out": outcome.held_out},
        "layers": {"products": len(products), "int8": sum(layer.name not in floats for layer in products)},
        "macs": macs,
        "int8_macs_share": int8_share(products, floats),
        "stays_float": stays,
        "predicted_gain": gain(products, floats, LayerTimes(target.hardware)),
        "target": target.name,
        "agreement": {kind: value if math.isfinite(value) else None for kind, value in outcome.agreement.items()},
    }


def quantize_facts(found: Quantized, target: str) -> dict[str, Any]:
    """What `nncc quantize --json` prints."""
    outcome = found.outcome
    return {
        "model": str(found.path),
        "recipe_file": str(found.recipe_path),
        **outcome_facts(outcome, resolve(target)),
        "target": target,
        "bytes": {"float": found.float_bytes, "int8": found.int8_bytes},
        "metric": None if outcome.scores is None else {"float": outcome.scores[0], "int8": outcome.scores[1]},
        "floor": outcome.floor,
        "evaluations": outcome.evaluations,
        "lost": dict(outcome.lost),
    }


def outcome_text(facts: Mapping[str, Any]) -> str:
    """What `nncc compile --quantize` prints of `outcome_facts`."""
    rows = [_int8_row(facts), _recipe_row(facts), _agreement_row(facts)]
    return "\nquantized\n" + table(rows, indent="  ") + _stays_text(facts)


def quantize_text(facts: Mapping[str, Any]) -> str:
    """What `nncc quantize` prints, of `quantize_facts`."""
    sizes = facts["bytes"]
    rows = [
        _int8_row(facts),
        _recipe_row(facts),
        ["size", f"{size(sizes['float'])} -> {size(sizes['int8'])}"],
        _agreement_row(facts),
    ]
    if facts["metric"] is not None:
        score = facts["metric"]
        rows.append(["metric", f"{score['float']:.6g} in float, {score['int8']:.6g} now"])
    if facts["floor"] is not None:
        asked = plural(facts["evaluations"], "evaluation")
        rows.append(["gate", f"at least {facts['floor']:.6g}: holds, after {asked}"])
    rows.append(["predicted", f"layers {facts['predicted_gain']:.1f}x as fast on {facts['target']}"])
    written = f"\nwritten to {facts['model']}\nhow, to edit and run again: {facts['recipe_file']}\n"
    return table(rows) + _stays_text(facts) + written


def _int8_row(facts: Mapping[str, Any]) -> list[str]:
    layers, share = facts["layers"], _percent(facts["int8_macs_share"])
    of = f"{layers['int8']} of {plural(layers['products'], 'layer')}"
    return ["int8", f"{of}, {share} of {_count(facts['macs'])} multiplications"]


def _recipe_row(facts: Mapping[str, Any]) -> list[str]:
    recipe = facts["recipe"]
    how = "per channel" if recipe["per_channel"] else "per tensor"
    return ["recipe", f"observer {recipe['observer']}, {how}, activations {recipe['activations']}"]


def _agreement_row(facts: Mapping[str, Any]) -> list[str]:
    return ["agreement", f"{agreement_text(facts['agreement'])}; on {samples_text(facts['samples'])}"]


def _stays_text(facts: Mapping[str, Any]) -> str:
    """The layers that stay float, those with the most multiplications first; nothing where none does."""
    if not facts["stays_float"]:
        return ""
    order = sorted(facts["stays_float"], key=lambda each: -(each["macs_share"] or 0.0))
    rows = []
    for each in order[:_SHOWN]:
        share = "" if each["macs_share"] is None else _percent(each["macs_share"])
        rows.append([share, each["op_type"], clipped(each["name"], 40), each["reason"]])
    more = f"  and {len(order) - _SHOWN} more\n" if len(order) > _SHOWN else ""
    return "\nnot int8\n" + table(rows, "><<<", "  ") + more


def _percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def _count(macs: int) -> str:
    for factor, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if macs >= factor:
            return f"{macs / factor:.3g} {word}"
    return str(macs)


def agreement_text(agreement: Mapping[str, float | None]) -> str:
    """``top1 98.2 %, SQNR 31.5 dB``, of scores by kind."""
    words = []
    for kind, value in agreement.items():
        if value is None:
            words.append(f"{kind} none: NaN in the outputs")
        elif kind == "sqnr":
            words.append("SQNR " + ("without error" if value >= 1 else f"{-10 * math.log10(1 - value):.1f} dB"))
        else:
            words.append(f"{kind} {_percent(value)}")
    return ", ".join(words)


def samples_text(samples: Mapping[str, int]) -> str:
    """Which samples judged, of the counts ``calibrated``, 0 where they were made up, and ``held_out``."""
    if not samples["calibrated"]:
        return plural(samples["held_out"], "random input")
    held = plural(samples["held_out"], "sample")
    return f"{held} held out" if samples["held_out"] != samples["calibrated"] else f"the {held} of the calibration"
