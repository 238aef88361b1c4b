"""Split into parts of which some are empty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, static_shape

__all__ = ["split"]


def split(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """x cut along `axis` into parts of the sizes given; parts without elements are constants. Others are TVM's."""
    x, sizes = [*inputs, None][:2]
    given = attributes.get("split")
    if sizes is not None:
        if not isinstance(sizes, GenericConst):
            return None
        given = constant_array(sizes).reshape(-1).tolist()
    shape, dtype = list(static_shape(x)), str(x.ty.dtype)
    axis = int(attributes.get("axis", 0)) % len(shape)
    if given is None and 0 in shape and "num_outputs" in attributes:
        count = int(attributes["num_outputs"])
        given = [shape[axis] // count] * count
    if given is None or (0 not in given and 0 not in shape):
        return None
    if any(size < 0 for size in given) or sum(given) != shape[axis]:
        raise ValueError(f"Split of {shape[axis]} into {list(given)}")
    parts, start = [], 0
    for size in given:
        part = [*shape[:axis], int(size), *shape[axis + 1 :]]
        if 0 in part:
            parts.append(relax.const(np.zeros(part), dtype))
        elif size == shape[axis]:
            parts.append(x)
        else:
            parts.append(builder.emit(relax.op.strided_slice(x, [axis], [start], [start + int(size)])))
        start += int(size)
    return relax.Tuple(parts) if len(parts) > 1 else parts[0]
