"""What the host lays out for an accelerator: patches of images, and rows of matrices as pixels."""

from __future__ import annotations

from math import prod
from typing import Any

from nncc.compat import te, tirx

__all__ = ["blocks_to_rows", "patches_of", "rows_to_blocks"]


def patches_of(
    x: te.Tensor, lanes: int, window: Any, strides: Any, dilation: Any, corner: Any, outside: int, size: Any
) -> te.Tensor:
    """x[c, h*sh + kh*dh - pt, w*sw + kw*dw - pl] at [0, k div b, h, w, k mod b], k = (c KH + kh) KW + kw."""
    _, channels, height, width = (int(d) for d in x.shape)
    depth = channels * prod(window)

    def element(_: Any, block: Any, h: Any, w: Any, i: Any) -> Any:
        k = block * lanes + i
        c, kh, kw = k // prod(window), k // window[1] % window[0], k % window[1]
        row, column = h * strides[0] + kh * dilation[0] - corner[0], w * strides[1] + kw * dilation[1] - corner[1]
        inside = tirx.all(k < depth, row >= 0, row < height, column >= 0, column < width)
        return tirx.if_then_else(inside, x[0, c, row, column], tirx.const(outside, x.dtype))

    return te.compute((1, -(-depth // lanes), *size, lanes), element, name="patches")


def rows_to_blocks(x: te.Tensor, lanes: int) -> te.Tensor:
    """x[m, k] at [0, k div b, 0, m, k mod b]; zeros fill the last block."""
    rows, depth = (int(d) for d in x.shape)

    def element(_: Any, block: Any, __: Any, m: Any, i: Any) -> Any:
        k = block * lanes + i
        return tirx.if_then_else(k < depth, x[m, k], tirx.const(0, x.dtype)) if depth % lanes else x[m, k]

    return te.compute((1, -(-depth // lanes), 1, rows, lanes), element, name="block_rows")


def blocks_to_rows(x: te.Tensor, columns: int) -> te.Tensor:
    """The first `columns` of y[m, n] = x[0, n div b, 0, m, n mod b]."""
    lanes = int(x.shape[-1])
    return te.compute((x.shape[3], columns), lambda m, n: x[0, n // lanes, 0, m, n % lanes], name="unblock_rows")
