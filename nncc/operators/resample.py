"""Axes that are resampled with indices and weights of constant tables, as a kernel that later passes know again.

    y[.., i, ..] = sum_t weights[i, t] x[.., indices[i, t], ..]      for one axis after another

The kernel's attribute `RESAMPLING` says what it does: so it may be made again for another layout of the axes that it
leaves as they are, or, where each result is one element, for another dtype.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from nncc.compat import relax, te, tirx
from nncc.scheduling import borders, kept, phases

__all__ = ["Axis", "Resample", "data_of", "emit_resample", "resample_of"]

RESAMPLING = "nncc.resampling"

_UNROLLED = 4
"""Taps that are written side by side; more are a loop."""


@dataclass(frozen=True)
class Axis:
    """An axis of `size` elements that gets `resized` ones of `taps` terms each; whether some of them are outside.

    Where it `repeats`, tap t of element i is at (i + `start`) div `repeats` + t, or at the end next to that; it has no
    table of indices then.
    """

    axis: int
    size: int
    resized: int
    taps: int
    extrapolates: bool
    repeats: int = 0
    start: int = 0


@dataclass(frozen=True)
class Resample:
    """What the kernel does: which axes, in which order; `filler` is what is outside of them.

    Its tables are, for each axis that does not repeat, indices int32 [taps, resized], of which -1 in the first place
    says outside; and, unless each result `picks` one element, weights of the same shape, in the dtype of the result, or
    those of `repeats` elements, where all that follow have the same.
    """

    axes: tuple[Axis, ...]
    picks: bool
    filler: float

    @property
    def extrapolates(self) -> bool:
        """Whether the filler is ever a result."""
        return any(axis.extrapolates for axis in self.axes)


def emit_resample(builder: Any, how: Resample, x: Any, tables: Sequence[Any]) -> Any:
    """The kernel's call."""
    attributes = {RESAMPLING: json.dumps(asdict(how))}
    return builder.emit_te(
        partial(_compute, how=how), x, *tables, primfunc_name_hint="resize", primfunc_attrs=attributes
    )


def resample_of(kernels: Mapping[str, Any], call: Any) -> Resample | None:
    """What a call does if it is one that `emit_resample` made; `kernels` are the functions of its module, by name."""
    if not isinstance(call, relax.Call) or getattr(call.op, "name", "") != "relax.call_tir":
        return None
    attributes = kernels[call.args[0].name_hint].attrs
    if attributes is None or RESAMPLING not in attributes:
        return None
    said = json.loads(str(attributes[RESAMPLING]))
    return Resample(tuple(Axis(**axis) for axis in said["axes"]), said["picks"], said["filler"])


def data_of(call: Any) -> tuple[Any, list[Any]]:
    """What such a call resamples, and its tables."""
    x, *tables = call.args[1].fields
    return x, tables


def _compute(x: te.Tensor, *tables: te.Tensor, how: Resample) -> te.Tensor:
    left = iter(tables)
    indices: list[Any] = []
    weights: list[Any] = []
    for axis in how.axes:
        indices.append(None if axis.repeats else next(left))
        weights.append(None if how.picks else next(left))
    value = x if how.picks else _interpolated(x, indices, weights, how)
    shape = [int(n) for n in value.shape]
    if how.picks:
        for axis in how.axes:
            shape[axis.axis] = axis.resized
    elif not how.extrapolates:
        return value

    def result(*at: Any) -> Any:
        source = list(at)
        for table, axis in zip(indices, how.axes, strict=True) if how.picks else ():
            source[axis.axis] = _place(table, at[axis.axis], 0, axis)
        outside = [t[0, at[a.axis]] < 0 for t, a in zip(indices, how.axes, strict=True) if a.extrapolates]
        if not outside:
            return value(*source)
        return tirx.Select(tirx.any(*outside), tirx.const(how.filler, value.dtype), value(*source))

    return te.compute(shape, result, name="resize")


def _place(table: te.Tensor | None, i: Any, t: Any, axis: Axis) -> Any:
    """Where tap t of element i is."""
    if table is not None:
        return tirx.max(table[t, i], 0) if axis.extrapolates else table[t, i]
    at = tirx.floordiv(i + axis.start, axis.repeats) + t
    first, last = axis.start // axis.repeats, (axis.resized - 1 + axis.start) // axis.repeats + axis.taps - 1
    at = tirx.min(at, axis.size - 1) if last >= axis.size else at
    return tirx.max(at, 0) if first < 0 else at


def _interpolated(
    x: te.Tensor, indices: Sequence[te.Tensor | None], weights: Sequence[te.Tensor], how: Resample
) -> te.Tensor:
    value = x
    for table, weight, axis in zip(indices, weights, how.axes, strict=True):
        value = _along(value, table, weight, axis)
    return value


def _along(x: te.Tensor, table: te.Tensor | None, weight: te.Tensor, axis: Axis) -> te.Tensor:
    shape = [*x.shape[: axis.axis], axis.resized, *x.shape[axis.axis + 1 :]]

    def tap(at: Sequence[Any], t: Any) -> Any:
        source = list(at)
        source[axis.axis] = _place(table, at[axis.axis], t, axis)
        i = at[axis.axis] if int(weight.shape[1]) == axis.resized else at[axis.axis] % axis.repeats
        return weight[t, i] * x(*source).astype(weight.dtype)

    if axis.taps <= _UNROLLED:
        attrs = _along_rows(axis) if axis.axis == len(shape) - 1 else {}
        return te.compute(
            shape, lambda *at: sum((tap(at, t) for t in range(1, axis.taps)), tap(at, 0)), name="resize", attrs=attrs
        )
    k = te.reduce_axis((0, axis.taps), name="tap")
    return te.compute(shape, lambda *at: te.sum(tap(at, k), axis=k), name="resize")


def _along_rows(axis: Axis) -> dict[str, Any]:
    """Attributes of a block along the innermost axis: it is made once, and where it repeats, in phases: for each
    element of the source those of the result, which all lie inside but at the borders.
    """
    if not axis.repeats or axis.resized % axis.repeats:
        return kept()
    steps = axis.resized // axis.repeats
    first = max(0, -(axis.start // axis.repeats))
    end = min(steps, axis.size + 1 - axis.taps - (axis.repeats - 1 + axis.start) // axis.repeats)
    return kept() | (phases(axis.repeats) | borders(first, steps - end) if first < end else {})
