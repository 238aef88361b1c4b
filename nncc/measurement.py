"""What running a library has shown: times here, or cycles of a simulated accelerator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Measurement", "Simulation"]


@dataclass(frozen=True)
class Measurement:
    """Times of a library. Memory is what the process needed beyond what it had before the library was loaded."""

    threads: int
    warmup: int
    seconds: tuple[float, ...]
    """Of each timed inference, in order."""
    load_seconds: float
    create_seconds: float
    peak_bytes: int
    """0 where the system does not tell."""
    call_seconds: tuple[float, ...] = ()
    """Mean of each kernel call; empty unless asked for."""

    @property
    def ordered(self) -> list[float]:
        """The times, the shortest first."""
        return sorted(self.seconds)

    @property
    def p50(self) -> float:
        """The median, between the two in the middle where their number is even."""
        times = self.ordered
        return (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2

    @property
    def p90(self) -> float:
        """By nearest rank."""
        times = self.ordered
        return times[(len(times) * 9 + 9) // 10 - 1]

    @property
    def mean(self) -> float:
        """The arithmetic mean."""
        return sum(self.seconds) / len(self.seconds)


@dataclass(frozen=True)
class Simulation:
    """An inference on a simulated accelerator."""

    device: str
    """What the simulator says of itself: the machine's configuration, clock and memory."""
    counters: Mapping[str, int]
    cycles: tuple[int, ...]
    """Of each call; 0 for those on the host. A layer's are those from when all before it was complete."""
    seconds: float
    """Those of all, by the clock of the device."""
    host_seconds: tuple[float, ...]
    """Of each call, as they were here; 0 for those on the accelerator."""
