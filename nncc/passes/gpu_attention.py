"""Attention"""

from __future__ import annotations

from nncc.compat import IRModule
from nncc.passes.context import Context

__all__ = ["gpu_attention"]


def gpu_attention(module: IRModule, context: Context) -> IRModule:
    return module
