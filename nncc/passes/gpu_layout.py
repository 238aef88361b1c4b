"""Integers and halves on GPUs: channels in blocks of 16 bytes, which tensor cores take at once, and convolutions of
them.

    x[n, c, h, w] = X[n, c div b, h, w, c mod b]          b = 16 of 8 bits, 8 of 16 bits

What comes between the convolutions keeps the blocks, as on processors (`nncc.passes.choose_layout`); float32
convolutions take and give plain tensors.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, te
from nncc.kernels.templates import Template
from nncc.passes.blocked import Blocked
from nncc.passes.choose_layout import Layout, scaled_sum
from nncc.passes.context import Context
from nncc.passes.convolutions import of_integers, without_border

__all__ = ["gpu_layout"]


def gpu_layout(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``main`` to blocked convolutions of integers; see the module's equation."""
    return _GpuLayout(context).rewrite(module)


_HALVES = ("float16", "bfloat16")


def _from_halves(compute: Any) -> Any:
    """A compute definition of float32, of halves."""

    def computed(x: te.Tensor, *rest: Any, **options: Any) -> te.Tensor:
        return compute(te.compute(x.shape, lambda *at: x[at].astype("float32"), name="real"), *rest, **options)

    return computed


class _GpuLayout(Layout):
    """Blocks what convolutions of integers take and give."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.templates, context.target.hardware, context.graph)
        own = {
            "relax.nn.conv2d": _GpuLayout.conv2d,
            "relax.nn.conv2d_transpose": lambda *_: None,
            "relax.astype": _GpuLayout.astype,
        }
        own |= dict.fromkeys(("relax.quantize", "relax.dequantize"), _GpuLayout.scale)
        self.rules = {**self.rules, **own}
        self.halves: dict[Any, Blocked] = {}
        """By new variable of float32, the halves that it is made of."""

    def look(self) -> None:
        integers = any(of_integers(call) for call in self.made.values())
        self.lanes = 16 if integers else 8

    def lanes_of(self, channels: int, dtype: str = "float32") -> int:
        return self.lanes

    def astype(self, call: Any) -> Blocked | None:
        """To halves, or back."""
        if not self.is_blocked(call.args[0]):
            return None
        tensor = self.blocked[call.args[0]]
        new = self.builder.emit(relax.op.astype(tensor.expr, str(call.ty.dtype)))
        if str(call.args[0].ty.dtype) in _HALVES:
            self.halves[new] = tensor
        return Blocked(new, tensor.channels, tensor.size)

    def integers(self, expr: Any) -> tuple[Blocked, float, int] | None:
        """Halves are read by means as integers are: the numbers themselves."""
        halves = self.halves.get(self.blocked[expr].expr)
        return super().integers(expr) if halves is None else (halves, 1.0, 0)

    def pooled(self, expr: Any) -> tuple[Blocked, Template]:
        """Halves are numbers of float32 in the kernel that reads them."""
        tensor, template = super().pooled(expr)
        halves = self.halves.get(tensor.expr)
        if halves is None:
            return tensor, template
        return halves, replace(template, compute=_from_halves(template.compute))

    @staticmethod
    def spatial_sum(x: te.Tensor, factor: float, zero: int) -> te.Tensor:
        """In one kernel, whose threads share what they sum."""
        batch, blocks, height, width, lanes = x.shape
        kind = "float32" if "float" in str(x.dtype) else "int32"
        h, w = te.reduce_axis((0, height), name="h"), te.reduce_axis((0, width), name="w")
        total = te.compute(
            (batch, blocks, lanes), lambda n, c, i: te.sum(x[n, c, h, w, i].astype(kind), axis=[h, w]), name="sum"
        )
        count = int(height) * int(width)
        return te.compute(
            (batch, blocks, 1, 1, lanes),
            lambda n, c, _, __, i: scaled_sum(total[n, c, i], count, factor, zero),
            name="scaled",
        )

    def scale(self, call: Any) -> Blocked | None:
        """Zero points that are all 0 are no tensor to load."""
        data, scale, zero = call.args
        if isinstance(zero, GenericConst) and not constant_array(zero).any():
            none = relax.const(np.zeros((), constant_array(zero).dtype))
            call = relax.Call(call.op, [data, scale, none], call.attrs, call.ty_args, ret_ty=call.ty)
        return super().scale(call)

    def conv2d(self, call: Any) -> Blocked | None:
        """Of uint8 or int8 by int8, where a constant border that it was given is padding again; or of halves."""
        if not of_integers(call) and str(call.args[0].ty.dtype) not in _HALVES:
            return None
        attrs, kernel = call.attrs, constant_array(call.args[1])
        data, padding, zero = without_border(self, call.args[0], [int(p) for p in attrs.padding])
        groups = int(attrs.groups)
        depthwise = groups > 1 and kernel.shape[1] == 1
        template = self.templates["cuda_unit_depthwise" if depthwise else "cuda_unit_conv2d"]
        several = {} if depthwise else {"groups": groups}
        new = self.emit_anchor(
            template,
            self.rows(self.block(data)),
            relax.const(template.module.pack(kernel, self.lanes, **several), str(call.args[1].ty.dtype)),
            kind=str(data.ty.dtype),
            window=[int(d) for d in kernel.shape[2:]],
            strides=[int(s) for s in attrs.strides],
            padding=padding,
            dilation=[int(d) for d in attrs.dilation],
            zero=zero,
            **several,
        )
        return Blocked(new, kernel.shape[0])
