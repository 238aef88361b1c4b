"""What a library for a GPU says of its kernels, as text: what bounds each at least, and how it fills the GPU.

No time is measured here: `nncc.gpu.estimate` says what the figures are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nncc.reports import duration, plural, table
from nncc.text import size

__all__ = ["device_text", "filling", "least_seconds"]


def least_seconds(device: Mapping[str, Any]) -> float:
    """The least time of all calls of an inference, one after the other."""
    return sum(1e-6 * each["calls"] * each["least_us"] for each in device["kernels"].values())


def filling(kernel: Mapping[str, Any]) -> dict[str, float]:
    """How the launch of most threads fills the GPU: ``waves`` and ``occupancy``; nothing where that is not known."""
    most: Mapping[str, Any] = max(
        kernel["launches"], key=lambda launch: launch["blocks"] * launch["threads"], default={}
    )
    return {key: most[key] for key in ("waves", "occupancy") if key in most}


def device_text(device: Mapping[str, Any], schedules: Mapping[str, str]) -> str:
    """A line for all kernels together, and one for each launch of each, those first that take longest at least."""
    kernels = device["kernels"]
    rows = [
        [
            "least", "share", "calls", "bound", "blocks", "threads", "waves", "occupancy", "registers", "shared",
            "schedule", "kernel",
        ]
    ]  # fmt: skip
    whole = least_seconds(device) or 1.0
    for name, each in sorted(kernels.items(), key=lambda pair: -pair[1]["calls"] * pair[1]["least_us"]):
        least = 1e-6 * each["calls"] * each["least_us"]
        about = [duration(least), f"{100 * least / whole:.1f} %", str(each["calls"]), each["bound"]]
        for number, launch in enumerate(each["launches"]):
            first = number == 0
            rows.append(
                [
                    *(about if first else [""] * len(about)),
                    *(str(launch[key]) for key in ("blocks", "threads")),
                    f"{launch['waves']:.2f}" if "waves" in launch else "",
                    f"{100 * launch['occupancy']:.0f} %" if "occupancy" in launch else "",
                    _registers(launch),
                    size(launch["shared_bytes"]) if launch.get("shared_bytes") else "",
                    schedules.get(name, "") if first else "",
                    name if first else "",
                ]
            )
    text = f"{plural(len(kernels), 'kernel')}, {duration(least_seconds(device))} at least by the target's facts; "
    return f"{text}{device['architecture']} code by {device['compiler']}\n\n{table(rows, '>>><>>>>>><<')}"


def _registers(launch: Mapping[str, Any]) -> str:
    """Of a thread, and what it keeps in memory because there are too few."""
    if "registers" not in launch:
        return ""
    spilled = launch["spilled_bytes"]
    return f"{launch['registers']}{f', {spilled} bytes spilled' if spilled else ''}"
