"""Backends by the kind of TVM target: each has ``check(target)`` and ``build(program, folder, stem, ...)``."""

from __future__ import annotations

from types import ModuleType

from nncc.backends import llvm
from nncc.errors import TargetError
from nncc.target import Target

__all__ = ["BACKENDS", "backend"]

BACKENDS: dict[str, ModuleType] = {
    "llvm": llvm,
}


def backend(target: Target) -> ModuleType:
    """The backend of `target`; TargetError where its kind has none."""
    kind = str(target.tvm.get("kind"))
    if kind not in BACKENDS:
        raise TargetError(
            f"target `{target.name}` has the kind `{kind}`, which nncc has no backend for",
            f"known: {', '.join(BACKENDS)}",
        )
    return BACKENDS[kind]
