"""GatherElements and GatherND. An index counts from the end if it is negative; one outside takes the nearest element.

    GatherElements:  y[i, j, ..] = x[i, index[i, j, ..], ..]                       along `axis`
    GatherND:        y[b.., i.., r..] = x[b.., index[b.., i.., 0], .., index[b.., i.., k-1], r..]

ONNX calls an index outside an error; a kernel cannot refuse, and must not read what is not the tensor's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import axis_within, kernel, shape_of

__all__ = ["gather_elements", "gather_nd", "within"]


def within(index: Any, size: int) -> Any:
    """A TIR index as 0 .. size - 1."""
    dtype = index.ty.dtype if hasattr(index.ty, "dtype") else index.ty
    zero, last, length = (tirx.const(value, str(dtype)) for value in (0, size - 1, size))
    if str(dtype).startswith("uint"):
        return tirx.min(index, last)
    return tirx.max(tirx.min(tirx.Select(index < zero, index + length, index), last), zero)


def gather_elements(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """GatherElements of every opset."""
    data, indices = inputs
    shape, rank = shape_of(data), len(shape_of(data))
    axis = axis_within(int(attributes.get("axis", 0)), rank)
    picked = shape_of(indices)
    if len(picked) != rank or any(n > m for d, (n, m) in enumerate(zip(picked, shape, strict=True)) if d != axis):
        raise ModelError(f"its indices of shape {picked} do not fit data of shape {shape}")
    _refuse_empty(shape, picked)

    def gathered(x: te.Tensor, index: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Any:
            source = list(at)
            source[axis] = within(index(*at), shape[axis])
            return x(*source)

        return te.compute(picked, element, name="gather_elements")

    return kernel(builder, gathered, data, indices, name="gather_elements")


def gather_nd(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """GatherND of every opset."""
    data, indices = inputs
    shape, picked, batch = shape_of(data), shape_of(indices), int(attributes.get("batch_dims", 0))
    if not picked or not 0 <= batch < min(len(shape), len(picked)) or shape[:batch] != picked[:batch]:
        raise ModelError(f"its {batch} batch axes do not fit data of shape {shape} and indices of shape {picked}")
    depth, places = picked[-1], len(picked) - 1
    if not 1 <= depth <= len(shape) - batch:
        raise ModelError(f"its indices have {depth} parts for data of shape {shape}")
    _refuse_empty(shape, picked)
    result = [*picked[:-1], *shape[batch + depth :]]

    def gathered(x: te.Tensor, index: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Any:
            parts = [within(index(*at[:places], part), shape[batch + part]) for part in range(depth)]
            return x(*at[:batch], *parts, *at[places:])

        return te.compute(result, element, name="gather_nd")

    return kernel(builder, gathered, data, indices, name="gather_nd")


def _refuse_empty(shape: Sequence[int], picked: Sequence[int]) -> None:
    if 0 in shape and 0 not in picked:
        raise ModelError("it takes elements of a tensor that has none")
