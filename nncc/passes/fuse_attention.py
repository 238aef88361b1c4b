"""Attention becomes one kernel, which never has all of its scores in memory.

    matmul(softmax(alpha * matmul(q, k) + mask), v)  ->  attention(q, k, v, mask)

q is [.., M, D], k [.., D, N], v [.., N, E], all with the same leading axes, of float32; E is whole vectors. The scale
and the mask may be missing. Whatever else uses the scores keeps them in memory, and the operators as they are.

Where q, k and v are other tensors moved about, by reshape, permute_dims and slices, the kernel reads those in their
places: numpy knows whether strides can say it, and which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter, variables

__all__ = ["Scores", "fuse_attention"]


def fuse_attention(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.matmul`` of a softmax; see the module's equation."""
    template, hardware = context.templates["attention"], context.target.hardware
    lanes = max(4, hardware.vector_bits // 32)
    scores = Scores(module["main"])

    def matmul(rewriter: Rewriter, call: Any) -> Any:
        found = scores.attention(rewriter, call)
        if found is None or found.width % lanes:
            return None
        batch, (rows, depth, columns, width) = found.batch, found.sizes
        if context.open_sizes & {depth, width}:  # the views of q, k and v depend on whether they are one
            return None
        ragged = bool(context.open_sizes & {rows, columns})
        tile = template.module.tile(rows, columns, width, lanes, hardware, ragged=ragged)
        tensors, options = found.arguments(rewriter)
        options |= {"ragged": True} if ragged else {}
        mixed = rewriter.emit_anchor(template, *tensors, **options, lanes=lanes, tile=tile)
        padded = static_shape(mixed)[1]
        mixed = rewriter.builder.emit(relax.op.reshape(mixed, (*batch, padded, width)))
        return mixed if padded == rows and not ragged else relax.op.strided_slice(mixed, [len(batch)], [0], [rows])

    return Rewriter({"relax.matmul": matmul}).rewrite(module)


@dataclass(frozen=True)
class _Found:
    """What a softmax is made of."""

    operands: list[Any]
    alpha: float
    mask: list[Any]


@dataclass(frozen=True)
class _View:
    """A tensor as elements of another, `source`, in other places, times `factor`."""

    source: Any
    array: np.ndarray
    """One byte an element, so that its strides count elements; what is in it does not matter."""
    origin: np.ndarray
    factor: float

    @property
    def start(self) -> int:
        return int(self.array.ctypes.data - self.origin.ctypes.data)

    @property
    def strides(self) -> tuple[int, ...]:
        return self.array.strides


@dataclass(frozen=True)
class Attention:
    """A product of a softmax of scores, which one kernel can compute."""

    batch: tuple[int, ...]
    """The leading axes."""
    sizes: tuple[int, int, int, int]
    """Queries, depth, keys and width: M, D, N and E."""
    views: list[_View]
    """Of q, k and v."""
    mask: list[Any]
    alpha: float

    @property
    def width(self) -> int:
        return self.sizes[-1]

    def arguments(self, rewriter: Rewriter) -> tuple[list[Any], dict[str, Any]]:
        """What templates of attention take: flat memory of q, k and v, with the mask; and by name what says of it."""
        tensors = [rewriter.value(view.source) for view in self.views]
        flat = [rewriter.builder.emit(relax.op.reshape(t, (prod(static_shape(t)),))) for t in tensors]
        options = {
            "batch": list(self.batch),
            "sizes": list(self.sizes),
            "views": [[view.start, *view.strides] for view in self.views],
            "alpha": self.alpha,
        }
        return [*flat, *self.mask], options


class Scores:
    """Finds the product that a softmax is made of, through values that nothing else uses."""

    def __init__(self, function: Any) -> None:
        self.bound: dict[Any, Any] = {}
        self.uses: Counter[Any] = Counter()
        for block in function.body.blocks:
            for binding in block.bindings:
                self.bound[binding.var] = binding.value
                self.uses.update(variables(binding.value))
        self.uses.update(variables(function.body.body))

    def attention(self, rewriter: Rewriter, call: Any) -> Attention | None:
        """The attention whose last product `call` is; None for another product, or one that no kernel computes."""
        found = self._of(call.args[0])
        if found is None:
            return None
        operands = [*found.operands, call.args[1]]
        mask = [rewriter.value(m) for m in found.mask]
        shapes = [static_shape(a) for a in operands]
        if len({shape[:-2] for shape in shapes}) > 1:
            return None
        if any(str(a.ty.dtype) != "float32" for a in (*operands, *mask)):
            return None
        (*batch, rows, depth), columns, width = shapes[0], shapes[1][-1], shapes[2][-1]
        if not batch or 0 in (*batch, rows, depth, columns):
            return None
        views = [self.view(operand, number < 2) for number, operand in enumerate(operands)]
        alpha = found.alpha * views[0].factor * views[1].factor
        return Attention(tuple(batch), (rows, depth, columns, width), views, mask, alpha)

    def _of(self, weights: Any) -> _Found | None:
        softmax = self._call(weights, "relax.nn.softmax")
        if softmax is None or int(softmax.attrs.axis) not in (-1, len(static_shape(weights)) - 1):
            return None
        value, alpha = softmax.args[0], 1.0
        shape, mask = static_shape(value), []
        added = self._call(value, "relax.add")
        if added is not None:
            sides = [a for a in added.args if self._is_product(a)]
            if len(sides) != 1 or static_shape(sides[0]) != shape:
                return None
            value, mask = sides[0], [a for a in added.args if not a.same_as(sides[0])]
            if not isinstance(mask[0], (relax.Var, GenericConst)) or len(static_shape(mask[0])) > len(shape):
                return None
        while True:
            scaled = self._call(value, "relax.multiply", "relax.divide")
            if scaled is None:
                break
            factor, value = _scalar(scaled)
            if factor is None:
                return None
            alpha *= factor
        product = self._call(value, "relax.matmul")
        if product is None or static_shape(value) != shape:
            return None
        return _Found(list(product.args), alpha, mask)

    def view(self, value: Any, scaled: bool = True) -> _View:
        """A tensor through the operators that only move elements, or scale them all, as far as strides say it."""
        call: Any = self.bound.get(value) if isinstance(value, relax.Var) else None
        name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
        if name in ("relax.multiply", "relax.divide"):
            factor, other = _scalar(call)
            if factor is not None and scaled and static_shape(other) == static_shape(value):
                moved = self.view(other)
                return replace(moved, factor=moved.factor * factor)
        if name in _MOVES:
            moved = self.view(call.args[0], scaled)
            array = _MOVES[name](call, moved.array)
            if array.shape == static_shape(value) and np.may_share_memory(array, moved.origin):
                return replace(moved, array=array)
        origin = np.empty(static_shape(value), np.int8)
        return _View(value, origin, origin, 1.0)

    def _is_product(self, value: Any) -> bool:
        """Whether a value is a product, scaled or not."""
        while True:
            scaled = self._call(value, "relax.multiply", "relax.divide")
            if scaled is None:
                return self._call(value, "relax.matmul") is not None
            factor, value = _scalar(scaled)
            if factor is None:
                return False

    def _call(self, value: Any, *names: str) -> Any:
        """The call of one of the operators that a value is, if only one other uses it."""
        if not isinstance(value, relax.Var) or self.uses[value] != 1:
            return None
        call = self.bound.get(value)
        return call if isinstance(call, relax.Call) and getattr(call.op, "name", "") in names else None


def _slice(call: Any, array: np.ndarray) -> np.ndarray:
    axes, *bounds = ([int(v) for v in argument.fields] for argument in call.args[1:])
    if len(bounds) == 3 and min(bounds[2]) < 1:
        return array[:0]
    at = [slice(None)] * array.ndim
    for axis, *bound in zip(axes, *bounds, strict=True):
        at[axis] = slice(*bound)
    return array[tuple(at)]


def _permute(call: Any, array: np.ndarray) -> np.ndarray:
    return array.transpose(None if call.attrs.axes is None else [int(a) for a in call.attrs.axes])


def _reshape(call: Any, array: np.ndarray) -> np.ndarray:
    return array.reshape(tuple(int(d) for d in call.ty.shape))


_MOVES: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {
    "relax.reshape": _reshape,
    "relax.squeeze": _reshape,
    "relax.expand_dims": _reshape,
    "relax.permute_dims": _permute,
    "relax.strided_slice": _slice,
}


def _scalar(call: Any) -> tuple[float | None, Any]:
    """(factor, the other operand) of a product with, or quotient by, a constant of one element."""
    divides = call.op.name == "relax.divide"
    for constant, other in ((call.args[1], call.args[0]), (call.args[0], call.args[1]))[: 1 if divides else 2]:
        if isinstance(constant, GenericConst) and constant_array(constant).size == 1:
            factor = float(constant_array(constant).reshape(()))
            if np.isfinite(factor) and factor != 0:
                return (1 / factor if divides else factor), other
    return None, None
