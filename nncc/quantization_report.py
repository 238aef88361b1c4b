"""What of a quantized model runs on integers, and why the rest does not; as text and for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncc.report import plural

if TYPE_CHECKING:
    from nncc.ir import Quantization

__all__ = ["quantization_facts", "quantization_text", "share"]


def quantization_facts(found: Quantization | None) -> dict[str, Any] | None:
    """For JSON; None where nothing is quantized."""
    if found is None:
        return None
    return {
        "integer_macs": found.integer_macs,
        "macs": found.macs,
        "float_layers": [{"layer": e.text, "reason": e.reason, "count": e.count} for e in found.float_layers],
    }


def quantization_text(found: Quantization | None) -> str:
    """The share of multiply-adds on integers, and a line for each kind of layer that stays float32; nothing where
    nothing is quantized."""
    if found is None or not found.macs:
        return ""
    lines = [f"\nintegers {share(found.integer_macs, found.macs)} of the multiply-adds\n"]
    if found.float_layers:
        count = sum(each.count for each in found.float_layers)
        lines.append(f"{plural(count, 'quantized layer')} in float32\n")
    for each in found.float_layers:
        times = f"{each.count} times " if each.count > 1 else ""
        lines.append(f"  {times}{each.text}\n    {each.reason}\n")
    return "".join(lines)


def share(part: int, whole: int) -> str:
    """Rounded, but 0 % and 100 % are none and all."""
    if part in (0, whole):
        return "all" if part else "none"
    return f"{min(99, max(1, round(100 * part / whole)))} %"
