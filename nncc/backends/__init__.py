"""Backends by the kind of TVM target, or for accelerators: each has ``check``, ``lower`` and ``build``."""

from __future__ import annotations

from types import ModuleType

from nncc.backends import cuda, llvm, vta
from nncc.errors import TargetError
from nncc.target import Target

__all__ = ["BACKENDS", "backend"]

BACKENDS: dict[str, ModuleType] = {
    "cuda": cuda,
    "llvm": llvm,
    "accelerator": vta,
}


def backend(target: Target) -> ModuleType:
    """The backend of `target`; TargetError where its kind has none."""
    kind = str(target.tvm.get("kind"))
    kind = "accelerator" if target.hardware.drives_accelerator else kind
    if kind not in BACKENDS:
        raise TargetError(
            f"target `{target.name}` has the kind `{kind}`, which nncc has no backend for",
            f"known: {', '.join(BACKENDS)}",
        )
    return BACKENDS[kind]
