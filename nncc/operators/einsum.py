"""Einsum as products of matrices, of two operands at a time.

    x[b, m, k] y[b, k, n] -> [b, m, n]      b: axes of both that stay, k: of both that are summed over, m and n: of one

An axis that only one operand has, and the result has not, is summed up before; one that an operand names twice is its
diagonal; one of size 1 that is longer elsewhere is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from string import ascii_letters
from typing import Any

from nncc.compat import relax, te
from nncc.errors import ModelError
from nncc.operators.attributes import Attributes
from nncc.operators.operands import cast, dtype_of, kernel, shape_of

__all__ = ["einsum"]

_Labelled = tuple[Any, list[str]]
"""A tensor, and a label for each of its axes."""


def einsum(builder: Any, inputs: Sequence[Any], attributes: Attributes) -> Any:
    """Einsum of every opset and every equation."""
    equation = attributes.text("equation", "")
    terms, result = parse(equation, [len(shape_of(x)) for x in inputs])
    dtype = dtype_of(inputs[0])
    wide = "float32" if dtype in ("float16", "bfloat16") else dtype
    operands = [_diagonal(builder, cast(builder, x, wide), labels) for x, labels in zip(inputs, terms, strict=True)]
    sizes: dict[str, int] = {}
    for x, labels in operands:
        for label, size in zip(labels, shape_of(x), strict=True):
            known = sizes.setdefault(label, size)
            if known != size and 1 not in (known, size):
                raise ModelError(f"`{label}` of its equation `{equation}` is {known} and {size} elements long")
            sizes[label] = max(known, size) if 0 not in (known, size) else 0
    operands = [_without_ones(builder, operand, sizes) for operand in operands]
    current = operands[0]
    for at, following in enumerate(operands[1:], 1):
        wanted = {*result, *(label for _, labels in operands[at + 1 :] for label in labels)}
        current = _product(builder, current, following, wanted, sizes)
    current = _summed(builder, current, set(result))
    return cast(builder, _ordered(builder, current, result, sizes), dtype)


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[list[str]], list[str]]:
    """The labels of each operand's axes and of the result's; those under an ellipsis are numbers, the last one 0."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    written = left.split(",")
    if len(written) != len(ranks):
        raise ModelError(f"its equation `{equation}` is for {len(written)} operands, not {len(ranks)}")
    terms = [_labels(term, rank, equation) for term, rank in zip(written, ranks, strict=True)]
    broad = sorted({label for term in terms for label in term if label.isdigit()}, key=int, reverse=True)
    if arrow:
        before, dots, after = right.partition("...")
        result = [*before, *(broad if dots else []), *after]
    else:
        counts = Counter(label for term in written for label in term.replace(".", ""))
        result = [*broad, *sorted(label for label, count in counts.items() if count == 1)]
    if len(set(result)) != len(result) or not set(result) <= {label for term in terms for label in term}:
        raise ModelError(f"the result of its equation `{equation}` has an axis twice, or one that no operand has")
    return terms, result


def _labels(term: str, rank: int, equation: str) -> list[str]:
    before, dots, after = term.partition("...")
    named = len(before) + len(after)
    if any(label not in ascii_letters for label in before + after) or named > rank or (named < rank and not dots):
        raise ModelError(f"`{term}` in its equation `{equation}` does not fit an operand of {rank} axes")
    return [*before, *(str(n) for n in reversed(range(rank - named))), *after]


def _diagonal(builder: Any, x: Any, labels: list[str]) -> _Labelled:
    unique = list(dict.fromkeys(labels))
    if len(unique) == len(labels):
        return x, labels
    sizes: dict[str, int] = {}
    for label, size in zip(labels, shape_of(x), strict=True):
        if sizes.setdefault(label, size) != size:
            raise ModelError(f"`{label}` names axes of {sizes[label]} and of {size} elements of one operand")

    def taken(data: te.Tensor) -> te.Tensor:
        return te.compute(
            [sizes[label] for label in unique],
            lambda *at: data(*(at[unique.index(label)] for label in labels)),
            name="diagonal",
        )

    return kernel(builder, taken, x, name="diagonal"), unique


def _without_ones(builder: Any, operand: _Labelled, sizes: dict[str, int]) -> _Labelled:
    x, labels = operand
    dropped = [axis for axis, label in enumerate(labels) if shape_of(x)[axis] == 1 and sizes[label] != 1]
    if not dropped:
        return operand
    kept = [label for axis, label in enumerate(labels) if axis not in dropped]
    return builder.emit(relax.op.reshape(x, [sizes[label] for label in kept])), kept


def _summed(builder: Any, operand: _Labelled, wanted: set[str]) -> _Labelled:
    x, labels = operand
    axes = [axis for axis, label in enumerate(labels) if label not in wanted]
    if not axes:
        return operand
    return builder.emit(relax.op.sum(x, axes)), [label for label in labels if label in wanted]


def _ordered(builder: Any, operand: _Labelled, wanted: Sequence[str], sizes: dict[str, int]) -> Any:
    """The tensor with its axes in the order of `wanted`, those that it has not as ones."""
    x, labels = operand
    order = [labels.index(label) for label in wanted if label in labels]
    if order != list(range(len(order))):
        x = builder.emit(relax.op.permute_dims(x, order))
    shape = [sizes[label] if label in labels else 1 for label in wanted]
    return x if shape == shape_of(x) else builder.emit(relax.op.reshape(x, shape))


def _product(builder: Any, left: _Labelled, right: _Labelled, wanted: set[str], sizes: dict[str, int]) -> _Labelled:
    left = _summed(builder, left, {*wanted, *right[1]})
    right = _summed(builder, right, {*wanted, *left[1]})
    both = [label for label in left[1] if label in right[1]]
    batch, inner = [label for label in both if label in wanted], [label for label in both if label not in wanted]
    rows, columns = ([label for label in side[1] if label not in both] for side in (left, right))
    result = [*batch, *rows, *columns]
    if not inner:
        return builder.emit(
            relax.op.multiply(*(_ordered(builder, side, result, sizes) for side in (left, right)))
        ), result

    def size(labels: Sequence[str]) -> int:
        return prod(sizes[label] for label in labels)

    a = _ordered(builder, left, [*batch, *rows, *inner], sizes)
    b = _ordered(builder, right, [*batch, *inner, *columns], sizes)
    outer = [size(batch)] if batch else []
    a = builder.emit(relax.op.reshape(a, [*outer, size(rows), size(inner)]))
    b = builder.emit(relax.op.reshape(b, [*outer, size(inner), size(columns)]))
    made = builder.emit(relax.op.matmul(a, b))
    return builder.emit(relax.op.reshape(made, [sizes[label] for label in result])), result
