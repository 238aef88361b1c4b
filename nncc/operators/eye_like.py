"""EyeLike: ones on a diagonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir

from nncc.compat import relax, static_shape

__all__ = ["eye_like"]


def eye_like(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y[i, j] = 1 where j - i = k, else 0: a constant of the shape of the input, of its type or that in `dtype`."""
    shape = static_shape(inputs[0])
    if len(shape) != 2:
        raise ValueError("EyeLike of a tensor that is no matrix")
    asked = attributes.get("dtype")
    dtype = onnx_ir.DataType(int(asked)).numpy() if asked else np.dtype(str(inputs[0].ty.dtype))
    return relax.const(np.eye(*shape, k=int(attributes.get("k", 0))).astype(dtype), dtype.name)
