"""Softmax and layer normalization over the last axis go to their templates; over other axes they stay as they are."""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, static_shape
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["own_rows"]


def own_rows(module: IRModule, context: Context) -> IRModule:
    """Rewrite float32 ``relax.nn.softmax`` and ``relax.nn.layer_norm``."""
    lanes = max(4, context.target.hardware.vector_bits // 32)

    def softmax(rewriter: Rewriter, call: Any) -> Any:
        x = rewriter.value(call.args[0])
        if not _over_last(x, [call.attrs.axis]):
            return None
        return rewriter.emit_anchor(context.templates["softmax"], x, lanes=lanes)

    def layer_norm(rewriter: Rewriter, call: Any) -> Any:
        x, gamma, beta = (rewriter.value(a) for a in call.args)
        attrs = call.attrs
        if not _over_last(x, attrs.axes) or not attrs.center or not attrs.scale:
            return None
        epsilon = float(attrs.epsilon)
        return rewriter.emit_anchor(context.templates["layer_norm"], x, gamma, beta, epsilon=epsilon, lanes=lanes)

    return Rewriter({"relax.nn.softmax": softmax, "relax.nn.layer_norm": layer_norm}).rewrite(module)


def _over_last(x: Any, axes: Any) -> bool:
    """Whether x is rows of float32, which the axes run along."""
    shape = static_shape(x)
    last = len(shape) - 1
    return (
        str(x.ty.dtype) == "float32" and last > 0 and 0 not in shape and [int(a) % len(shape) for a in axes] == [last]
    )
