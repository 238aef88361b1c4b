"""Attention becomes one kernel for GPUs, which never has its scores in memory.

    matmul(softmax(alpha * matmul(q, k) + mask), v)  ->  cuda_attention(q, k, v, mask)

Where only a permutation reads the result that puts the queries before the heads, the kernel writes it so:

    permute_dims(cuda_attention(..), [0, 2, 1, 3])  ->  cuda_attention(.., queries_first)

What is recognized is what `nncc.passes.fuse_attention` recognizes.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, relax
from nncc.passes.context import Context
from nncc.passes.fuse_attention import Scores
from nncc.passes.relax_grids import named
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
        if _swaps_heads(rewriter, rewriter.variable):
            swapped.add(rewriter.variable)
            options["queries_first"] = True
        return rewriter.emit_anchor(template, *tensors, **options)

    def astype(rewriter: Rewriter, call: Any) -> Any:
        if call.args[0] not in swapped:
            return None
        swapped.add(rewriter.variable)
        return relax.op.astype(rewriter.value(call.args[0]), str(call.ty.dtype))

    def permute_dims(rewriter: Rewriter, call: Any) -> Any:
        return rewriter.value(call.args[0]) if call.args[0] in swapped else None

    swapped: set[Any] = set()
    """Variables of the old function that are made with the queries first."""
    rules = {"relax.matmul": matmul, "relax.astype": astype, "relax.permute_dims": permute_dims}
    return Rewriter(rules).rewrite(module)


def _swaps_heads(rewriter: Rewriter, variable: Any) -> bool:
    """Whether a value is read by a permutation alone, cast or not, that swaps its two axes in the middle."""
    readers = rewriter.readers[variable]
    if len(readers) != 1 or readers[0][0] is None:
        return False
    result, reader = readers[0]
    if named(reader, "relax.astype"):
        return _swaps_heads(rewriter, result)
    return named(reader, "relax.permute_dims") and [int(a) for a in reader.attrs.axes or ()] == [0, 2, 1, 3]
