"""Numbers on a grid: q = clip(round(x / s) + z), x = (q - z) s; as expressions over elements, rounding as ONNX does.

https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html: ties go to even.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncc.compat import te, tirx
from nncc.kernels.dots import nearest, nearest_byte

__all__ = ["bounds", "dequantized", "quantized"]


def bounds(dtype: str) -> tuple[int, int]:
    """The smallest and the largest value of an integer type."""
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def dequantized(value: Any, scale: Any, zero: Any) -> Any:
    """(q - z) s of an integer, as float32; `scale` and `zero` are numbers or expressions."""
    if not (isinstance(zero, int) and zero == 0):
        value = value.astype("int32") - (tirx.const(zero, "int32") if isinstance(zero, int) else zero.astype("int32"))
    real = value.astype("float32")
    return real if isinstance(scale, float) and scale == 1.0 else real * scale


def quantized(value: Any, scale: Any, zero: Any, dtype: str) -> Any:
    """clip(round(x / s) + z) of a float32; NaN gives the smallest value."""
    low, high = bounds(dtype)
    if not (isinstance(scale, float) and scale == 1.0):
        value = value / scale
    origin = tirx.const(zero, "int32") if isinstance(zero, int) else zero.astype("int32")
    if dtype == "uint8":
        return nearest_byte(value, origin)
    least, most = (low - origin).astype("float32"), (high - origin).astype("float32")
    return (nearest(te.min(te.max(value, least), most)) + origin).astype(dtype)
