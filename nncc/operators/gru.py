"""GRU of ONNX, kept as a loop over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.operators.recurrence import convert_recurrent

__all__ = ["gru"]


def gru(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """z, r = F(x W^T + h R^T + b)    n = G(x W^T + (r (.) h) R^T + b)    h' = (1 - z) (.) n + z (.) h.

    With ``linear_before_reset``, n = G(x W^T + b_W + r (.) (h R^T + b_R)).
    """
    return convert_recurrent("GRU", builder, inputs, attributes)
