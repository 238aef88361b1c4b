"""OneHot with values that are computed, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import GenericConst, constant_array, relax, static_shape, te, tirx

__all__ = ["one_hot"]


def one_hot(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """y[.., i, ..] = values[1] where indices[..] = i or i - depth, else values[0]; i runs along the new `axis`."""
    indices, depth, values = inputs[:3]
    if not isinstance(depth, GenericConst):
        raise ValueError("OneHot of a depth that is not constant")
    size, shape = int(constant_array(depth).reshape(-1)[0]), list(static_shape(indices))
    if size < 0:
        raise ValueError(f"OneHot of depth {size}")
    axis = int(attributes.get("axis", -1)) % (len(shape) + 1)
    if "int" not in str(indices.ty.dtype):
        indices = builder.emit(relax.op.astype(indices, "int64"))
    if str(indices.ty.dtype) not in ("int32", "int64"):
        indices = builder.emit(relax.op.astype(indices, "int64"))

    def compute(index: Any, pair: Any) -> Any:
        def element(*at: Any) -> Any:
            which = index[at[:axis] + at[axis + 1 :]]
            place = at[axis].astype(str(index.dtype))
            hit = tirx.any(which == place, which + tirx.const(size, str(index.dtype)) == place)
            return tirx.Select(hit, pair[1], pair[0])

        return te.compute([*shape[:axis], size, *shape[axis:]], element, name="one_hot")

    return builder.emit_te(compute, indices, values, primfunc_name_hint="one_hot")
