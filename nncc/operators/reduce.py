"""Reductions in the forms that TVM's importer lacks: of booleans, and of no elements at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax, static_shape

__all__ = ["REDUCTIONS"]

_OF_NOTHING: dict[str, float | None] = {
    "ReduceL1": 0,
    "ReduceL2": 0,
    "ReduceLogSum": -np.inf,
    "ReduceLogSumExp": -np.inf,
    "ReduceMax": -np.inf,
    "ReduceMean": None,
    "ReduceMin": np.inf,
    "ReduceProd": 1,
    "ReduceSum": 0,
    "ReduceSumSquare": 0,
}
"""What a reduction of no element is; for integers, infinity is the largest of their type. A mean has no such value."""


def _axes(inputs: Sequence[Any], attributes: dict[str, Any], rank: int) -> list[int] | None:
    """The axes that are reduced, none of them negative; None where they are not known."""
    given = attributes.get("axes")
    if given is None and len(inputs) > 1 and inputs[1] is not None:
        if not isinstance(inputs[1], GenericConst):
            return None
        given = constant_array(inputs[1]).reshape(-1).tolist()
    if not given:
        return [] if attributes.get("noop_with_empty_axes") else list(range(rank))
    return [int(axis) % rank for axis in given]


def _nothing(dtype: str, value: float) -> np.ndarray:
    """`value` in `dtype`, infinity as its largest or smallest number."""
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, dtype)) if dtype == "bfloat16" else np.dtype(dtype)
    if kind.kind == "b":
        return np.array(value > 0, kind)
    if kind.kind in "iu" and np.isinf(value):
        info = np.iinfo(kind)
        return np.array(info.max if value > 0 else info.min, kind)
    return np.array(value, kind)


def _reduction(operator: str) -> Callable[[Any, Sequence[Any], dict[str, Any]], Any]:
    def reduce(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
        """A constant where there is nothing to reduce; any and all of booleans; other forms are TVM's."""
        x = inputs[0]
        shape, dtype = static_shape(x), str(x.ty.dtype)
        axes = _axes(inputs, attributes, len(shape))
        if axes is None:
            return None
        keep = bool(attributes.get("keepdims", 1))
        if 0 in shape:
            value = _OF_NOTHING[operator]
            kept = [1 if at in axes else size for at, size in enumerate(shape) if keep or at not in axes]
            if value is None and 0 not in kept:
                raise ValueError(f"{operator} of no element, which has no value")
            return relax.const(np.full(kept, _nothing(dtype, value or 0)), dtype)
        if dtype != "bool" or operator not in ("ReduceMax", "ReduceMin"):
            return None
        if not axes:
            return x
        wide = builder.emit(relax.op.astype(x, "uint8"))
        reduced = (relax.op.max if operator == "ReduceMax" else relax.op.min)(wide, axis=axes, keepdims=keep)
        return relax.op.astype(builder.emit(reduced), "bool")

    return reduce


REDUCTIONS = {operator: _reduction(operator) for operator in _OF_NOTHING}
"""By operator."""
