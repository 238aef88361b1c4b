"""Sizes that are known only when the library runs, and numbers that depend on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

__all__ = ["Dim", "Extent", "Quotient"]


@dataclass(frozen=True)
class Dim:
    """An open dimension: its size is known when the library runs."""

    name: str
    low: int
    """The smallest size."""
    high: int
    """The largest."""
    from_data: bool = False
    """Whether a kernel says the size, not the caller."""


@dataclass(frozen=True)
class Quotient:
    """floor((dim + plus) / over) of an open dimension."""

    dim: str
    plus: int = 0
    over: int = 1

    def at(self, sizes: Mapping[str, int]) -> int:
        """Its value at these sizes, by dimension."""
        return (sizes[self.dim] + self.plus) // self.over

    def __str__(self) -> str:
        inner = f"({self.dim} + {self.plus})" if self.plus else self.dim
        return f"{inner}/{self.over}" if self.over != 1 else inner


@dataclass(frozen=True)
class Extent:
    """A number that depends on open dimensions: `constant` plus each coefficient times the product of its steps."""

    constant: int
    terms: tuple[tuple[int, tuple[Quotient, ...]], ...] = ()

    def at(self, sizes: Mapping[str, int]) -> int:
        """Its value at these sizes, by dimension."""
        return self.constant + sum(c * prod(step.at(sizes) for step in steps) for c, steps in self.terms)

    def __add__(self, other: Extent | int) -> Extent:
        more = other if isinstance(other, Extent) else Extent(other)
        return _collected(self.constant + more.constant, [*self.terms, *more.terms])

    __radd__ = __add__

    def __mul__(self, other: Extent) -> Extent:
        left, right = [(self.constant, ()), *self.terms], [(other.constant, ()), *other.terms]
        products = [(a * b, (*steps, *more)) for a, steps in left for b, more in right]
        return _collected(0, products)

    @property
    def dim(self) -> str | None:
        """The open dimension that this is, as it is; None where it is something else."""
        whole = self.constant == 0 and len(self.terms) == 1 and self.terms[0][0] == 1 and len(self.terms[0][1]) == 1
        step = self.terms[0][1][0] if whole else Quotient("", 1)
        return step.dim if step == Quotient(step.dim) else None

    def __str__(self) -> str:
        words = ["*".join([*([str(c)] if c != 1 else []), *map(str, steps)]) for c, steps in self.terms]
        return " + ".join([*words, *([str(self.constant)] if self.constant or not words else [])])


def _collected(constant: int, terms: Sequence[tuple[int, tuple[Quotient, ...]]]) -> Extent:
    """The sum of all, like terms together."""
    sums: dict[tuple[Quotient, ...], int] = {}
    for coefficient, steps in terms:
        key = tuple(sorted(steps, key=str))
        sums[key] = sums.get(key, 0) + coefficient
    constant += sums.pop((), 0)
    return Extent(constant, tuple((c, steps) for steps, c in sums.items() if c))
