"""What converters ask of a node's inputs: their shapes, their values where these are constants, kernels of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncc.compat import GenericConst, constant_array, relax
from nncc.errors import ModelError

__all__ = [
    "OperatorError",
    "accumulator",
    "axis_within",
    "cast",
    "dtype_of",
    "kernel",
    "optional",
    "required",
    "shape_of",
]


class OperatorError(ModelError):
    """Why one operator cannot be compiled, with its name; other errors of converters get that in front."""


def dtype_of(x: Any) -> str:
    """The dtype of an expression, in TVM's words, which are numpy's but for ``bool``."""
    return str(x.ty.dtype)


def accumulator(dtype: str) -> str:
    """The dtype in which sums of products of `dtype` are made: float32 for what is shorter, float64 for float64."""
    return "float64" if dtype in ("float64", "int32", "uint32", "int64", "uint64") else "float32"


def axis_within(axis: int, rank: int, what: str = "axis") -> int:
    """An axis as 0 .. rank - 1; a ModelError where it is none of them."""
    if not -rank <= axis < rank:
        raise ModelError(f"its {what} is {axis}, and its input has {rank} axes")
    return axis % rank


def optional(expr: Any) -> np.ndarray | None:
    """The value of an input that is a constant; None where it is left out or known only at run time."""
    if isinstance(expr, GenericConst):
        return np.asarray(constant_array(expr))
    if isinstance(expr, relax.ShapeExpr):
        return np.array([int(d) for d in expr.values], np.int64)
    return None


def required(expr: Any, what: str) -> np.ndarray:
    """The value of an input that shapes or loops depend on; a ModelError where it is known only at run time."""
    value = optional(expr)
    if value is None:
        raise ModelError(
            f"its input `{what}` is known only at run time",
            f"make `{getattr(expr, 'name_hint', what)}` a constant of the model",
        )
    return value


_OPAQUE = 8
"""TVM's OpPatternKind of what nothing is fused with."""


def kernel(builder: Any, compute: Callable[..., Any], *inputs: Any, name: str, opaque: bool = False) -> Any:
    """What a kernel gives that `compute` defines on TE tensors: an expression, or a list of them for several results.

    `name` is what reports call it. Nothing is fused with one that is `opaque`; loops that read tensors are so anyway.
    """
    attributes = {"op_pattern": _OPAQUE} if opaque else {}
    made = builder.emit_te(compute, *inputs, primfunc_name_hint=name, primfunc_attrs=attributes)
    if isinstance(made.ty, relax.TupleType):
        return [builder.emit(relax.TupleGetItem(made, at)) for at in range(len(made.ty.fields))]
    return made


def cast(builder: Any, expr: Any, dtype: str) -> Any:
    """The expression in `dtype`, itself where it has that."""
    return expr if dtype_of(expr) == dtype else builder.emit(relax.op.astype(expr, dtype))


def shape_of(expr: Any) -> list[int]:
    """The static shape of an expression."""
    return [int(d) for d in expr.ty.shape]
