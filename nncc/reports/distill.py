"""`nncc distill` for people and for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from nncc.reports import duration, plural, table
from nncc.reports.quantize import agreement_text
from nncc.text import count

if TYPE_CHECKING:
    from nncc.distillation.api import Distilled

__all__ = ["distill_facts", "distill_text"]

_FEW = 1000
"""Samples; with 135, training without variation found nothing better at all, and with mixup it did."""


def distill_facts(found: Distilled) -> dict[str, Any]:
    """What `nncc distill --json` prints."""
    outcome, trained = found.outcome, found.outcome.trained
    return {
        "model": str(found.path),
        "settings": asdict(found.settings) | {"learning_rate": outcome.learning_rate},
        "loss": list(outcome.terms),
        "parameters": {"trained": outcome.parameters, "integers": outcome.integers, "zeros_kept": outcome.zeros_kept},
        "samples": {
            "trained": outcome.seen,
            "held_out": outcome.held_out,
            "varied": outcome.varied,
            "batched": outcome.batched,
        },
        "epochs": trained.epochs,
        "steps": trained.steps,
        "seconds": trained.seconds,
        "ended": trained.ended,
        "held_out_loss": {"before": _finite(trained.first_loss), "after": _finite(trained.best_loss)},
        "agreement": {
            when: {kind: _finite(pair[at]) for kind, pair in outcome.agreement.items()}
            for at, when in enumerate(("before", "after"))
        },
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def distill_text(facts: Mapping[str, Any]) -> str:
    """What `nncc distill` prints, of `distill_facts`."""
    parameters, samples, settings, losses = (facts[n] for n in ("parameters", "samples", "settings", "held_out_loss"))
    what = [f"{count(parameters['trained'])} parameters"]
    if parameters["integers"]:
        what.append(f"{count(parameters['integers'])} of them integers, through rounding")
    if parameters["zeros_kept"]:
        what.append(f"{count(parameters['zeros_kept'])} zeros stay zero")
    seen = f"{plural(samples['trained'], 'sample')}, {facts['epochs']} times, {plural(facts['steps'], 'step')}"
    if settings["augment"]:
        seen += f"; varied by {', '.join(settings['augment'])}"
    if not samples["batched"]:
        seen += "; one by one, since the student takes no batches"
    before, after = (facts["agreement"][when] for when in ("before", "after"))
    rows = [
        ["trained", ", ".join(what)],
        ["on", seen],
        ["loss", _terms_text(facts["loss"])],
        ["held out", _change_text(losses, samples)],
        ["agreement", f"{agreement_text(before)} -> {agreement_text(after)}"],
        ["took", f"{duration(facts['seconds'])}; ended by {facts['ended']}"],
    ]
    if samples["trained"] < _FEW and not settings["augment"]:
        rows.append(["note", "with few samples, varied ones often teach more: `--augment mixup`"])
    return table(rows) + f"\nwritten to {facts['model']}\n"


def _terms_text(terms: list[str]) -> str:
    return ", ".join(terms[:3]) + (f" and {len(terms) - 3} more" if len(terms) > 3 else "")


def _change_text(losses: Mapping[str, float | None], samples: Mapping[str, int]) -> str:
    before, after = ("none" if value is None else f"{value:.4g}" for value in (losses["before"], losses["after"]))
    judged = plural(samples["held_out"], "sample") + (
        f", varied {samples['varied']} times" if samples["varied"] else ""
    )
    if before == after:
        return f"loss {before} on {judged}: training found nothing better, the weights are as they were"
    return f"loss {before} -> {after} on {judged}"
