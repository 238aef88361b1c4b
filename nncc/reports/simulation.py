"""What a simulated accelerator did in one inference, as text and for JSON: cycles, and where they went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nncc.reports import duration, table
from nncc.text import size

if TYPE_CHECKING:
    from nncc.execute import OpenLibrary
    from nncc.measurement import Simulation

__all__ = ["layer_rows", "simulation_facts", "simulation_text"]

_COMPUTE = (
    ("compute_gemm", "products"),
    ("compute_alu", "ALU"),
    ("compute_overhead", "beginnings and ends of instructions"),
    ("compute_moves", "loads of micro-operations and sums"),
    ("compute_wait_load", "waiting for loads"),
    ("compute_wait_store", "waiting for stores"),
    ("compute_wait_fetch", "waiting for instructions"),
)
"""Counters of the compute queue, which together are its cycles, and what each counts."""


def layer_rows(
    description: Mapping[str, Any], cycles: Sequence[int], schedules: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row a kernel of the accelerator, calls of the same one together, the slowest first.

    `gemm`, `alu` and `issue` are the cycles that its instructions take, ``waiting`` what is left of `cycles`; `memory`
    the cycles in which the read port or the write port, the busier of the two, moves its bytes.
    """
    about = description["accelerator"]
    bus = about["machine"]["bus_bytes"]
    rows: dict[str, dict[str, Any]] = {}
    total = sum(cycles) or 1
    for call, value in zip(description["calls"], cycles, strict=True):
        name = call["name"]
        if name not in about["kernels"]:
            continue
        least = about["kernels"][name]
        row = rows.setdefault(name, {"name": name, "calls": 0, "cycles": 0, "schedule": schedules.get(name, "")})
        row["calls"] += 1
        row["cycles"] += value
        for key in ("gemm", "alu", "issue"):
            row[key] = row.get(key, 0) + least[key]
        row["memory"] = row.get("memory", 0) + max(least["read_bytes"], least["written_bytes"]) // bus
    for row in rows.values():
        row["share"] = row["cycles"] / total
        row["waiting"] = max(0, row["cycles"] - row["gemm"] - row["alu"] - row["issue"])
    return sorted(rows.values(), key=lambda row: -row["cycles"])


def simulation_facts(library: OpenLibrary, found: Simulation, rows: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """For JSON."""
    about = library.describe()
    facts: dict[str, Any] = {key: about[key] for key in ("name", "target", "build")}
    facts |= {"device": found.device, "cycles": found.counters.get("cycles", sum(found.cycles))}
    facts |= {
        "accelerator_ms": round(found.seconds * 1e3, 6),
        "counters": dict(found.counters),
        "host_ms": round(sum(found.host_seconds) * 1e3, 6),
    }
    return facts | ({"layers": list(rows)} if rows else {})


def simulation_text(library: OpenLibrary, found: Simulation, rows: Sequence[Mapping[str, Any]] = ()) -> str:
    """For people: cycles with the memory that they are for, where those of the compute queue went, and the `rows`."""
    about, counters = library.describe(), found.counters
    cycles = counters.get("cycles", sum(found.cycles))
    lines = [
        f"{about['name']} for {about['target']}, simulated: {found.device}\n\n",
        f"accelerator  {cycles:,} cycles an inference, {duration(found.seconds)} at that clock\n",
        f"host         {duration(sum(found.host_seconds))}, as this machine ran its kernels\n",
    ]
    if cycles:
        cells = [[f"{100 * counters.get(key, 0) / cycles:.1f} %", what] for key, what in _COMPUTE]
        lines += ["\nits cycles went into\n", table(cells, "><", indent="  ")]
        moved = [(key.removesuffix("_bytes"), value) for key, value in counters.items() if key.endswith("_bytes")]
        words = ", ".join(f"{name} {size(value)}" for name, value in moved if value)
        lines.append(f"\nmoved  {words}\n")
    if rows:
        lines.append(f"\n{_table(rows)}")
    return "".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    cells = [["cycles", "share", "calls", "GEMM", "ALU", "issue", "waiting", "memory", "schedule", "kernel"]]
    for row in rows:
        parts = [
            f"{100 * row[key] / max(1, row['cycles']):.0f} %" for key in ("gemm", "alu", "issue", "waiting", "memory")
        ]
        cells.append(
            [
                f"{row['cycles']:,}",
                f"{100 * row['share']:.1f} %",
                str(row["calls"]),
                *parts,
                row["schedule"],
                row["name"],
            ]
        )
    return table(cells, ">>>>>>>><<")
