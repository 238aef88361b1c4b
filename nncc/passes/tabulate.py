"""What is made of one tensor of bytes, element by element, and rounded to bytes again is a table of 256 of them.

    Q(f(DQ(q)))  ->  table[q]        f of any operators of one element, other tensors on grids made of q among them

The table is computed here, in float32, each operator rounded as ONNX says. A chain becomes a table where its vector
operations are predicted to take longer than `_LOOKUP` elements looked up one by one: a few scales and clamps are part
of the kernel before them, and stay so.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erf, sqrt
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.quantization import bounds
from nncc.passes.relax_grids import Grid, grid_of, named
from nncc.passes.rewriter import Rewriter

__all__ = ["looked_up_bytes", "tabulate"]

_BYTES = ("uint8", "int8")
_LOOKUP = 3.0
"""Vector operations that take as long as an element looked up, with the pass over memory that tables are."""
_SIMPLE, _ROUND, _FUNCTION = 1, 7, 60
"""Vector operations of an arithmetic operator, of one that rounds to bytes or takes bytes, and of exp or erf and what
they are within."""


def _erf(x: np.ndarray) -> np.ndarray:
    return np.array([erf(value) for value in x.tolist()])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + _erf(x.astype(np.float64) / sqrt(2)))


_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "relax.add": (_SIMPLE, np.add),
    "relax.subtract": (_SIMPLE, np.subtract),
    "relax.multiply": (_SIMPLE, np.multiply),
    "relax.divide": (_SIMPLE, np.divide),
    "relax.maximum": (_SIMPLE, np.maximum),
    "relax.minimum": (_SIMPLE, np.minimum),
    "relax.abs": (_SIMPLE, np.abs),
    "relax.negative": (_SIMPLE, np.negative),
    "relax.square": (_SIMPLE, np.square),
    "relax.sqrt": (_SIMPLE, np.sqrt),
    "relax.nn.relu": (_SIMPLE, lambda x: np.maximum(x, 0)),
    "relax.exp": (_FUNCTION, np.exp),
    "relax.log": (_FUNCTION, np.log),
    "relax.tanh": (_FUNCTION, np.tanh),
    "relax.sigmoid": (_FUNCTION, _sigmoid),
    "relax.erf": (_FUNCTION, _erf),
    "relax.nn.gelu": (_FUNCTION, _gelu),
    "relax.nn.silu": (_FUNCTION, lambda x: x * _sigmoid(x)),
}
"""By operator: what it costs, and what it computes; float32 of any precision, which is rounded."""


def tabulate(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.quantize`` of what is made of one tensor of bytes; see the module's equation."""
    return _Tables(max(1, context.target.hardware.vector_bits // 32)).rewrite(module)


def looked_up_bytes(made: dict[Any, Any], call: Any) -> Any:
    """The bytes that a ``relax.take`` made by `tabulate` looks up; None for another one."""
    index, table = made.get(call.args[1]), call.args[0]
    if not named(index, "relax.astype") or not isinstance(table, GenericConst):
        return None
    is_table = static_shape(table) == (256,) and str(table.ty.dtype) in _BYTES
    return index.args[0] if is_table and str(index.args[0].ty.dtype) in _BYTES else None


class _Tables(Rewriter):
    """Knows what each value of the old function is made of."""

    def __init__(self, lanes: int) -> None:
        super().__init__({"relax.quantize": _Tables.quantize})
        self.lanes = lanes
        self.roots: dict[Any, tuple[Any, frozenset[Any]] | None] = {}
        """By variable of the old function: the bytes that it is made of alone, and the variables on the way."""

    def quantize(self, call: Any) -> Any:
        grid, dtype = grid_of(call), str(call.ty.dtype)
        found = self.root(call.args[0]) if grid is not None and grid.whole and dtype in _BYTES else None
        if found is None or grid is None:
            return None
        root, way = found
        if not static_shape(root) or 0 in static_shape(root) or self.cost(way) <= _LOOKUP * self.lanes:
            return None
        least, most = bounds(str(root.ty.dtype))
        with np.errstate(all="ignore"):
            values = {root: np.arange(least, most + 1)}
            table = _rounded(self.evaluate(call.args[0], values), grid, dtype)
        index = self.builder.emit(relax.op.astype(self.value(root), "int32"))
        found = self.builder.emit(relax.op.take(relax.const(table, dtype), index, axis=0, mode="clip"))
        shape = static_shape(call)
        return found if static_shape(root) == shape else self.builder.emit(relax.op.reshape(found, shape))

    def cost(self, way: frozenset[Any]) -> int:
        """Vector operations a vector."""
        names = [self.made[variable].op.name for variable in way]
        return sum(_FUNCTIONS[name][0] if name in _FUNCTIONS else _ROUND for name in names)

    def root(self, value: Any) -> tuple[Any, frozenset[Any]] | None:
        """What `value`, a tensor of the old function, is made of; None where it is not bytes of one tensor alone."""
        if value not in self.roots:
            self.roots[value] = self._root(value)
        return self.roots[value]

    def _root(self, value: Any) -> tuple[Any, frozenset[Any]] | None:
        call = self.made.get(value)
        if named(call, "relax.dequantize", "relax.quantize"):
            grid = grid_of(call)
            if grid is None or not grid.whole:
                return None
            if call.op.name == "relax.quantize":
                found = self.root(call.args[0]) if str(call.ty.dtype) in _BYTES else None
            elif isinstance(grid.q, relax.Var) and grid.dtype in _BYTES:
                found = self.root(grid.q) or (grid.q, frozenset())
            else:
                found = None
            return found and (found[0], found[1] | {value})
        if named(call, "relax.reshape"):
            return self.root(call.args[0])
        if not named(call, *_FUNCTIONS) or str(call.ty.dtype) != "float32":
            return None
        found, way = None, frozenset({value})
        for part in call.args:
            if isinstance(part, GenericConst) and constant_array(part).size == 1:
                continue
            inner = self.root(part) if static_shape(part) == static_shape(call) else None
            if inner is None or (found is not None and not inner[0].same_as(found)):
                return None
            found, way = inner[0], way | inner[1]
        return None if found is None else (found, way)

    def evaluate(self, value: Any, values: dict[Any, np.ndarray]) -> np.ndarray:
        """A value for every byte of its root; `values` by variable, those known so far."""
        if isinstance(value, GenericConst):
            return constant_array(value).reshape(-1)
        if value not in values:
            call = self.made[value]
            if named(call, "relax.quantize", "relax.dequantize"):
                grid, inner = grid_of(call), self.evaluate(call.args[0], values)
                assert grid is not None
                if call.op.name == "relax.quantize":
                    values[value] = _rounded(inner, grid, str(call.ty.dtype))
                else:
                    values[value] = (inner.astype(np.int64) - grid.zero).astype(np.float32) * grid.scale
            elif named(call, "relax.reshape"):
                values[value] = self.evaluate(call.args[0], values)
            else:
                parts = [self.evaluate(part, values) for part in call.args]
                values[value] = np.asarray(_FUNCTIONS[call.op.name][1](*parts)).astype(np.float32)
        return values[value]


def _rounded(real: np.ndarray, grid: Grid, dtype: str) -> np.ndarray:
    low, high = bounds(dtype)
    steps = np.rint(np.clip(real / grid.scale, low - grid.zero, high - grid.zero))
    return (np.where(np.isnan(steps), low - grid.zero, steps).astype(np.int64) + grid.zero).astype(dtype)
