"""A tensor on blocked channels, and the two passes over memory that make it and undo it.

x[n, c, h, w] = X[n, c div b, h, w, c mod b]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nncc.compat import static_shape, te, tirx

__all__ = ["Blocked", "from_blocks", "to_blocks"]


@dataclass
class Blocked:
    """A tensor of `channels` channels kept as [N, ceil(C/lanes), H, W, lanes]."""

    expr: Any
    channels: int

    @property
    def lanes(self) -> int:
        return static_shape(self.expr)[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The plain shape."""
        batch, _, height, width, _ = static_shape(self.expr)
        return batch, self.channels, height, width

    @property
    def full(self) -> bool:
        """Whether the channels fill their blocks."""
        return self.channels % self.lanes == 0


def to_blocks(x: te.Tensor, lanes: int, padding: Sequence[int] = (0, 0, 0, 0)) -> te.Tensor:
    """Plain channels to blocked ones; `padding` is (top, left, bottom, right)."""
    batch, channels, height, width = (int(d) for d in x.shape)
    top, left, bottom, right = padding
    blocks = -(-channels // lanes)

    def element(n: Any, c: Any, h: Any, w: Any, i: Any) -> Any:
        value = x[n, c * lanes + i, h - top, w - left]
        inside = [c * lanes + i < channels] if channels % lanes else []
        if top or bottom:
            inside += [h >= top, h < height + top]
        if left or right:
            inside += [w >= left, w < width + left]
        return tirx.if_then_else(tirx.all(*inside), value, tirx.const(0, x.dtype)) if inside else value

    shape = batch, blocks, height + top + bottom, width + left + right, lanes
    return te.compute(shape, element, name="block_channels")


def from_blocks(x: te.Tensor, channels: int) -> te.Tensor:
    """Blocked channels to plain ones."""
    batch, _, height, width, lanes = x.shape
    return te.compute(
        (batch, channels, height, width), lambda n, c, h, w: x[n, c // lanes, h, w, c % lanes], name="unblock_channels"
    )
