"""Compress: the slices of a tensor that a condition picks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax, static_shape
from nncc.errors import ModelError
from nncc.ir import TensorSpec
from nncc.operators.attributes import Attributes
from nncc.operators.operands import axis_within
from nncc.operators.selection import select

__all__ = ["compress"]


def compress(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """out = x[.., i, ..] for the i along `axis` with condition[i]; without an axis, of x as one line."""
    x, condition = inputs
    if "axis" not in attributes:
        x = builder.emit(relax.op.reshape(x, (int(np.prod(static_shape(x), dtype=np.int64)),)))
    shape, dtype = static_shape(x), str(x.ty.dtype)
    axis = axis_within(int(attributes.get("axis", 0)), len(shape))
    length = min(static_shape(condition)[0], shape[axis])
    outer, inner = (int(np.prod(part, dtype=np.int64)) for part in (shape[:axis], shape[axis + 1 :]))
    out = (*shape[:axis], length, *shape[axis + 1 :])
    if dtype == "bfloat16":
        raise ModelError("Compress of bfloat16 cannot be compiled", "cast its input to float32")
    width = TensorSpec("", dtype, ()).nbytes
    sizes = [outer, shape[axis], inner * width, length]
    return select(builder, "compress", [x, condition], [(out, dtype)], sizes, attributes)[0]
