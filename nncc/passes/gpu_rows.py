"""Softmax and layer normalization over the last axis go to their templates for GPUs; over other axes they stay."""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, static_shape
from nncc.gpu_rows import LONGEST
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["gpu_rows"]


def gpu_rows(module: IRModule, context: Context) -> IRModule:
    """Rewrite float32 ``relax.nn.softmax`` and ``relax.nn.layer_norm`` of rows that the registers of a block hold."""

    def softmax(rewriter: Rewriter, call: Any) -> Any:
        x = rewriter.value(call.args[0])
        if not _over_last(x, [call.attrs.axis]):
            return None
        return rewriter.emit_anchor(context.templates["cuda_softmax"], x)

    def layer_norm(rewriter: Rewriter, call: Any) -> Any:
        x, gamma, beta = (rewriter.value(a) for a in call.args)
        attrs = call.attrs
        if not _over_last(x, attrs.axes) or not attrs.center or not attrs.scale:
            return None
        return rewriter.emit_anchor(context.templates["cuda_layer_norm"], x, gamma, beta, epsilon=float(attrs.epsilon))

    return Rewriter({"relax.nn.softmax": softmax, "relax.nn.layer_norm": layer_norm}).rewrite(module)


def _over_last(x: Any, axes: Any) -> bool:
    """Whether x is rows of float32, not too long, which the axes run along."""
    shape = static_shape(x)
    last = len(shape) - 1
    return (
        str(x.ty.dtype) == "float32"
        and last > 0
        and 0 not in shape
        and shape[-1] <= LONGEST // (4 if shape[-1] % 4 else 1)
        and [int(a) % len(shape) for a in axes] == [last]
    )
