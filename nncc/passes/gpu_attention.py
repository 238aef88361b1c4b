"""Attention becomes one kernel for GPUs, which never has its scores in memory.

    matmul(softmax(alpha * matmul(q, k) + mask), v)  ->  cuda_attention(q, k, v, mask)

What is recognized is what `nncc.passes.fuse_attention` recognizes.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, static_shape
from nncc.passes.context import Context
from nncc.passes.fuse_attention import Scores, flat_memory
from nncc.passes.rewriter import Rewriter

__all__ = ["gpu_attention"]


def gpu_attention(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.matmul`` of a softmax; see the module's equation."""
    template = context.templates["cuda_attention"]
    scores = Scores(module["main"])

    def matmul(rewriter: Rewriter, call: Any) -> Any:
        found = scores.of(call.args[0])
        if found is None:
            return None
        operands = [*found.operands, call.args[1]]
        mask = [rewriter.value(m) for m in found.mask]
        shapes = [static_shape(a) for a in operands]
        if len({shape[:-2] for shape in shapes}) > 1:
            return None
        if any(str(a.ty.dtype) != "float32" for a in (*operands, *mask)):
            return None
        (*batch, rows, depth), columns, width = shapes[0], shapes[1][-1], shapes[2][-1]
        if not batch or 0 in (*batch, rows, depth, columns, width) or depth + width > template.module.MOST_SHARED:
            return None
        views = [scores.view(operand, number < 2) for number, operand in enumerate(operands)]
        flat = [flat_memory(rewriter, view.source) for view in views]
        return rewriter.emit_anchor(
            template,
            *flat,
            *mask,
            batch=batch,
            sizes=[rows, depth, columns, width],
            views=[[view.start, *view.strides] for view in views],
            alpha=found.alpha * views[0].factor * views[1].factor,
        )

    return Rewriter({"relax.matmul": matmul}).rewrite(module)
