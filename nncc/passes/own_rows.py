"""Softmax, layer normalization and places of extremes over the last axis go to their templates; over other axes they
stay as they are."""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, relax, static_shape
from nncc.gpu.rows import LONGEST
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["own_rows"]


def own_rows(module: IRModule, context: Context) -> IRModule:
    """Rewrite float32 ``relax.nn.softmax`` and ``relax.nn.layer_norm``; on a GPU, of rows that the registers of a block
    hold. On processors ``relax.nn.log_softmax`` too, and ``relax.argmax`` and ``relax.argmin`` of rows of at least a
    vector.
    """
    hardware = context.target.hardware
    on_gpu = bool(hardware.multiprocessors)
    family, words = ("cuda_", {}) if on_gpu else ("", {"lanes": max(4, hardware.vector_bits // 32)})

    def takes(x: Any, axes: Any) -> bool:
        if not _over_last(x, axes) or static_shape(x)[-1] in context.open_sizes:  # their tiles depend on the length
            return False
        return not on_gpu or _fits_block(static_shape(x)[-1])

    def softmax(rewriter: Rewriter, call: Any) -> Any:
        x = rewriter.value(call.args[0])
        if not takes(x, [call.attrs.axis]):
            return None
        return rewriter.emit_anchor(context.templates[f"{family}softmax"], x, **words)

    def layer_norm(rewriter: Rewriter, call: Any) -> Any:
        x, gamma, beta = (rewriter.value(a) for a in call.args)
        attrs = call.attrs
        if not takes(x, attrs.axes) or not attrs.center or not attrs.scale:
            return None
        template = context.templates[f"{family}layer_norm"]
        return rewriter.emit_anchor(template, x, gamma, beta, epsilon=float(attrs.epsilon), **words)

    def place(rewriter: Rewriter, call: Any) -> Any:
        x, axis = rewriter.value(call.args[0]), call.attrs.axis
        if axis is None or not takes(x, [axis]) or static_shape(x)[-1] < words["lanes"]:
            return None
        least = call.op.name == "relax.argmin"
        found = rewriter.emit_anchor(context.templates["arg_max"], x, least=least, **words)
        return relax.op.reshape(found, static_shape(call)) if call.attrs.keepdims else found

    def log_softmax(rewriter: Rewriter, call: Any) -> Any:
        x = rewriter.value(call.args[0])
        if not takes(x, [call.attrs.axis]):
            return None
        return rewriter.emit_anchor(context.templates["softmax"], x, logarithm=True, **words)

    rules = {"relax.nn.softmax": softmax, "relax.nn.layer_norm": layer_norm}
    if not on_gpu:
        rules |= {"relax.argmax": place, "relax.argmin": place, "relax.nn.log_softmax": log_softmax}
    return Rewriter(rules).rewrite(module)


def _over_last(x: Any, axes: Any) -> bool:
    """Whether x is rows of float32, which the axes run along."""
    shape = static_shape(x)
    last = len(shape) - 1
    return (
        str(x.ty.dtype) == "float32" and last > 0 and 0 not in shape and [int(a) % len(shape) for a in axes] == [last]
    )


def _fits_block(length: int) -> bool:
    """Whether the registers of a block hold a row; one that is no multiple of four is read number by number."""
    return length <= LONGEST // (4 if length % 4 else 1)
