"""What other sizes of the accelerator would do for a model: `nncc vta explore`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from nncc.errors import ModelError, NnccError, UsageError
from nncc.vta.machine import Machine

__all__ = ["Candidate", "candidates_text", "explore", "pareto"]


@dataclass(frozen=True)
class Candidate:
    """A machine, and what it takes for one inference."""

    words: str
    """What makes the target this machine: ``block=32,bus_bytes=16``."""
    multipliers: int
    """Of its matrix unit."""
    memory_kib: int
    """Of its scratchpads."""
    bus_bytes: int
    cycles: int
    """Of all programs of an inference; 0 where it was refused."""
    seconds: float
    """Those, by the clock."""
    macs: int
    """Multiply-adds of the matrix unit, padding included."""
    refused: str = ""
    """Why this machine cannot have the model."""

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
    progress: Callable[[int, int, str], None] = lambda done, total, what: None,
) -> tuple[Candidate, ...]:
    """Compile `model` for each combination of `sizes`, fields of `Machine` by their values, and count its cycles on the
    simulator, beside the named `memory` or the target's own.

    Raises UsageError where the target has no accelerator; what a machine alone is refused for is in its candidate.
    """
    from nncc.target import resolve

    if resolve(target).hardware.accelerator is None:
        raise UsageError(
            f"`{target}` has no accelerator to explore", "`--target vta`, or a TOML file with [accelerator]"
        )
    names, found = list(sizes), []
    combinations = list(product(*sizes.values()))
    for number, values in enumerate(combinations):
        words = ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        progress(number, len(combinations), words)
        try:
            found.append(_candidate(Path(model), target, words, memory, shape or {}))
        except NnccError as error:
            found.append(Candidate(words, 0, 0, 0, 0, 0.0, 0, error.message))
    return tuple(found)


def _candidate(model: Path, target: str, words: str, memory: str, shape: Mapping[str, Sequence[int]]) -> Candidate:
    from nncc.api import compile as compile_model
    from nncc.execute import open_library
    from nncc.frontend.samples import fill
    from nncc.target import resolve

    named = f"{target},{words}"
    machine = resolve(named).hardware.accelerator
    assert machine is not None
    with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
        artifact = compile_model(model, named, Path(folder) / "made", shape, verify=False)
        options = [f"memory={memory}"] if memory else []
        library = open_library(artifact.library, device=f"sim:{','.join([*options, 'arithmetic=off'])}")
        simulated = library.simulate(fill(library.inputs, "zeros"))
    if not any(simulated.cycles):
        raise ModelError("no layer of the model runs on it: `nncc compile` says why")
    macs = simulated.counters.get("gemm_iterations", 0) * machine.block**2
    return Candidate(
        words,
        machine.block**2,
        _memory_kib(machine),
        machine.bus_bytes,
        sum(simulated.cycles),
        simulated.seconds,
        macs,
    )


def _memory_kib(machine: Machine) -> int:
    return sum(value for name, value in vars(machine).items() if name.endswith("_kib"))


def pareto(candidates: Iterable[Candidate]) -> set[str]:
    """The words of those that no other beats: no other is as small in multipliers, memory and bus, and as fast."""
    able = [each for each in candidates if not each.refused]

    def costs(each: Candidate) -> tuple[float, ...]:
        return each.multipliers, each.memory_kib, each.bus_bytes, each.seconds

    def beaten(each: Candidate) -> bool:
        return any(
            all(a <= b for a, b in zip(costs(other), costs(each), strict=True)) and costs(other) != costs(each)
            for other in able
        )

    return {each.words for each in able if not beaten(each)}


def candidates_text(candidates: Sequence[Candidate], memory: str) -> str:
    """A line a machine; those that no other beats have a mark."""
    from nncc.report import duration, table

    best = pareto(candidates)
    rows = [["", "machine", "multipliers", "KiB", "bus", "cycles", "time", "of the peak"]]
    refused = ""
    for each in candidates:
        if each.refused:
            refused += f"{each.words}: {each.refused}\n"
            continue
        numbers = [str(each.multipliers), str(each.memory_kib), str(each.bus_bytes), f"{each.cycles:,}"]
        rows.append(
            ["*" * (each.words in best), each.words, *numbers, duration(each.seconds), f"{100 * each.use:.1f} %"]
        )
    where = f"memory {memory}" if memory else "the target's own memory"
    legend = f"cycles of one inference, {where}; * no other is as small and as fast\n"
    return (table(rows, "<<>>>>>>") + legend if len(rows) > 1 else "") + refused
