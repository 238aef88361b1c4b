"""Operators that take and give blocked channels: what `choose_layout` does with each, beside the convolutions.

Each rule gets the walk and a call; it returns the blocked result, or None to leave the call alone.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from nncc.compat import GenericConst, constant_array, relax, te, topi
from nncc.passes.blocked import Blocked

if TYPE_CHECKING:
    from nncc.passes.choose_layout import Layout

__all__ = ["RULES"]


def conv2d_transpose(layout: Layout, call: Any) -> Blocked | None:
    """By the template's phases, where the weights are constant, there is one group, and the phases are few."""
    data, weight = call.args
    attrs = call.attrs
    supported = isinstance(weight, GenericConst) and str(data.ty.dtype) == "float32" and int(attrs.groups) == 1
    if not supported or attrs.data_layout != "NCHW" or attrs.kernel_layout != "IOHW" or attrs.out_layout != "NCHW":
        return None
    kernel = constant_array(weight)
    shape = {name: [int(v) for v in getattr(attrs, name)] for name in ("strides", "padding", "dilation")}
    template = layout.templates["conv2d_transpose"]
    if prod(shape["strides"]) > template.module.MOST_PHASES:
        return None
    tensor = layout.block(data)
    out_channels = kernel.shape[1]
    lanes = tensor.lanes, layout.lanes if out_channels >= layout.lanes else out_channels
    packed = template.module.pack(kernel, **shape, in_lanes=lanes[0], out_lanes=lanes[1])
    weights = [relax.const(phase, "float32") for phase in packed]
    sizes = {"kernel": kernel.shape[2:], "size": [int(d) for d in call.ty.shape][2:]}
    return Blocked(layout.emit_anchor(template, tensor.expr, *weights, **sizes, **shape), out_channels)


def pool2d(layout: Layout, call: Any) -> Blocked | None:
    data, attrs = call.args[0], call.attrs
    if not layout.is_blocked(data) or attrs.layout != "NCHW":
        return None
    tensor = layout.blocked[data]
    name = str(call.op.name).rsplit(".", 1)[-1]
    top, left, bottom, right = (int(p) for p in attrs.padding)

    def pooled(x: te.Tensor) -> te.Tensor:
        return topi.nn.pool2d(
            x,
            kernel=[int(v) for v in attrs.pool_size],
            stride=[int(v) for v in attrs.strides],
            dilation=[int(v) for v in attrs.dilation],
            padding=[top, left, bottom, right],
            pool_type="max" if name.startswith("max") else "avg",
            ceil_mode=bool(attrs.ceil_mode),
            layout=f"NCHW{tensor.lanes}c",
            count_include_pad=bool(attrs.count_include_pad),
        )

    return Blocked(layout.builder.emit_te(pooled, tensor.expr, primfunc_name_hint=name), tensor.channels)


RULES = {
    "relax.nn.conv2d_transpose": conv2d_transpose,
    "relax.nn.max_pool2d": pool2d,
    "relax.nn.avg_pool2d": pool2d,
}
