"""Convolutions and matrix products go to the templates for GPUs; constant weights are laid out for them here.

conv2d(x, W)  ->  cuda_conv2d(x, pack(W)), cuda_depthwise_conv2d(x, W)        matmul(x, w)  ->  cuda_matmul(x, w)
matmul(x, W)  ->  cuda_unit_matmul(x, pack(W)) of integers or halves          matmul(a, b)  ->  cuda_unit_product(a, b)
"""

from __future__ import annotations

from typing import Any

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.gpu.device_units import KINDS
from nncc.passes.context import Context
from nncc.passes.relax_grids import swaps_last_axes
from nncc.passes.rewriter import Rewriter

__all__ = ["gpu_products"]


def gpu_products(module: IRModule, context: Context) -> IRModule:
    """Rewrite float32 ``relax.nn.conv2d`` of NCHW by constants and ``relax.matmul``; see the module's equations."""

    tf32 = context.precision == "tf32"

    def conv2d(rewriter: Rewriter, call: Any) -> Any:
        data, weight = call.args
        attrs = call.attrs
        plain = attrs.data_layout == "NCHW" and attrs.kernel_layout == "OIHW" and attrs.out_layout in ("", "NCHW")
        if not plain or not isinstance(weight, GenericConst) or not _floats(data, weight, call):
            return None
        if 0 in (*static_shape(data), *static_shape(call)):
            return None
        kernel = constant_array(weight)
        groups = int(attrs.groups)
        padding = [int(p) for p in attrs.padding]
        options = {
            "window": [int(d) for d in kernel.shape[2:]],
            "strides": [int(s) for s in attrs.strides],
            "padding": padding if len(padding) == 4 else [*padding, *padding],
            "dilation": [int(d) for d in attrs.dilation],
        }
        x = rewriter.value(data)
        if kernel.shape[1] == 1 and groups > 1:
            template = context.templates["cuda_depthwise_conv2d"]
            return rewriter.emit_anchor(template, x, relax.const(template.module.pack(kernel), "float32"), **options)
        template = context.templates["cuda_conv2d"]
        packed = relax.const(template.module.pack(kernel, groups), "float32")
        return rewriter.emit_anchor(template, x, packed, channels=kernel.shape[0], tf32=tf32, **options)

    def matmul(rewriter: Rewriter, call: Any) -> Any:
        x, weight = (rewriter.value(a) for a in call.args)
        left, right = static_shape(x), static_shape(weight)
        kind = str(x.ty.dtype)
        if kind in KINDS and isinstance(weight, GenericConst) and len(right) == 2 and 0 not in left:
            template = context.templates["cuda_unit_matmul"]
            packed = template.module.pack(constant_array(weight), KINDS[kind].each)
            return rewriter.emit_anchor(
                template, x, relax.const(packed, str(weight.ty.dtype)), kind=kind, columns=right[1]
            )
        if str(call.ty.dtype) == "int32" and kind in ("uint8", "int8") and str(weight.ty.dtype) == "int8":
            swapped, options = rewriter.made.get(call.args[1]), {"kind": kind, "transposed": False}
            if swaps_last_axes(swapped):  # its units lie side by side
                weight, options["transposed"] = rewriter.value(swapped.args[0]), True
            return rewriter.emit_anchor(context.templates["cuda_unit_product"], x, weight, **options)
        if not _floats(x, weight, call) or len(left) < 2 or len(right) < 2 or 0 in (*left, *right):
            return None
        if len(right) > 2 and right[:-2] != left[:-2]:
            return None
        return rewriter.emit_anchor(context.templates["cuda_matmul"], x, weight, tf32=tf32)

    return Rewriter({"relax.nn.conv2d": conv2d, "relax.matmul": matmul}).rewrite(module)


def _floats(*tensors: Any) -> bool:
    return all(str(t.ty.dtype) == "float32" for t in tensors)
