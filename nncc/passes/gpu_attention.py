"""Attention becomes one kernel for GPUs, which never has its scores in memory.

    matmul(softmax(alpha * matmul(q, k) + mask), v)  ->  cuda_attention(q, k, v, mask)

What is recognized is what `nncc.passes.fuse_attention` recognizes.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule
from nncc.passes.context import Context
from nncc.passes.fuse_attention import Scores
from nncc.passes.rewriter import Rewriter

__all__ = ["gpu_attention"]


def gpu_attention(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.matmul`` of a softmax; see the module's equation."""
    template = context.templates["cuda_attention"]
    scores = Scores(module["main"])

    def matmul(rewriter: Rewriter, call: Any) -> Any:
        found = scores.attention(rewriter, call)
        if found is None:
            return None
        _, depth, _, width = found.sizes
        if width == 0 or depth + width > template.module.MOST_SHARED:
            return None
        tensors, options = found.arguments(rewriter)
        return rewriter.emit_anchor(template, *tensors, **options)

    return Rewriter({"relax.matmul": matmul}).rewrite(module)
