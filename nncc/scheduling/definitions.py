"""Tensor expressions that templates share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import te, tirx, topi
from nncc.kernels.dots import Dot

__all__ = ["padded", "shift", "widened"]


def padded(
    data: Any,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    zero: int = 0,
) -> tuple[Any, list[int]]:
    """Blocked data [N, C/l, H, W, l] with `zero` around H and W, and the (OH, OW) of a convolution of it.

    `window` is (KH, KW), `padding` is (top, left, bottom, right).
    """
    top, left, bottom, right = padding
    if any(padding):
        value = tirx.const(zero, data.dtype)
        data = topi.nn.pad(data, [0, 0, top, left, 0], [0, 0, bottom, right, 0], pad_value=value, name="pad")
    sizes = [int(d) for d in data.shape[2:4]]
    axes = zip(sizes, window, strides, dilation, strict=True)
    return data, [(size - (k - 1) * d - 1) // s + 1 for size, k, s, d in axes]


def shift(dtype: str, dot: Dot) -> int:
    """What `widened` adds to activations of `dtype`."""
    if dot.name == "none":
        return 0
    return {("int8", "uint8"): 128, ("uint8", "int8"): -128}.get((dtype, dot.data), 0)


def widened(data: Any, dot: Dot) -> Any:
    """Integers as `dot` takes them: those of its dtype as they are, wider ones copied, int8 as uint8 by adding 128 and
    the other way round."""
    if data.dtype == dot.data or dot.name == "none":
        return data
    offset = shift(str(data.dtype), dot)

    def element(*at: Any) -> Any:
        value = data[at].astype("int16")
        return (value + tirx.const(offset, "int16") if offset else value).astype(dot.data)

    return te.compute(data.shape, element, name="widen")
