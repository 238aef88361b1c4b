"""Rows of a constant matrix times a vector of expressions, as the transforms of fast algorithms have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nncc.compat import te, tirx

__all__ = ["plain_combination", "row_of", "shared_combination", "weighted_sum"]

Combination = Callable[[np.ndarray, int, Callable[[int], Any]], Any]


def shared_combination(matrix: np.ndarray, number: int, element: Callable[[int], Any]) -> Any:
    """sum_r matrix[number, r] element(r), written so that what rows share is the same expression.

    Two rows that differ by the signs of their odd terms are E + O and E - O; terms 1, 2 and 3, 4 with factors of one
    size are f (x + y) and f (x - y).
    """
    signs = (-1.0) ** np.arange(matrix.shape[1])
    for first in (number, number - 1):
        if 0 <= first < len(matrix) - 1 and (matrix[first] * signs == matrix[first + 1]).all():
            even = weighted_sum([(f, element(r)) for r, f in enumerate(matrix[first]) if f and r % 2 == 0])
            odd = weighted_sum([(f, element(r)) for r, f in enumerate(matrix[first]) if f and r % 2])
            return even + odd if first == number else even - odd
    factors, r = matrix[number], 0
    terms: list[tuple[float, Any]] = []
    while r < len(factors):
        pair = r % 2 and r + 1 < len(factors) and factors[r] and abs(factors[r]) == abs(factors[r + 1])
        if pair:
            same = factors[r] == factors[r + 1]
            terms.append((factors[r], element(r) + element(r + 1) if same else element(r) - element(r + 1)))
        elif factors[r]:
            terms.append((factors[r], element(r)))
        r += 2 if pair else 1
    return weighted_sum(terms)


def plain_combination(matrix: np.ndarray, number: int, element: Callable[[int], Any]) -> Any:
    """sum_r matrix[number, r] element(r), term by term."""
    return weighted_sum([(factor, element(r)) for r, factor in enumerate(matrix[number]) if factor])


def row_of(
    matrix: np.ndarray, index: Any, element: Callable[[int], Any], combination: Combination = shared_combination
) -> Any:
    """sum_r matrix[index, r] element(r) for a symbolic row: selects that vanish once its loop is unrolled."""
    result = combination(matrix, 0, element)
    for number in range(1, len(matrix)):
        result = tirx.Select(index == number, combination(matrix, number, element), result)
    return result


def weighted_sum(terms: Sequence[tuple[float, Any]]) -> Any:
    """sum f x of (factor f, expression x); where all factors have one size, that times the sum."""
    first = terms[0][1]
    dtype = str(first.dtype if isinstance(first, te.TensorSlice) else first.ty.dtype)

    def times(x: Any, factor: float) -> Any:
        return x * tirx.const(float(factor) if dtype.startswith("float") else int(factor), dtype)

    sizes = {abs(factor) for factor, _ in terms}
    if len(terms) > 1 and sizes != {1.0} and len(sizes) == 1:
        size = sizes.pop()
        return times(weighted_sum([(factor / size, x) for factor, x in terms]), size)
    total = None
    unsigned = dtype.startswith("uint")
    for factor, x in sorted(terms, key=lambda term: (abs(term[0]), term[0] < 0)):  # multiply-adds after a plain term
        if total is None and unsigned and factor < 0:
            total = tirx.const(0, dtype)
        if total is None:
            total = x if factor == 1 else times(x, factor)
        elif abs(factor) == 1:
            total = total + x if factor > 0 else total - x
        elif unsigned and factor < 0:
            total = total - times(x, -factor)
        else:
            total = total + times(x, factor)
    return total
