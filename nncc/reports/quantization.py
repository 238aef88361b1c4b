"""What of a quantized model runs on integers, and why the rest does not; as text and for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nncc.reports import plural

if TYPE_CHECKING:
    from nncc.ir import Fallback, Quantization

__all__ = ["fallback_facts", "fallback_text", "quantization_facts", "quantization_text", "share"]


def quantization_facts(found: Quantization | None) -> dict[str, Any] | None:
    """For JSON; None where nothing is quantized."""
    if found is None:
        return None
    return {
        "integer_macs": found.integer_macs,
        "macs": found.macs,
        "float_layers": fallback_facts(found.float_layers),
    }


def fallback_facts(layers: Sequence[Fallback]) -> list[dict[str, Any]]:
    """For JSON."""
    return [{"layer": each.text, "reason": each.reason, "count": each.count} for each in layers]


def quantization_text(found: Quantization | None) -> str:
    """The share of multiply-adds on integers, and a line for each kind of layer that stays float32; nothing where
    nothing is quantized."""
    if found is None or not found.macs:
        return ""
    lines = [f"\nintegers {share(found.integer_macs, found.macs)} of the multiply-adds\n"]
    lines.append(fallback_text(found.float_layers, "quantized layer", "in float32"))
    return "".join(lines)


def fallback_text(layers: Sequence[Fallback], noun: str, where: str) -> str:
    """How many there are, as `noun` in the singular, and two lines for each kind; nothing where there are none."""
    if not layers:
        return ""
    lines = [f"{plural(sum(each.count for each in layers), noun)} {where}\n"]
    for each in layers:
        times = f"{each.count} times " if each.count > 1 else ""
        lines.append(f"  {times}{each.text}\n    {each.reason}\n")
    return "".join(lines)


def share(part: int, whole: int) -> str:
    """Rounded, but 0 % and 100 % are none and all."""
    if part in (0, whole):
        return "all" if part else "none"
    return f"{min(99, max(1, round(100 * part / whole)))} %"
