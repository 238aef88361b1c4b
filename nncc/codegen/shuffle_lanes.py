"""Vectors gathered from within one vector, or several, as these and a shuffle.

    x[s + d_0], x[s + d_1], .. = shuffle(x[a : a + w], s - a + d)    a = s - s mod w, all s + d_k in [a, a + w)

The d_k are constants. Either they are those of all elements of [a, a + w), in another order or several times, or w is a
power of two that divides the buffer's size: nothing is read beyond its end. So it is where they are those of all
elements from each of some a on, as where rows are interleaved. TVM's code generator would load element by element.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nncc.compat import Analyzer, structural_map, tirx, tvm

__all__ = ["shuffle_lanes"]


_LEAST_ROW = 4
"""Elements of a row that are worth a load of their own."""


def shuffle_lanes() -> Any:
    """The TIR pass; it comes when loops are vectorized and unrolled and buffers flat, before expressions are shared."""

    @tirx.transform.prim_func_pass(opt_level=0, name="nncc.ShuffleLanes")
    def apply(function: Any, module: Any, context: Any) -> Any:
        return function.with_body(structural_map(function.body, [(tvm.ir.TensorLoad, _load)]))

    return apply


def _load(load: Any) -> Any:
    if len(load.indices) != 1 or isinstance(load.indices[0], tirx.Ramp):
        return load
    if str(load.source.dtype) == "bfloat16":  # which TVM stores as uint16, but for what is shuffled
        return load
    lanes = tvm.DataType(str(load.indices[0].ty.dtype)).lanes
    parts = _parts(load.indices[0], lanes) if lanes > 1 else None
    if parts is None:
        return load
    start, offsets = parts
    low = int(offsets.min())
    whole = int(np.ptp(offsets)) + 1
    if lanes & (lanes - 1) == whole & (whole - 1) == 0 and whole > 1 and len(np.unique(offsets)) == whole:
        return _shuffled(load.source[tirx.Ramp(start + low, 1, whole)], offsets - low)
    if (rows := _rows(offsets)) is not None:
        order = [tirx.const(int(at), "int32") for at in np.searchsorted(np.sort(offsets), offsets)]
        return tirx.Shuffle([load.source[tirx.Ramp(start + int(row[0]), 1, len(row))] for row in rows], order)
    known = Analyzer().modular_set(start)
    width = 1 << int(np.ptp(offsets)).bit_length()
    while width <= lanes:
        rest = known.base % width
        aligned = known.coeff % width == 0 and prod(int(d) for d in load.source.shape) % width == 0
        first = (rest + int(offsets.min())) // width * width
        if aligned and rest + int(offsets.max()) < first + width and width > 1:
            return _shuffled(load.source[tirx.Ramp(start - rest + first, 1, width)], offsets + rest - first)
        width *= 2
    return load


def _shuffled(vector: Any, order: np.ndarray) -> Any:
    """The lanes of a vector in this order; TVM wants no more elements out than in."""
    width = tvm.DataType(str(vector.ty.dtype)).lanes
    return tirx.Shuffle([vector] * -(-len(order) // width), [tirx.const(int(lane), "int32") for lane in order])


def _rows(offsets: np.ndarray) -> list[np.ndarray] | None:
    """The rows of elements side by side that offsets make up, each element once; None where they are no vectors of one
    size."""
    ordered = np.sort(offsets)
    rows = np.split(ordered, np.flatnonzero(np.diff(ordered) != 1) + 1)
    size = len(rows[0])
    return rows if size >= _LEAST_ROW and size & (size - 1) == 0 and {len(row) for row in rows} == {size} else None


def _parts(index: Any, lanes: int) -> tuple[Any, np.ndarray] | None:
    """A vector of indices as a scalar and constant distances from it; None where it is not of that form."""
    if isinstance(index, tirx.Broadcast):
        return index.value, np.zeros(lanes, np.int64)
    if isinstance(index, tirx.Ramp) and isinstance(index.stride, tirx.IntImm):
        return index.base, int(index.stride) * np.arange(lanes)
    combine = next((f for kind, f in _ARITHMETIC if isinstance(index, kind)), None)
    if combine is None:
        return None
    a, b = _parts(index.a, lanes), _parts(index.b, lanes)
    return None if a is None or b is None else combine(a, b)


def _sum(a: Any, b: Any) -> Any:
    return a[0] + b[0], a[1] + b[1]


def _difference(a: Any, b: Any) -> Any:
    return a[0] - b[0], a[1] - b[1]


def _of_constants(function: Any) -> Any:
    """An operation that is known only where both sides are."""

    def combine(a: Any, b: Any) -> Any:
        values = [d + int(s) for s, d in (a, b) if isinstance(s, tirx.IntImm)]
        if len(values) < 2 or (function is not np.multiply and (values[0].min() < 0 or values[1].min() < 1)):
            return None
        return tirx.const(0, "int32"), function(*values)

    return combine


_ARITHMETIC = (
    (tirx.Add, _sum),
    (tirx.Sub, _difference),
    (tirx.Mul, _of_constants(np.multiply)),
    ((tirx.Div, tirx.FloorDiv), _of_constants(np.floor_divide)),
    ((tirx.Mod, tirx.FloorMod), _of_constants(np.remainder)),
)
