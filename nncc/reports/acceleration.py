"""What of a model an accelerator computes, and why the rest stays on the host; as text and for JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncc.reports import plural
from nncc.reports.quantization import fallback_facts, fallback_text, share

if TYPE_CHECKING:
    from nncc.ir import Acceleration

__all__ = ["acceleration_facts", "acceleration_text"]


def acceleration_facts(found: Acceleration | None) -> dict[str, Any] | None:
    """For JSON; None where the target has no accelerator."""
    if found is None:
        return None
    return {
        "layers": found.layers,
        "macs": found.macs,
        "host_macs": found.host_macs,
        "host_layers": fallback_facts(found.host_layers),
    }


def acceleration_text(found: Acceleration | None) -> str:
    """The share of the multiply-adds of integers on the accelerator, and a line for each kind of layer that is not;
    nothing where the target has none."""
    if found is None:
        return ""
    if not found.macs + found.host_macs:
        return "\naccelerator  nothing: no convolution or matrix product is on integers\n"
    part = share(found.macs, found.macs + found.host_macs)
    lines = [f"\naccelerator {plural(found.layers, 'layer')}, {part} of the multiply-adds on integers\n"]
    lines.append(fallback_text(found.host_layers, "layer", "of integers on the host"))
    return "".join(lines)
