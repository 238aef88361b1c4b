"""ReverseSequence and TensorScatter, and TopK: operators along one axis, each element of which is known by its index.

ReverseSequence:  y[t, b] = x[n_b - 1 - t, b] for t < n_b, else x[t, b]
TensorScatter:    y[b, s] = u[b, s - w_b] where 0 <= s - w_b < length of u, else x[b, s]; modulo S if circular
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import relax, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import axis_within, cast, dtype_of, kernel, required, shape_of

__all__ = ["reverse_sequence", "tensor_scatter", "top_k"]


def reverse_sequence(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """ReverseSequence of every opset. A length outside of 0 .. size is taken for the nearest of these."""
    x, lengths = inputs
    shape = shape_of(x)
    batch = axis_within(int(attributes.get("batch_axis", 1)), len(shape), "batch_axis")
    time = axis_within(int(attributes.get("time_axis", 0)), len(shape), "time_axis")
    if batch == time or shape_of(lengths) != [shape[batch]]:
        raise ModelError(f"its lengths of shape {shape_of(lengths)} do not fit data of shape {shape}")

    def reversed_(data: te.Tensor, sizes: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Any:
            t = at[time].astype("int64")
            size = tirx.min(sizes[at[batch]].astype("int64"), tirx.const(shape[time], "int64"))
            source = [*at]
            source[time] = tirx.Select(t < size, size - 1 - t, t)
            return data(*source)

        return te.compute(shape, element, name="reverse_sequence")

    return kernel(builder, reversed_, x, lengths, name="reverse_sequence")


def tensor_scatter(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """TensorScatter of opset 24. What would be written outside of a cache that is not circular is dropped."""
    cache, update, starts = [*inputs, None][:3]
    shape, mode = shape_of(cache), attributes.text("mode", "linear")
    axis = axis_within(int(attributes.get("axis", -2)), len(shape))
    length, size = shape_of(update)[axis], shape[axis]
    fits = shape_of(update) == [*shape[:axis], length, *shape[axis + 1 :]] and length <= size
    if not fits or axis == 0 or mode not in ("linear", "circular"):
        raise ModelError(f"its update of shape {shape_of(update)} does not fit a {mode} cache of shape {shape}")
    if starts is None:
        starts = relax.const([0] * shape[0], "int64")

    def written(old: te.Tensor, new: te.Tensor, start: te.Tensor) -> te.Tensor:
        def element(*at: Any) -> Any:
            since = at[axis].astype("int64") - start[at[0]].astype("int64")
            if mode == "circular":
                since = tirx.floormod(since, tirx.const(size, "int64"))
            source = [*at]
            source[axis] = since
            inside = tirx.all(since >= 0, since < length)
            return tirx.if_then_else(inside, new(*source), old(*at))

        return te.compute(shape, element, name="tensor_scatter")

    return kernel(builder, written, cache, update, starts, name="tensor_scatter")


def top_k(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """TopK of every opset: always in order, which ONNX allows where `sorted` is 0."""
    x = inputs[0]
    shape, dtype = shape_of(x), dtype_of(x)
    axis = axis_within(int(attributes.get("axis", -1)), len(shape))
    k = int(attributes["k"]) if attributes.opset < 10 else int(required(inputs[1], "K").reshape(()))
    if not 0 <= k <= shape[axis]:
        raise ModelError(f"it takes {k} elements of an axis of {shape[axis]}")
    if k == 0:
        empty = [*shape[:axis], 0, *shape[axis + 1 :]]
        return relax.Tuple([builder.emit(relax.op.zeros(empty, dtype)), builder.emit(relax.op.zeros(empty, "int64"))])
    wide = cast(builder, x, "float32") if dtype in ("float16", "bfloat16") else x
    found = builder.emit(
        relax.op.topk(wide, k, axis, ret_type="both", largest=bool(attributes.get("largest", 1)), dtype="int64")
    )
    values, indices = (builder.emit(relax.TupleGetItem(found, part)) for part in range(2))
    return relax.Tuple([cast(builder, values, dtype), indices])
