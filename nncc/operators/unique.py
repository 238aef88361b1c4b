"""Unique: the different elements, or slices, of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax, static_shape
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.non_zero import ELEMENTS
from nncc.operators.operands import axis_within
from nncc.operators.selection import select

__all__ = ["unique"]


def unique(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """y, the different slices of x along `axis`; where each comes first; which of y each of x is; how often each comes.

    They are in the order of their values, or where it is not `sorted`, of their first places. Without an axis, x is one
    line, and slices are elements.
    """
    (x,) = inputs
    if "axis" not in attributes:
        x = builder.emit(relax.op.reshape(x, (int(np.prod(static_shape(x), dtype=np.int64)),)))
    shape, dtype = static_shape(x), str(x.ty.dtype)
    if dtype not in ELEMENTS or dtype == "float16":
        raise ModelError(f"Unique of {dtype} cannot be compiled", "cast its input to float32")
    axis = axis_within(int(attributes.get("axis", 0)), len(shape))
    outer, inner = (int(np.prod(part, dtype=np.int64)) for part in (shape[:axis], shape[axis + 1 :]))
    line, n = ((shape[axis],), "int64"), shape[axis]
    outputs = [(shape, dtype), line, line, line, ((3 * n,), "int64")]
    flags = [int(attributes.get("sorted", 1))]
    found = select(builder, f"unique_{dtype}", [x], outputs, [outer, n, inner], attributes, flags)
    return relax.Tuple(found[: attributes.outputs])
