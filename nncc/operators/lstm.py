"""LSTM of ONNX, kept as a loop over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.operators.recurrence import convert_recurrent

__all__ = ["lstm"]


def lstm(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """i, o, f = F(x W^T + h R^T + b + P (.) c)    c' = f (.) c + i (.) G(x W^T + h R^T + b)    h' = o (.) H(c').

    o looks at c', not at c; with ``input_forget``, f = 1 - i.
    """
    return convert_recurrent("LSTM", builder, inputs, attributes)
