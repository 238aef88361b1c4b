"""Pad by constant widths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nncc.compat import GenericConst, constant_array, relax, static_shape, te, tirx, topi
from nncc.scheduling import borders

__all__ = ["bordered", "pad"]

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


def pad(builder: Any, inputs: Sequence[Any], attributes: dict[str, Any]) -> Any:
    """A constant, mirrored or repeated border of constant widths as one operator, which keeps its layout open.

    TVM's makes a kernel of it at once. Where the value of the border is computed, or only some axes are named, so do
    we; other forms are TVM's.
    """
    mode = attributes.get("mode", "constant")
    mode = _MODES.get(mode.decode() if isinstance(mode, bytes) else str(mode))
    x, amounts, filler, axes = [*inputs, None, None, None][:4]
    if mode is None or not isinstance(amounts, GenericConst):
        return None
    rank = len(x.ty.shape)
    widths = _widths(amounts, axes, rank)
    if widths is None:
        return None
    if mode == "constant" and (axes is not None or not (filler is None or isinstance(filler, GenericConst))):
        return _kernel(builder, x, widths, filler)
    if axes is not None or str(x.ty.dtype) != "float32" or (mode != "constant" and min(widths) < 0):
        return None
    value = float(constant_array(filler).reshape(())) if filler is not None else 0.0
    pairs = [width for axis in range(rank) for width in (widths[axis], widths[rank + axis])]
    return relax.op.nn.pad(x, pairs, mode, value)


def bordered(x: Any, before: Sequence[int], after: Sequence[int], mode: str, value: float) -> Any:
    """`x` with a border around its axes, as a tensor expression; `mode` is one of ``relax.nn.pad``."""
    rank = len(before)
    shape = [int(d) for d in x.shape]

    def inner(at: Any, size: int) -> Any:
        if mode == "replicate":
            return te.max(te.min(at, size - 1), 0)
        return tirx.Select(at < 0, -at, tirx.Select(at >= size, 2 * (size - 1) - at, at))

    def element(*at: Any) -> Any:
        place, inside = list(at), []
        for axis in (axis for axis in range(rank) if before[axis] or after[axis]):
            index = at[axis] - before[axis]
            inside += [index >= 0, index < shape[axis]]
            place[axis] = index if mode == "constant" else inner(index, shape[axis])
        if mode != "constant" or not inside:
            return x(*place)
        return tirx.if_then_else(tirx.all(*inside), x(*place), tirx.const(value, x.dtype))

    wide = [b + size + a for b, size, a in zip(before, shape, after, strict=True)]
    cuts = borders(before[-1], after[-1]) if mode != "constant" else {}
    return te.compute(wide, element, name="pad", tag=topi.tag.INJECTIVE, attrs=cuts)


def _widths(amounts: Any, axes: Any, rank: int) -> list[int] | None:
    """The widths before all axes, then those behind them; None where they are not known."""
    given = [int(n) for n in constant_array(amounts).reshape(-1)]
    if axes is None:
        return given if len(given) == 2 * rank else None
    if not isinstance(axes, GenericConst):
        return None
    named = [int(axis) % rank for axis in constant_array(axes).reshape(-1)]
    if len(given) != 2 * len(named) or len(set(named)) < len(named):
        raise ValueError(f"Pad with {len(given)} widths for {len(named)} axes")
    widths = [0] * (2 * rank)
    for at, axis in enumerate(named):
        widths[axis], widths[rank + axis] = given[at], given[len(named) + at]
    return widths


def _kernel(builder: Any, x: Any, widths: list[int], filler: Any) -> Any:
    """A border of one value, which may be computed; negative widths cut."""
    shape, rank = static_shape(x), len(widths) // 2
    cuts = [axis for axis in range(rank) if widths[axis] < 0 or widths[rank + axis] < 0]
    if cuts:
        begin = [max(0, -widths[axis]) for axis in cuts]
        end = [shape[axis] - max(0, -widths[rank + axis]) for axis in cuts]
        x = builder.emit(relax.op.strided_slice(x, cuts, begin, end))
    before, after = ([max(0, width) for width in side] for side in (widths[:rank], widths[rank:]))
    value = relax.const(0, str(x.ty.dtype)) if filler is None else filler

    sizes = list(static_shape(x))

    def compute(data: Any, border: Any) -> Any:
        def element(*at: Any) -> Any:
            source = [place - width for place, width in zip(at, before, strict=True)]
            inside = [
                test
                for axis, place in enumerate(source)
                if before[axis] or after[axis]
                for test in (place >= 0, place < sizes[axis])
            ]
            outside = border[(0,) * len(border.shape)]
            return tirx.if_then_else(tirx.all(*inside), data[tuple(source)], outside) if inside else data[tuple(source)]

        wide = [b + size + a for b, size, a in zip(before, sizes, after, strict=True)]
        return te.compute(wide, element, name="pad")

    return builder.emit_te(compute, x, value, primfunc_name_hint="pad")
