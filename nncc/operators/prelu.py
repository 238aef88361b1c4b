"""PRelu with a slope of any shape that is broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax, static_shape

__all__ = ["prelu"]


def prelu(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y = x where x >= 0, else slope x; a list of slopes that does not fit the last axis is one for each channel."""
    x, slope = inputs[:2]
    shape, slopes = static_shape(x), static_shape(slope)
    if len(slopes) == 1 and len(shape) > 1 and slopes[0] not in (1, shape[-1]):  # so opset 6 has it
        slope = builder.emit(relax.op.reshape(slope, [*slopes, *(1 for _ in shape[2:])]))
    zero = relax.const(0, str(x.ty.dtype))
    scaled = builder.emit(relax.op.multiply(x, slope))
    if static_shape(scaled) != shape:
        raise ValueError(f"PRelu of {list(shape)} with a slope of {list(slopes)}")
    return relax.op.where(builder.emit(relax.op.less(x, zero)), scaled, x)
