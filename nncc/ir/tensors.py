"""What is said of a tensor without its contents, and where one may begin."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from nncc.ir.extents import Extent

__all__ = ["ALIGNMENT", "TensorSpec", "align"]

ALIGNMENT = 64
"""Bytes: every constant and every arena buffer starts at a multiple of this."""

_BITS = {"float": 32, "double": 64, "bool": 8, "bfloat16": 16}


def align(size: int, to: int = ALIGNMENT) -> int:
    """The smallest multiple of `to` that is not less than `size`, in bytes."""
    return -(-size // to) * to


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype (the word of numpy or ml_dtypes) and shape of an input, an output or a constant.

    `shape` is static, or the largest that there is; `extents` then says, by axis, what the sizes are.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    extents: tuple[Extent, ...] = ()
    """Empty where the shape is static."""

    @property
    def nbytes(self) -> int:
        """Size in bytes of the tensor in row-major order, densely packed but that each element has whole bytes."""
        return prod(self.shape) * self._bits // 8

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be it, at some sizes of open dimensions."""
        extents = self.extents or tuple(map(Extent, self.shape))
        return len(shape) == len(extents) and all(
            bool(extent.terms) or extent.constant == size for extent, size in zip(extents, shape, strict=True)
        )

    @property
    def size(self) -> Extent:
        """Size in bytes, as `nbytes`, of the actual tensor."""
        total = Extent(self._bits)
        for extent in self.extents or map(Extent, self.shape):
            total *= extent
        return Extent(total.constant // 8, tuple((c // 8, steps) for c, steps in total.terms))

    @property
    def _bits(self) -> int:
        digits = re.match(r"[a-z]+(\d+)", self.dtype)
        return max(8, _BITS.get(self.dtype) or int(digits[1] if digits else 8))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{'x'.join(map(str, self.extents or self.shape))}]"
