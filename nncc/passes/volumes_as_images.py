"""Three-dimensional convolutions as two-dimensional ones of all depths at once, which the templates take.

    conv3d(x, W)[n, o, d] = conv2d(X, V)[(n, d), o]
    X[(n, d), (g, k, c)] = x[n, (g, c), d s + k a - p]        V[o, (k, c)] = W[o, c, k]

with stride s, dilation a and padding p of the depth, and k along the window's depth. X has the input once for each k.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.rewriter import Rewriter

__all__ = ["volumes_as_images"]

_MOST_COPIES = 16
"""Times the input that X may have."""


def volumes_as_images(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.nn.conv3d`` of float32 by constant weights; see the module's equation."""
    return Rewriter({"relax.nn.conv3d": _conv3d}).rewrite(module)


def _conv3d(rewriter: Rewriter, call: Any) -> Any:
    attrs, weight, emit = call.attrs, rewriter.value(call.args[1]), rewriter.builder.emit
    if attrs.data_layout != "NCDHW" or attrs.kernel_layout != "OIDHW" or attrs.out_layout not in ("", "NCDHW"):
        return None
    if not isinstance(weight, GenericConst) or str(weight.ty.dtype) != "float32" or str(call.ty.dtype) != "float32":
        return None
    batch, channels, depth, *image = static_shape(call.args[0])
    _, out, results, *out_image = static_shape(call)
    window, groups = static_shape(weight)[2], int(attrs.groups)
    if results * window > _MOST_COPIES * depth:
        return None
    (stride, *strides), (dilation, *dilations) = map(_ints, (attrs.strides, attrs.dilation))
    front, *before, back, low, right = _paddings(_ints(attrs.padding))
    x = emit(relax.op.permute_dims(rewriter.value(call.args[0]), [0, 2, 1, 3, 4]))
    if front or back:
        x = emit(relax.op.nn.pad(x, [0, 0, front, back, *[0] * 6]))
    parts = []
    for k in range(window):
        begin = k * dilation
        part = emit(relax.op.strided_slice(x, [1], [begin], [begin + (results - 1) * stride + 1], [stride]))
        parts.append(emit(relax.op.reshape(part, (batch * results, groups, channels // groups, *image))))
    x = emit(relax.op.concat(relax.Tuple(parts), 2)) if window > 1 else parts[0]
    x = emit(relax.op.reshape(x, (batch * results, window * channels, *image)))
    taps = np.ascontiguousarray(constant_array(weight).transpose(0, 2, 1, 3, 4))
    taps = taps.reshape(out, window * channels // groups, *taps.shape[3:])
    product = relax.op.nn.conv2d(x, relax.const(taps, "float32"), strides, [*before, low, right], dilations, groups)
    y = emit(relax.op.reshape(emit(product), (batch, results, out, *out_image)))
    return relax.op.permute_dims(y, [0, 2, 1, 3, 4])


def _ints(values: Any) -> list[int]:
    return [int(value) for value in values]


def _paddings(given: list[int]) -> list[int]:
    """Those before each axis, then those behind."""
    return given if len(given) == 6 else given * 2 if len(given) == 3 else given * 6
