"""One TIR function in place of several that differ in numbers: the numbers become expressions of open dimensions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nncc.compat import structural_equal, structural_map, tirx
from nncc.ir import Dim, Extent, Quotient
from nncc.scheduling import DIMS

__all__ = ["Mismatch", "dims_of", "generalize_function"]

_VARIABLE = "dim_"
_NUMBER = re.compile(r"\b\d+\b")
_KINDS = (tirx.IntImm, tirx.FloatImm)
_EXACT = 1 << 24
"""float32 has all integers up to this."""


class Mismatch(Exception):
    """Two functions differ in more than numbers."""


def _numbers(function: Any) -> tuple[list[int], list[float]]:
    """Every integer and every real number of a function, in the order in which `structural_map` comes to them."""
    whole: list[int] = []
    real: list[float] = []

    def note(number: Any) -> Any:
        if isinstance(number, tirx.IntImm):
            whole.append(int(number))
        else:
            real.append(float(number))
        return number

    structural_map(function, [(_KINDS, note)])
    return whole, real


def _blank(function: Any) -> Any:
    """The function with all numbers 0: equal for functions that differ in these alone."""
    return structural_map(function, [(_KINDS, lambda number: type(number)(str(number.ty.dtype), 0))])


def _alike(functions: Sequence[Any]) -> bool:
    """Whether functions differ in numbers alone."""
    first = _blank(functions[0])
    return all(structural_equal(first, _blank(other)) for other in functions[1:])


def _ordered(function: Any) -> Any:
    """The function with the terms of its sums of integers in an order that does not depend on numbers.

    TVM orders them by their factors, and so by which of two sizes is a multiple of the other.
    """

    def terms(expression: Any) -> list[Any]:
        if isinstance(expression, tirx.Add):
            return [*terms(expression.a), *terms(expression.b)]
        return [expression]

    def ordered(total: Any) -> Any:
        if not str(total.ty.dtype).startswith("int"):
            return total
        first, *others = sorted(terms(total), key=lambda term: _NUMBER.sub("", str(term)))
        for term in others:
            first = first + term
        return first

    return structural_map(function, [(tirx.Add, ordered)])


def generalize_function(
    functions: Sequence[Any],
    dims: Sequence[Dim],
    stand_ins: Mapping[str, int],
    fit: Callable[[Sequence[int]], Extent],
    shapes: Mapping[int, tuple[int, ...]],
) -> Any:
    """The first function with the numbers that differ as expressions of variables, one for each open dimension.

    `fit` finds the expression for the values of a number in each of the functions; `shapes` are static shapes of
    parameters that are read in part. The attribute `DIMS` of the result has, for each dimension that it depends on, the
    size that schedules take it for, the lowest and the highest one. Raises Mismatch where the functions differ in more
    than numbers.
    """
    functions = [_with_shapes(function, shapes) for function in functions]
    if not _alike(functions):
        functions = [_ordered(function) for function in functions]
        if not _alike(functions):
            raise Mismatch
    whole, real = (list(zip(*same, strict=True)) for same in zip(*map(_numbers, functions), strict=True))
    moving = {at: fit(values) for at, values in enumerate(whole) if len(set(values)) > 1}
    factors = {at: _factor(values, fit) for at, values in enumerate(real) if _differ(values)}
    if not moving and not factors:
        return functions[0]
    index = _index_dtype(functions[0], set(moving))
    found = [*moving.values(), *(extent for extent, _ in factors.values())]
    used = {step.dim for extent in found for _, steps in extent.terms for step in steps}
    variables = {dim.name: tirx.Var(_variable_name(at), index) for at, dim in enumerate(dims) if dim.name in used}
    counts = {tirx.IntImm: -1, tirx.FloatImm: -1}

    def replaced(number: Any) -> Any:
        counts[type(number)] += 1
        at, dtype = counts[type(number)], str(number.ty.dtype)
        if isinstance(number, tirx.FloatImm):
            if at not in factors:
                return number
            extent, divides = factors[at]
            value = tirx.Cast(dtype, _tir_of(extent, variables, index))
            return tirx.FloatImm(dtype, 1) / value if divides else value
        if at not in moving:
            return number
        value = _tir_of(moving[at], variables, index)
        return value if dtype == index else tirx.Cast(dtype, value)

    function = structural_map(functions[0], [(_KINDS, replaced)])
    bounds = {
        _variable_name(at): [stand_ins[dim.name], dim.low, dim.high] for at, dim in enumerate(dims) if dim.name in used
    }
    return function.with_attr(DIMS, bounds)


def _index_dtype(function: Any, moving: set[int]) -> str:
    """int64 if one of the integers with these numbers is, else int32."""
    dtypes: list[str] = []

    def note(number: Any) -> Any:
        dtypes.append(str(number.ty.dtype))
        return number

    structural_map(function, [(tirx.IntImm, note)])
    return "int64" if any(dtypes[at] == "int64" for at in moving) else "int32"


def _differ(values: Sequence[float]) -> bool:
    return any(value != values[0] for value in values) and not all(value != value for value in values)


def _factor(values: Sequence[float], fit: Callable[[Sequence[int]], Extent]) -> tuple[Extent, bool]:
    """A real number that depends on sizes: a size, or one divided by it; and which of them. Mismatch else."""
    if all(value == round(value) and abs(value) < _EXACT for value in values):
        return fit([int(value) for value in values]), False
    inverse = [round(1 / value) if value else 0 for value in values]
    if all(n and abs(value * n - 1) < 2**-22 for n, value in zip(inverse, values, strict=True)):
        return fit(inverse), True
    raise Mismatch


def _with_shapes(function: Any, shapes: Mapping[int, tuple[int, ...]]) -> Any:
    """The function with other shapes of some parameters; indices stay as they are."""
    if not shapes:
        return function
    params = [function.params[at] for at in shapes]
    new = [
        tirx.decl_buffer(shape, str(old.dtype), name=old.name)
        for old, shape in zip(params, shapes.values(), strict=True)
    ]

    def renamed(variable: Any) -> Any:
        return next((b for a, b in zip(params, new, strict=True) if variable.same_as(a)), variable)

    return structural_map(function, [(tirx.Var, renamed)])


def dims_of(function: Any) -> list[int]:
    """The numbers of the open dimensions whose sizes a kernel is given, in the order of its parameters."""
    return [int(name.removeprefix(_VARIABLE)) for name in sorted((function.attrs or {}).get(DIMS, {}))]


def _variable_name(number: int) -> str:
    """The name of the variable of an open dimension in kernels."""
    return f"{_VARIABLE}{number}"


def _tir_of(extent: Extent, variables: Mapping[str, Any], dtype: str) -> Any:
    """The expression in TIR."""

    def step_of(step: Quotient) -> Any:
        value = variables[step.dim]
        if step.plus:
            value = value + tirx.IntImm(dtype, step.plus)
        return value if step.over == 1 else tirx.floordiv(value, tirx.IntImm(dtype, step.over))

    total: Any = None
    for coefficient, steps in extent.terms:
        term = step_of(steps[0])
        for step in steps[1:]:
            term = term * step_of(step)
        if coefficient != 1:
            term = term * tirx.IntImm(dtype, coefficient)
        total = term if total is None else total + term
    if total is None:
        return tirx.IntImm(dtype, extent.constant)
    return total + tirx.IntImm(dtype, extent.constant) if extent.constant else total
