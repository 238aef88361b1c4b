"""The sizes of a library's open dimensions, as the arrays that it is given have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from nncc.errors import RunError
from nncc.runtime.arrays import TensorInfo

__all__ = ["OpenDim", "at_sizes", "resized", "sizes_of"]


@dataclass(frozen=True)
class OpenDim:
    """A dimension whose size is chosen for each run, from `low` to `high`.

    Attributes
    ----------
    name : str
    low, high : int
    from_data : bool
        Whether the run itself says the size, of outputs then.
    """

    name: str
    low: int
    high: int
    from_data: bool = False


def sizes_of(
    tensors: Sequence[TensorInfo], dims: Sequence[OpenDim], inputs: Mapping[str, Any], default: Sequence[int]
) -> tuple[int, ...]:
    """The size of each open dimension in `inputs`, by name; that of `default` where no input has it.

    Raises one RunError with everything that is wrong.
    """
    found: dict[int, tuple[int, str]] = {}
    problems = []
    for tensor in tensors:
        shape = getattr(inputs.get(tensor.name), "shape", None)
        if shape is None or len(shape) != len(tensor.dims):  # what else is wrong with it is said elsewhere
            continue
        for number, size in zip(tensor.dims, map(int, shape), strict=True):
            if number < 0:
                continue
            dim = dims[number]
            before, where = found.setdefault(number, (size, tensor.name))
            if before != size:
                problems.append(f"`{dim.name}` is {before} in input `{where}` and {size} in input `{tensor.name}`")
            elif not dim.low <= size <= dim.high:
                problems.append(f"`{dim.name}` is {size} in input `{tensor.name}`, expected {dim.low} to {dim.high}")
    if problems:
        raise RunError("\n".join(dict.fromkeys(problems)))
    return tuple(found[number][0] if number in found else default[number] for number in range(len(dims)))


def resized(tensor: TensorInfo, shape: Sequence[int]) -> TensorInfo:
    """The tensor at another shape."""
    count = prod(tensor.shape)
    each = tensor.nbytes // count if count else 1
    return replace(tensor, shape=tuple(shape), nbytes=prod(shape) * each)


def at_sizes(tensors: Sequence[TensorInfo], sizes: Sequence[int]) -> tuple[TensorInfo, ...]:
    """Inputs at these sizes of the open dimensions."""
    return tuple(
        resized(t, [size if n < 0 else sizes[n] for n, size in zip(t.dims, t.shape, strict=True)]) if t.dims else t
        for t in tensors
    )
