"""RNN of ONNX, kept as a loop over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.operators.recurrence import convert_recurrent

__all__ = ["rnn"]


def rnn(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """h' = F(x W^T + h R^T + b)."""
    return convert_recurrent("RNN", builder, inputs, attributes)
