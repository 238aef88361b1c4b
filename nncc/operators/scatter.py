"""ScatterElements, Scatter and ScatterND: a copy of a tensor in which updates take, or join, the place of elements.

    ScatterElements:  y[i, index[i, j, ..], ..] o= u[i, j, ..]         along `axis`
    ScatterND:        y[index[i.., 0], .., index[i.., k-1], r..] o= u[i.., r..]

`o=` is assignment, or adds, multiplies, or keeps the smaller or greater. Updates of one place are taken in their order.
A negative index counts from the end. An index outside, which ONNX calls an error, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any

from nncc.compat import loop_nest, te, tirx
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.loops import loop, strides_of, when
from nncc.operators.operands import axis_within, dtype_of, kernel, shape_of

__all__ = ["scatter_elements", "scatter_nd"]

_JOIN: dict[str, Callable[[Any, Any], Any]] = {
    "none": lambda old, new: new,
    "add": lambda old, new: old + new,
    "mul": lambda old, new: old * new,
    "min": tirx.min,
    "max": tirx.max,
}


def scatter_elements(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """ScatterElements of every opset, and Scatter, its name before opset 11."""
    data, indices, updates = inputs
    shape, picked = shape_of(data), shape_of(indices)
    axis = axis_within(int(attributes.get("axis", 0)), len(shape))
    fits = len(picked) == len(shape) and all(
        n <= m for d, (n, m) in enumerate(zip(picked, shape, strict=True)) if d != axis
    )
    if not fits or shape_of(updates) != picked:
        raise ModelError(f"its indices of shape {picked} do not fit data of shape {shape}, or its updates do not")
    join = _join(data, attributes)
    strides, own = strides_of(shape), strides_of(picked)

    def body(given: Any, made: Any) -> None:
        (x, index, update), (y,) = given, made
        _copy(x, y, prod(shape))
        at: list[Any] = [None] * len(shape)
        order = [*(d for d in range(len(shape)) if d != axis), axis]
        with ExitStack() as nest:  # lines along the axis write different elements; those of one line go in order
            for depth, d in enumerate(order):
                work = prod(picked) if depth == 0 and d != axis else 0
                at[d] = nest.enter_context(loop(picked[d], work))
            place = sum(i * stride for i, stride in zip(at, own, strict=True))
            i = _from_start(index[place], shape[axis])
            with when(_inside(i, shape[axis])):
                target = sum(at[d] * strides[d] for d in order[:-1]) + _same(i, at[axis]) * strides[axis]
                y[target] = join(y[target], update[place])

    return _scattered(builder, data, indices, updates, body, "scatter_elements")


def scatter_nd(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """ScatterND of every opset."""
    data, indices, updates = inputs
    shape, picked = shape_of(data), shape_of(indices)
    depth = picked[-1] if picked else 0
    if not 1 <= depth <= len(shape) or shape_of(updates) != [*picked[:-1], *shape[depth:]]:
        raise ModelError(f"its indices of shape {picked} do not fit data of shape {shape}, or its updates do not")
    join = _join(data, attributes)
    strides, size = strides_of(shape), prod(shape[depth:])

    def body(given: Any, made: Any) -> None:
        (x, index, update), (y,) = given, made
        _copy(x, y, prod(shape))
        with loop(prod(picked[:-1])) as entry:
            parts = [_from_start(index[entry * depth + d], shape[d]) for d in range(depth)]
            with when(tirx.all(*(_inside(part, shape[d]) for d, part in enumerate(parts)))):
                start = sum(_same(part, entry) * strides[d] for d, part in enumerate(parts))
                with loop(size) as i:
                    y[start + i] = join(y[start + i], update[entry * size + i])

    return _scattered(builder, data, indices, updates, body, "scatter_nd")


def _join(data: Any, attributes: Attributes) -> Callable[[Any, Any], Any]:
    reduction = attributes.text("reduction", "none")
    if reduction not in _JOIN or (reduction != "none" and dtype_of(data) == "bool"):
        raise ModelError(f"its reduction `{reduction}` of {dtype_of(data)} is none that can be compiled")
    return _JOIN[reduction]


def _scattered(builder: Any, data: Any, indices: Any, updates: Any, body: Any, name: str) -> Any:
    def written(*tensors: te.Tensor) -> te.Tensor:
        return loop_nest([(shape_of(data), dtype_of(data))], tensors, body, name)

    return kernel(builder, written, data, indices, updates, name=name)


def _copy(x: Any, y: Any, size: int) -> None:
    with loop(size, size) as i:
        y[i] = x[i]


def _from_start(index: Any, size: int) -> Any:
    dtype = str(getattr(index.ty, "dtype", index.ty))
    if dtype.startswith("uint"):
        return index
    return tirx.Select(index < tirx.const(0, dtype), index + tirx.const(size, dtype), index)


def _inside(index: Any, size: int) -> Any:
    dtype = str(getattr(index.ty, "dtype", index.ty))
    return tirx.all(index >= tirx.const(0, dtype), index < tirx.const(size, dtype))


def _same(index: Any, like: Any) -> Any:
    """An index in the dtype of a loop's variable."""
    return index.astype(str(getattr(like.ty, "dtype", like.ty)))
