"""What `nncc bench` measured, as text and for JSON: the times, and each kernel beside what the machine attains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nncc.errors import NnccError
from nncc.ir import Operations
from nncc.reports import duration, plural, table
from nncc.reports.gpu import filling
from nncc.text import size

if TYPE_CHECKING:
    from nncc.execute import OpenLibrary
    from nncc.measurement import Measurement
    from nncc.roofline import Roofline

__all__ = ["kernel_rows", "kernel_table", "measurement_facts", "measurement_text", "roofline_facts"]


def kernel_rows(
    calls: Sequence[Mapping[str, Any]],
    seconds: Sequence[float],
    schedules: Mapping[str, str],
    roofline: Roofline | NnccError | None = None,
    device: Mapping[str, Any] | None = None,
    working_set: float = 0.0,
) -> list[dict[str, Any]]:
    """One row a kernel, calls of the same one together, the slowest first.

    ``roofline`` is the part of what the machine attains, from 0 to 1 where the measurements were not disturbed: the
    least time in which it does so many operations on so many bytes, over the time it took; None without a roofline.
    Operations are those that a kernel executes: Winograd's has fewer than the convolution that it stands for. Bytes
    are those of the distinct tensors that it reads and writes, weights included, however often it does so; weights come
    from where the `working_set` of an inference fits.

    Of a GPU, `device` is what the description says of its code: that knows which kernels tensor cores compute, and so
    the least time of each, what bounds it, and how its blocks fill the GPU.
    """
    estimates = (device or {}).get("kernels", {})
    rows: dict[str, dict[str, Any]] = {}
    least: dict[str, float] = {}
    total = sum(seconds) or 1.0
    for call, value in zip(calls, seconds, strict=True):
        name = call["name"]
        new = {
            "name": name,
            "calls": 0,
            "seconds": 0.0,
            "flops": 0.0,
            "bytes": 0.0,
            "schedule": schedules.get(name, ""),
        }
        row = rows.setdefault(name, new)
        row["calls"] += 1
        row["seconds"] += value
        row["flops"] += call["flops"]
        row["bytes"] += call["bytes"]
        if name in estimates:
            least[name] = least.get(name, 0.0) + 1e-6 * estimates[name]["least_us"]
            row |= filling(estimates[name])
        elif roofline is not None and not isinstance(roofline, NnccError) and not roofline.described:
            operations = Operations(call["multiplications"], call["flops"] - call["multiplications"])
            sizes = call["bytes"], call["weight_bytes"], working_set
            least[name] = least.get(name, 0.0) + roofline.least_seconds(operations, *sizes)
    for name, row in rows.items():
        time = row["seconds"]
        row["share"] = time / total
        row["gflops"] = row["flops"] / time * 1e-9 if row["flops"] and time else None
        row["gbps"] = row["bytes"] / time * 1e-9 if row["bytes"] and time else None
        row["roofline"] = least[name] / time if least.get(name) and time else None
    return sorted(rows.values(), key=lambda row: -row["seconds"])


_SPEEDS = (
    ("gflops", "GFLOP/s", "{:.1f}", 1),
    ("gbps", "GB/s", "{:.1f}", 1),
    ("roofline", "roofline", "{:.0f} %", 100),
    ("waves", "waves", "{:.2f}", 1),
    ("occupancy", "occupancy", "{:.0f} %", 100),
)
"""Key, heading, format and unit of the columns of `kernel_table` that are left out where nothing is known."""


def kernel_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `kernel_rows` for people; without the speeds where none is known."""
    known = [speed for speed in _SPEEDS if any(row.get(speed[0]) is not None for row in rows)]
    cells = [["time", "share", "calls", *(heading for _, heading, _, _ in known), "schedule", "kernel"]]
    for row in rows:
        speeds = ["-" if row.get(key) is None else form.format(row[key] * unit) for key, _, form, unit in known]
        share = f"{row['share'] * 100:.1f} %"
        cells.append([duration(row["seconds"]), share, str(row["calls"]), *speeds, row["schedule"], row["name"]])
    return table(cells, ">>>" + ">" * len(known) + "<<")


def roofline_facts(found: Roofline | NnccError) -> dict[str, Any]:
    """What was measured of this machine, or in one line why nothing was."""
    if isinstance(found, NnccError):
        reason = found.message.splitlines()[0].rstrip(":")
        return {"why_not": f"{reason} ({found.hint})" if found.hint else reason}
    bandwidth = [{"bytes": nbytes, "gbps": gbps} for nbytes, gbps in found.bandwidth]
    source = "description" if found.described else "measurement"
    return {"gflops": found.gflops, "memory_gbps": found.memory_gbps, "bandwidth": bandwidth, "source": source}


def _roofline_text(found: Roofline | NnccError, threads: int) -> str:
    facts = roofline_facts(found)
    if "why_not" in facts:
        return f"roofline  not measured: {facts['why_not']}\n"
    speeds = f"{facts['gflops']:.0f} GFLOP/s, {facts['memory_gbps']:.0f} GB/s from memory"
    whose = (
        "float32, as the target describes a GPU"
        if facts["source"] == "description"
        else f"{_threads(threads)}, measured"
    )
    return f"roofline  {speeds} ({whose})\n"


def _threads(number: int) -> str:
    return plural(number, "thread") if number else "a thread for each processor"


def measurement_facts(
    library: OpenLibrary,
    found: Measurement,
    rows: Sequence[Mapping[str, Any]] = (),
    roofline: Roofline | NnccError | None = None,
) -> dict[str, Any]:
    """A measurement as JSON holds it; times in milliseconds but for those of `rows`, which are in seconds.

    `roofline` is the one that `rows` are of.
    """
    about = library.describe()
    facts: dict[str, Any] = {key: about[key] for key in ("name", "target", "build")}
    facts |= {"threads": found.threads, "warmup": found.warmup, "repeat": len(found.seconds)}
    for key, value in _times(found):
        facts[f"{key}_ms"] = round(value * 1e3, 6)
    facts |= {"peak_bytes": found.peak_bytes, "times_ms": [round(value * 1e3, 6) for value in found.seconds]}
    if rows:
        facts |= {"roofline": roofline and roofline_facts(roofline), "kernels": list(rows)}
    return facts


def _times(found: Measurement) -> list[tuple[str, float]]:
    return [
        ("p50", found.p50),
        ("p90", found.p90),
        ("min", min(found.seconds)),
        ("mean", found.mean),
        ("load", found.load_seconds),
        ("create", found.create_seconds),
    ]


def measurement_text(
    library: OpenLibrary,
    found: Measurement,
    rows: Sequence[Mapping[str, Any]] = (),
    roofline: Roofline | NnccError | None = None,
) -> str:
    """A measurement for people, and the table of `rows`, where there are any, below the `roofline` that they are of."""
    about = library.describe()
    head = f"{about['name']} for {about['target']}, {_threads(found.threads)}, {plural(len(found.seconds), 'run')}\n\n"
    cells = [[key, duration(value)] for key, value in _times(found)]
    cells[-1].append("arena and threads")
    if found.peak_bytes:
        cells.append(["memory", size(found.peak_bytes), "at its peak: library, arena, threads, inputs and outputs"])
    text = head + table(cells, "<><")
    if rows:
        above = f"{_roofline_text(roofline, found.threads)}\n" if roofline else ""
        text += f"\n{above}{kernel_table(rows)}"
    return text
