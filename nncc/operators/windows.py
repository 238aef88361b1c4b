"""Where windows lie that slide over the axes of an image, in the words of ONNX's pooling operators.

n' = floor((n + before + after - ((k - 1) d + 1)) / s) + 1      or rounded up, but no window begins past the image
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.compat import tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes

__all__ = ["Windows", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """For each spatial axis, its size, the window's, the steps, and how much is around the image."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    result: tuple[int, ...]

    @property
    def rank(self) -> int:
        """How many axes there are."""
        return len(self.size)

    @property
    def reach(self) -> tuple[int, ...]:
        """How far a dilated window reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def overrun(self) -> tuple[int, ...]:
        """What the last windows need behind the image: more than `after` where sizes are rounded up."""
        return tuple(
            max(a, (m - 1) * s + r - n - b)
            for a, m, s, r, n, b in zip(
                self.after, self.result, self.strides, self.reach, self.size, self.before, strict=True
            )
        )

    @property
    def pads(self) -> list[int]:
        """With these, before all axes and then behind them, sizes that are rounded down are right."""
        return [*self.before, *self.overrun]

    def counts(self, padding: bool) -> np.ndarray:
        """How many elements each window has, of the image or, with `padding`, of it and what is around: [*result]."""
        total = np.ones((), np.int64)
        for d in range(self.rank):
            taps = np.arange(self.result[d])[:, None] * self.strides[d] - self.before[d]
            taps = taps + np.arange(self.kernel[d])[None] * self.dilations[d]
            low, high = (-self.before[d], self.size[d] + self.after[d]) if padding else (0, self.size[d])
            total = np.multiply.outer(total, ((taps >= low) & (taps < high)).sum(1))
        return total

    def place(self, at: Sequence[Any], taps: Sequence[Any]) -> tuple[list[Any], Any]:
        """Where in the image a tap of the window at `at` is, and whether that is inside of it."""
        where = [at[d] * self.strides[d] - self.before[d] + taps[d] * self.dilations[d] for d in range(self.rank)]
        return where, tirx.all(*(c for d, i in enumerate(where) for c in (i >= 0, i < self.size[d])))


def windows_of(shape: Sequence[int], attributes: Attributes) -> Windows:
    """The windows of a pooling node whose input has this shape; ModelError where attributes do not fit it."""
    size = tuple(shape[2:])
    rank = len(size)
    kernel = attributes.ints("kernel_shape", ())
    strides, dilations = attributes.ints("strides", [1] * rank), attributes.ints("dilations", [1] * rank)
    pads = attributes.ints("pads", [0] * 2 * rank)
    if rank < 1 or {len(kernel), len(strides), len(dilations)} != {rank} or len(pads) != 2 * rank:
        raise ModelError(f"its attributes do not fit an input of shape {list(shape)}")
    if min([*kernel, *strides, *dilations, *size]) < 1 or min(pads) < 0:
        raise ModelError("its sizes, strides or dilations are not positive, or its pads are negative")
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    automatic = attributes.text("auto_pad", "NOTSET")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        if max(dilations) > 1:
            raise ModelError(f"it is dilated with `{automatic}`, where implementations of ONNX disagree")
        result = [-(-n // s) for n, s in zip(size, strides, strict=True)]
        totals = [max((m - 1) * s + r - n, 0) for m, s, r, n in zip(result, strides, reach, size, strict=True)]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*small, *large] if automatic == "SAME_UPPER" else [*large, *small]
    elif automatic in ("NOTSET", "VALID"):
        pads = [0] * 2 * rank if automatic == "VALID" else pads
        around = [n + b + a - r for n, b, a, r in zip(size, pads[:rank], pads[rank:], reach, strict=True)]
        if min(around) < 0:
            raise ModelError(f"its windows of {reach} are larger than an image of {list(size)} with what is around it")
        up = bool(attributes.get("ceil_mode", 0))
        result = [(-(-a // s) if up else a // s) + 1 for a, s in zip(around, strides, strict=True)]
        result = [
            m - 1 if up and (m - 1) * s >= n + b else m
            for m, s, n, b in zip(result, strides, size, pads[:rank], strict=True)
        ]
    else:
        raise ModelError(f"its auto_pad is `{automatic}`")
    lists = (size, kernel, strides, dilations, pads[:rank], pads[rank:], result)
    return Windows(*(tuple(int(n) for n in each) for each in lists))
