"""NonMaxSuppression: of boxes that overlap, those with the highest scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax, static_shape
from nncc.operators.selection import select

__all__ = ["non_max_suppression"]


def non_max_suppression(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """[batch, class, box] of what is selected: of each class the box of the highest score, without those that overlap
    it by more than the threshold, and so on, up to a number; scores below a threshold do not count.
    """
    boxes, scores, most, overlap, least = [*inputs, None, None, None][:5]
    batch, classes, n = static_shape(scores)

    def line(value: Any, default: float, dtype: str) -> Any:
        if value is None:
            return relax.const(np.array([default], dtype), dtype)
        return builder.emit(relax.op.reshape(value, (1,)))

    given = [boxes, scores, line(most, 0, "int64"), line(overlap, 0.0, "float32"), line(least, -np.inf, "float32")]
    outputs = [((batch * classes * n, 3), "int64"), ((max(n, 1),), "int64")]
    center = int(attributes.get("center_point_box", 0))
    return select(builder, "non_max_suppression", given, outputs, [batch, classes, n], [center])[0]
