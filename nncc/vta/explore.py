"""What other sizes of the accelerator would do for a model: `nncc vta explore`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from nncc.errors import ModelError, NnccError, UsageError
from nncc.vta.area import Area, Budget, area_of
from nncc.vta.machine import Machine

__all__ = ["Candidate", "candidates_json", "candidates_text", "explore", "pareto"]


@dataclass(frozen=True)
class Candidate:
    """A machine, and what it takes for one inference."""

    words: str
    """What makes the target this machine: ``block=32,bus_bytes=16``."""
    area: Area | None
    """None where there is no such machine."""
    multipliers: int = 0
    """Of its matrix unit."""
    memory_kib: int = 0
    """Of its scratchpads."""
    bus_bytes: int = 0
    cycles: int = 0
    """Of all programs of an inference; 0 where it was refused."""
    seconds: float = 0.0
    """Those, by the clock."""
    macs: int = 0
    """Multiply-adds of the matrix unit, padding included."""
    refused: str = ""
    """Why this machine cannot have the model, or is left out."""

    @property
    def use(self) -> float:
        """The share of the matrix unit's peak."""
        return self.macs / (self.multipliers * self.cycles) if self.cycles else 0.0


def explore(
    model: str | Path,
    target: str,
    sizes: Mapping[str, Sequence[int]],
    memory: str = "",
    shape: Mapping[str, Sequence[int]] | None = None,
    budget: Budget | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[Candidate, ...]:
    """Compile `model` for each combination of `sizes`, fields of `Machine` by their values, and count its cycles on the
    simulator, beside the named `memory` or the target's own. Machines that are larger than the `budget` are left out.

    Raises UsageError where the target has no accelerator, or no machine fits the budget; why one machine is not tried
    is in its candidate.
    """
    from nncc.target import resolve

    own = resolve(target).hardware.accelerator
    if own is None:
        raise UsageError(
            f"`{target}` has no accelerator to explore", "`--target vta`, or a TOML file with [accelerator]"
        )
    names = list(sizes)
    found = [
        _sized(target, ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True)))
        for values in product(*sizes.values())
    ]
    if budget is not None:
        found = _within(found, budget.mm2(own))
    tried = sum(not each.refused for each in found)
    done = 0
    for number, candidate in enumerate(found):
        if candidate.refused:
            continue
        progress(done, tried, candidate.words)
        done += 1
        try:
            found[number] = _counted(candidate, Path(model), target, memory, shape or {})
        except NnccError as error:
            found[number] = replace(candidate, refused=error.message)
    return tuple(found)


def _sized(target: str, words: str) -> Candidate:
    """A machine before it is tried."""
    from nncc.target import resolve

    try:
        machine = resolve(f"{target},{words}").hardware.accelerator
    except NnccError as error:
        return Candidate(words, None, refused=error.message)
    assert machine is not None
    return Candidate(words, area_of(machine), machine.block**2, _memory_kib(machine), machine.bus_bytes)


def _within(candidates: Sequence[Candidate], most_mm2: float) -> list[Candidate]:
    """Those that are larger refused. UsageError where that is all."""
    areas = [each.area.total for each in candidates if each.area is not None]
    if areas and min(areas) > most_mm2:
        message = f"no machine fits {most_mm2:.2f} mm²: the smallest of these takes {min(areas):.2f} mm²"
        raise UsageError(message, "let them be smaller, or the budget larger")
    return [
        replace(each, refused=f"{each.area.total:.2f} mm² are more than {most_mm2:.2f}")
        if each.area is not None and each.area.total > most_mm2
        else each
        for each in candidates
    ]


def _counted(
    candidate: Candidate, model: Path, target: str, memory: str, shape: Mapping[str, Sequence[int]]
) -> Candidate:
    from nncc.api import compile as compile_model
    from nncc.execute import open_library
    from nncc.frontend.samples import fill

    with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
        artifact = compile_model(model, f"{target},{candidate.words}", Path(folder) / "made", shape, verify=False)
        options = [f"memory={memory}"] if memory else []
        library = open_library(artifact.library, device=f"sim:{','.join([*options, 'arithmetic=off'])}")
        simulated = library.simulate(fill(library.inputs, "zeros"))
    if not any(simulated.cycles):
        raise ModelError("no layer of the model runs on it: `nncc compile` says why")
    macs = simulated.counters.get("gemm_iterations", 0) * candidate.multipliers
    return replace(candidate, cycles=sum(simulated.cycles), seconds=simulated.seconds, macs=macs)


def _memory_kib(machine: Machine) -> int:
    return sum(value for name, value in vars(machine).items() if name.endswith("_kib"))


def pareto(candidates: Iterable[Candidate]) -> set[str]:
    """The words of those that no other beats: no other is as small, and as fast."""
    able = {each.words: (each.area.total, each.seconds) for each in candidates if each.area and not each.refused}

    def beaten(costs: tuple[float, float]) -> bool:
        return any(other[0] <= costs[0] and other[1] <= costs[1] and other != costs for other in able.values())

    return {words for words, costs in able.items() if not beaten(costs)}


def candidates_json(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """All that is known of each machine; areas in mm², by part."""
    best = pareto(candidates)
    return [
        asdict(each)
        | {"area_mm2": each.area.total if each.area else None, "use": each.use, "pareto": each.words in best}
        for each in candidates
    ]


def candidates_text(candidates: Sequence[Candidate], memory: str) -> str:
    """A line a machine; those that no other beats have a mark."""
    from nncc.reports import duration, table

    best = pareto(candidates)
    rows = [["", "machine", "multipliers", "KiB", "bus", "mm²", "cycles", "time", "of the peak"]]
    refused = ""
    for each in candidates:
        if each.refused or each.area is None:
            refused += f"{each.words}: {each.refused}\n"
            continue
        numbers = [str(each.multipliers), str(each.memory_kib), str(each.bus_bytes), f"{each.area.total:.2f}"]
        mark, use = "*" * (each.words in best), f"{100 * each.use:.1f} %"
        rows.append([mark, each.words, *numbers, f"{each.cycles:,}", duration(each.seconds), use])
    where = f"memory {memory}" if memory else "the target's own memory"
    legend = f"cycles of one inference, {where}; mm² of 40 nm, estimated; * no other is as small and as fast\n"
    return (table(rows, "<<>>>>>>>") + legend if len(rows) > 1 else "") + refused
