"""How much floating-point arithmetic a call of a kernel is."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Operations"]


@dataclass(frozen=True)
class Operations:
    """Counts of floating-point operations as they are executed; a multiply-add is two."""

    multiplications: int = 0
    """Divisions too."""
    additions: int = 0
    """Subtractions, maxima and minima too."""

    @property
    def total(self) -> int:
        return self.multiplications + self.additions

    def __add__(self, other: Operations) -> Operations:
        return Operations(self.multiplications + other.multiplications, self.additions + other.additions)

    def __mul__(self, times: int) -> Operations:
        return Operations(times * self.multiplications, times * self.additions)
