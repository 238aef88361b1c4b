"""Weights that several forms of a model have: laid out as the first one has them, they are stored once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from nncc.codegen.flatten import walk_of
from nncc.codegen.place import pending_calls
from nncc.compat import IRModule
from nncc.ir import Kernels
from nncc.scheduling import LAID

__all__ = ["Use", "laid_out_like", "panels_of", "uses_of"]


class Use(NamedTuple):
    """A constant that is an argument of a kernel, before schedules change its layout."""

    kernel: str
    argument: int
    array: np.ndarray

    @property
    def digest(self) -> bytes:
        """Of its bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data).digest()


def uses_of(kernels: Kernels) -> Iterator[Use]:
    """The constants of kernels that are not scheduled yet, but for those in the bodies of control flow."""
    walk = walk_of(kernels, 1)
    for call in pending_calls(walk.steps):
        for at, value in enumerate(call.args):
            if value.space == "weights" and call.kernel in kernels.module and walk.memory.constants[value.at].size:
                yield Use(call.kernel, at, walk.memory.constants[value.at])


def panels_of(uses: Iterable[Use], before: Kernels, after: Kernels) -> dict[bytes, int]:
    """By digest of a constant, how many vectors a panel of it has, where schedules may lay it out; see `panels` in
    `nncc.scheduling`. `before` are the kernels as they came, `after` with their schedules.
    """
    found = {}
    for use in uses:
        plain, laid = (kernels.module[use.kernel].params[use.argument].shape for kernels in (before, after))
        found[use.digest] = int(laid[-2]) if len(laid) > len(plain) else 1
    return found


def laid_out_like(kernels: Kernels, uses: Iterable[Use], panels: Mapping[bytes, int]) -> Kernels:
    """Kernels that know how other forms have their weights; where those differ, how they have the largest ones."""
    largest: dict[str, tuple[int, int]] = {}
    for use in uses:
        vectors = panels.get(use.digest)
        if vectors is not None:
            largest[use.kernel] = max(largest.get(use.kernel, (0, 0)), (use.array.nbytes, vectors))
    functions: dict[Any, Any] = dict(kernels.module.functions.items())
    for variable, function in functions.items():
        if variable.name_hint in largest:
            functions[variable] = function.with_attr(LAID, largest[variable.name_hint][1])
    return replace(kernels, module=IRModule(functions, attrs=kernels.module.attrs))
