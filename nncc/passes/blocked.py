"""A tensor on blocked channels, and the two passes over memory that make it and undo it.

x[n, c, h, w] = X[n, c div b, h, w, c mod b]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncc.compat import static_shape, te, tirx

__all__ = ["Blocked", "block_array", "from_blocks", "interleaved", "pad_plain", "to_blocks"]


@dataclass
class Blocked:
    """A tensor of `channels` channels kept as [N, ceil(C/lanes), H, W, lanes], or with all rows in one, as
    [N, ceil(C/lanes), 1, H * W, lanes]; `size` is (H, W), by default as `expr` has them."""

    expr: Any
    channels: int
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.size = self.size or static_shape(self.expr)[2:4]

    @property
    def lanes(self) -> int:
        return static_shape(self.expr)[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The plain shape."""
        return static_shape(self.expr)[0], self.channels, *self.size

    @property
    def full(self) -> bool:
        """Whether the channels fill their blocks."""
        return self.channels % self.lanes == 0


def to_blocks(x: te.Tensor, lanes: int) -> te.Tensor:
    """Plain channels to blocked ones."""
    batch, channels, height, width = x.shape
    blocks = -(-int(channels) // lanes)

    def element(n: Any, c: Any, h: Any, w: Any, i: Any) -> Any:
        value = x[n, c * lanes + i, h, w]
        if int(channels) % lanes == 0:
            return value
        return tirx.if_then_else(c * lanes + i < channels, value, tirx.const(0, x.dtype))

    return te.compute((batch, blocks, height, width, lanes), element, name="block_channels")


def interleaved(x: te.Tensor) -> te.Tensor:
    """[N, C, H, W] -> [N, 1, H, W * C, 1]: the channels of a pixel side by side, as columns of one channel."""
    batch, channels, height, width = x.shape
    shape = (batch, 1, height, width * channels, 1)
    return te.compute(shape, lambda n, _, h, w, __: x[n, w % channels, h, w // channels], name="interleave")


def pad_plain(x: te.Tensor, padding: Sequence[int]) -> te.Tensor:
    """Plain channels to blocks of one channel, with zeros around height and width."""
    batch, channels, height, width = x.shape
    top, left, bottom, right = padding

    def element(n: Any, c: Any, h: Any, w: Any, _: Any) -> Any:
        inside = tirx.all(h >= top, h < height + top, w >= left, w < width + left)
        return tirx.if_then_else(inside, x[n, c, h - top, w - left], tirx.const(0, x.dtype))

    return te.compute((batch, channels, height + top + bottom, width + left + right, 1), element, name="pad")


def from_blocks(x: te.Tensor, channels: int) -> te.Tensor:
    """Blocked channels to plain ones."""
    batch, _, height, width, lanes = x.shape
    return te.compute(
        (batch, channels, height, width), lambda n, c, h, w: x[n, c // lanes, h, w, c % lanes], name="unblock_channels"
    )


def block_array(array: np.ndarray, like: Blocked) -> np.ndarray:
    """A broadcastable 4-D constant, blocked as `like` is."""
    batch, channels, height, width = array.shape
    if channels == 1:
        return array.reshape(batch, 1, height, width, 1)
    blocks = -(-channels // like.lanes)
    padded = np.pad(array, ((0, 0), (0, blocks * like.lanes - channels), (0, 0), (0, 0)))
    return np.ascontiguousarray(padded.reshape(batch, blocks, like.lanes, height, width).transpose(0, 1, 3, 4, 2))
