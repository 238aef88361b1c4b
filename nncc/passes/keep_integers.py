"""What moves or compares numbers does so with integers.

    f(s (q - z)) = s (f(q) - z)    for a move f: reshape, transpose, slice, concatenation, maximum, nearest neighbour
    Q(f(x)) = f(Q(x))              for a move f and Q, which quantizes
    Q(s (q - z)) = q               on the same grid

A move so reads and writes bytes, and Q joins the kernel that makes x. Concatenated tensors that lie on other grids are
quantized once more, each by the kernel that makes it. Values that a move brings in, as a border does, are quantized
too; a border that lies on no integer of the grid stays as it is.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, relax
from nncc.operators.resample import data_of, emit_resample, resample_of
from nncc.passes.context import Context
from nncc.passes.quantization import bounds
from nncc.passes.relax_grids import Grid, grid_of, is_quantized, named
from nncc.passes.rewriter import Rewriter

__all__ = ["keep_integers"]

_MOVES = {
    "relax.reshape", "relax.permute_dims", "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.nn.pad",
    "relax.nn.max_pool1d", "relax.nn.max_pool2d",
}  # fmt: skip
"""Of one tensor, whose result is written by one pass: to be quantized before it."""
_SLICES = {"relax.strided_slice", "relax.split"}
"""Of one tensor; quantizing all of it would be more work than quantizing what is taken."""
_INTEGERS = ("uint8", "int8")


def keep_integers(module: IRModule, context: Context) -> IRModule:
    """Rewrite moves of numbers on grids; see the module's equations."""
    return KeepIntegers().rewrite(module) if is_quantized(module) else module


class KeepIntegers(Rewriter):
    """Knows the grids of the values of the old function, and who reads them."""

    def __init__(self) -> None:
        super().__init__(
            {
                **dict.fromkeys(_MOVES | _SLICES, KeepIntegers.move),
                "relax.call_tir": KeepIntegers.move,
                "relax.concat": KeepIntegers.concat,
                "relax.quantize": KeepIntegers.quantize,
            }
        )
        self.grids: dict[Any, Grid] = {}
        """By variable of the old function, the integers in terms of the new one."""
        self.parts: dict[Any, list[Grid]] = {}
        """By variable of the old function, those of the fields of a tuple."""
        self.rounded: dict[Any, list[tuple[Grid, Any]]] = defaultdict(list)
        """By variable of the old function: a grid, and its integers there."""

    def keep(self, variable: Any, new: Any) -> None:
        if isinstance(new, list):
            self.parts[variable] = new
            return
        grid = grid_of(new) if named(new, "relax.dequantize") else None
        if grid is not None and grid.whole and not isinstance(grid.q, GenericConst) and grid.dtype in _INTEGERS:
            self.grids[variable] = grid
        super().keep(variable, new)

    def bound(self, expr: Any) -> Any:
        if isinstance(expr, relax.TupleGetItem) and expr.tuple_value in self.parts:
            return _real(self.parts[expr.tuple_value][expr.index])
        return super().bound(expr)

    def value(self, expr: Any) -> Any:
        if isinstance(expr, relax.Var) and expr in self.parts and expr not in self.replaced:
            fields = [self.builder.emit(_real(part)) for part in self.parts[expr]]
            self.replaced[expr] = self.builder.emit(relax.Tuple(fields))
        return super().value(expr)

    def moved(self, call: Any, q: Any, grid: Grid) -> Any:
        """A move of integers on `grid`; None where there is none."""
        attrs = call.attrs
        if named(call, "relax.nn.pad"):
            filler = float(attrs.pad_value) / float(grid.scale[0]) + float(grid.zero[0])
            low, high = bounds(grid.dtype)
            if str(attrs.pad_mode) == "constant":
                if not low - 1 < filler < high + 1 or abs(filler - round(filler)) > 1e-3:  # NaN and infinity too
                    return None
                if not low <= round(filler) <= high:
                    return None
                widths = [int(n) for n in attrs.pad_width]
                return self.builder.emit(relax.op.nn.pad(q, widths, "constant", round(filler)))
        if (how := resample_of(self.kernels, call)) is not None:
            return emit_resample(self.builder, how, q, data_of(call)[1])
        arguments = [q, *(self.value(a) for a in call.args[1:])]
        return self.builder.emit(relax.Call(call.op, arguments, attrs, call.ty_args))

    # Integers come down

    def moves(self, call: Any) -> bool:
        """Whether a call takes elements of its first tensor as they are, and nothing else."""
        how = resample_of(self.kernels, call)
        return named(call, *_MOVES, *_SLICES) if how is None else how.picks and not how.extrapolates

    def move(self, call: Any) -> Any:
        grid = self.grids.get(_moved_of(call)) if self.moves(call) else None
        if grid is None or not grid.scale[0] > 0 or len(getattr(call.ty, "shape", None) or [1]) == 0:
            return None
        q = self.moved(call, grid.q, grid)
        if q is None:
            return None
        if named(call, "relax.split"):
            fields = [self.builder.emit(relax.TupleGetItem(q, i)) for i in range(len(call.ty.fields))]
            return [replace(grid, q=field) for field in fields]
        return _real(replace(grid, q=q))

    def concat(self, call: Any) -> Any:
        """Of tensors on one grid."""
        fields = _fields(call)
        grids = [self.grids.get(field) for field in fields]
        known = [g for g in grids if g is not None]
        if not known or len(known) < len(grids) or not all(g.same(replace(known[0], q=g.q)) for g in known):
            return None
        together = relax.op.concat([g.q for g in known], axis=int(call.attrs.axis))
        return _real(replace(known[0], q=self.builder.emit(together)))

    # Rounding goes up

    def quantize(self, call: Any) -> Any:
        grid = grid_of(call)
        x = call.args[0]
        if grid is None or not grid.whole or not grid.scale[0] > 0 or str(call.ty.dtype) not in _INTEGERS:
            return None
        known = self.grids.get(x)
        if known is not None:
            return known.q if _equal(known, grid, str(call.ty.dtype)) else None
        return self.integers(x, call, grid) if self.is_move(x, call) else None

    def is_move(self, x: Any, quantize: Any) -> bool:
        """Whether `x` is a move whose readers all round it as `quantize` does."""
        made = self.made.get(x)
        if not named(made, "relax.concat") and (named(made, *_SLICES) or not self.moves(made)):
            return False
        if named(made, "relax.nn.pad") and str(made.attrs.pad_mode) == "constant" and float(made.attrs.pad_value):
            return False
        return all(_as(reader, quantize) for _, reader in self.readers[x])

    def integers(self, x: Any, quantize: Any, grid: Grid) -> Any:
        """`x` of the old function, rounded as `quantize` does, in the new one."""
        dtype = str(quantize.ty.dtype)
        for other, q in self.rounded[x]:
            if _equal(other, grid, dtype) and str(q.ty.dtype) == dtype:
                return q
        known = self.grids.get(x)
        if known is not None and _equal(known, grid, dtype):
            return known.q
        new = None
        if known is None and self.is_move(x, quantize):
            made = self.made[x]
            if named(made, "relax.concat"):
                if fields := _fields(made):
                    parts = [self.integers(field, quantize, grid) for field in fields]
                    new = self.builder.emit(relax.op.concat(parts, axis=int(made.attrs.axis)))
            elif isinstance(_moved_of(made), relax.Var):
                inner = self.integers(_moved_of(made), quantize, grid)
                new = self.moved(made, inner, replace(grid, q=inner))
        if new is None:
            scale, zero = quantize.args[1:]
            new = self.builder.emit(relax.op.quantize(self.value(x), scale, zero, 0, dtype))
        self.rounded[x].append((grid, new))
        return new


def _moved_of(call: Any) -> Any:
    """The tensor whose elements a move takes."""
    return data_of(call)[0] if named(call, "relax.call_tir") else call.args[0]


def _fields(concat: Any) -> list[Any]:
    """The variables that are concatenated; none where one of them is a constant."""
    fields = list(concat.args[0].fields) if isinstance(concat.args[0], relax.Tuple) else []
    return fields if all(isinstance(field, relax.Var) for field in fields) else []


def _as(reader: Any, quantize: Any) -> bool:
    """Whether a reader rounds to the grid of `quantize`."""
    if not named(reader, "relax.quantize") or str(reader.ty.dtype) != str(quantize.ty.dtype):
        return False
    one, other = grid_of(reader), grid_of(quantize)
    return one is not None and other is not None and one.whole and _equal(one, other, "")


def _equal(one: Grid, other: Grid, dtype: str) -> bool:
    """Whether scales and zero points are equal, and the integers of `one` of `dtype`, if that is given."""
    alike = np.array_equal(one.scale, other.scale) and np.array_equal(one.zero, other.zero)
    return alike and (not dtype or one.dtype in (dtype, "float32"))


def _real(grid: Grid) -> Any:
    dtype = str(grid.q.ty.dtype)
    scale, zero = relax.const(grid.scale.reshape(()), "float32"), grid.zero.astype(dtype).reshape(())
    return relax.op.dequantize(grid.q, scale, relax.const(zero, dtype), 0, "float32")
