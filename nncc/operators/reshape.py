"""Reshape of nothing, or to nothing: with sizes of 0."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, static_shape

__all__ = ["reshape"]


def reshape(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """x in the shape given, where -1 is what is left and 0, unless `allowzero`, what x has there.

    Shapes that are no constants, and all that have no size of 0, are left to TVM's importer.
    """
    x, wanted = inputs[:2]
    if not isinstance(wanted, GenericConst) or not isinstance(x.ty, relax.TensorType):
        return None
    shape = static_shape(x)
    if not attributes.get("allowzero", 0) and 0 not in shape:
        return None
    sizes = [int(size) for size in constant_array(wanted).reshape(-1)]
    if not attributes.get("allowzero", 0):
        if any(size == 0 and at >= len(shape) for at, size in enumerate(sizes)):
            raise ValueError(f"Reshape of {list(shape)} to {sizes}")
        sizes = [shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    if -1 in sizes:
        at = sizes.index(-1)
        rest = prod(size for place, size in enumerate(sizes) if place != at)
        sizes[at] = prod(shape) // rest if rest else 0
    if any(size < 0 for size in sizes) or prod(sizes) != prod(shape):
        raise ValueError(f"Reshape of {list(shape)} to {sizes}")
    if 0 in sizes:  # for TVM a size that is kept
        return relax.const(np.zeros(sizes, constant_array(relax.const(0, str(x.ty.dtype))).dtype), str(x.ty.dtype))
    return relax.op.reshape(x, sizes)
