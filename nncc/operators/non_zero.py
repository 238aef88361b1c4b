"""NonZero: the places of the elements that are not zero."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import relax, static_shape
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.selection import select

__all__ = ["ELEMENTS", "non_zero"]

ELEMENTS = {
    "float32": "float", "float64": "double", "int8": "int8_t", "int16": "int16_t", "int32": "int32_t",
    "int64": "int64_t", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
    "bool": "uint8_t", "float16": "uint16_t",
}  # fmt: skip
"""Element types of non_zero.c, and of unique.c but for float16, and their names in C."""


def non_zero(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """out[:, k] = the index of the k-th element of x that is not zero, in row-major order; of a scalar, none."""
    (x,) = inputs
    shape, dtype = static_shape(x), str(x.ty.dtype)
    if dtype not in ELEMENTS:
        raise ModelError(f"NonZero of {dtype} cannot be compiled", "cast its input to float32")
    total = int(np.prod(shape, dtype=np.int64))
    sizes = relax.const(np.array(shape or (1,), np.int64), "int64")
    made = [((len(shape), total), "int64")]
    return select(builder, f"non_zero_{dtype}", [x, sizes], made, [len(shape), total], attributes)[0]
