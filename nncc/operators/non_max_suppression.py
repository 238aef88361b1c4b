"""NonMaxSuppression: of boxes that overlap, those with the highest scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, static_shape
from nncc.frontend.bounded import most_boxes
from nncc.operators.attributes import Attributes
from nncc.operators.selection import select

__all__ = ["non_max_suppression"]


_TOGETHER = 8
"""So many boxes non_max_suppression.c looks at at once: as much more room it needs."""


def non_max_suppression(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
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
    told = int(constant_array(most).reshape(())) if isinstance(most, GenericConst) else None
    each = most_boxes(n, told)
    rows, room = batch * classes * each, each + _TOGETHER
    outputs = [((rows, 3), "int64"), ((max(n, 1),), "int64"), ((5 * room,), "float32")]
    center = int(attributes.get("center_point_box", 0))
    return select(
        builder, "non_max_suppression", given, outputs, [batch, classes, n, rows, room], attributes, [center]
    )[0]
