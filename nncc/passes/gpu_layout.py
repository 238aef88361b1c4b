"""Integers on GPUs: channels in blocks of 16 bytes, which tensor cores take at once, and convolutions of them.

    x[n, c, h, w] = X[n, c div 16, h, w, c mod 16]

What comes between the convolutions keeps the blocks, as on processors (`nncc.passes.choose_layout`); float32
convolutions take and give plain tensors.
"""

from __future__ import annotations

from typing import Any

from nncc.compat import IRModule, constant_array, relax, te, tirx
from nncc.passes.blocked import Blocked
from nncc.passes.choose_layout import Layout
from nncc.passes.context import Context
from nncc.passes.convolutions import is_border, of_integers
from nncc.passes.quantization import dequantized

__all__ = ["gpu_layout"]

LANES = 16
"""Channels of a block: bytes that are moved, and multiplied, at once."""


def gpu_layout(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``main`` to blocked convolutions of integers; see the module's equation."""
    return _GpuLayout(context).rewrite(module)


class _GpuLayout(Layout):
    """Blocks what convolutions of integers take and give."""

    def __init__(self, context: Context) -> None:
        super().__init__(context.templates, context.target.hardware, context.graph)
        self.rules = {**self.rules, "relax.nn.conv2d": _GpuLayout.conv2d, "relax.nn.conv2d_transpose": lambda *_: None}

    def look(self, main: Any) -> None:
        self.lanes = LANES

    def lanes_of(self, channels: int, dtype: str = "float32") -> int:
        return LANES

    @staticmethod
    def spatial_mean(x: te.Tensor, step: float = 1.0, zero: int = 0) -> te.Tensor:
        """In one kernel, whose threads share what they sum."""
        batch, blocks, height, width, lanes = x.shape
        kind = "float32" if str(x.dtype) == "float32" else "int32"
        h, w = te.reduce_axis((0, height), name="h"), te.reduce_axis((0, width), name="w")
        total = te.compute(
            (batch, blocks, lanes), lambda n, c, i: te.sum(x[n, c, h, w, i].astype(kind), axis=[h, w]), name="sum"
        )
        count = int(height) * int(width)

        def mean(n: Any, c: Any, _: Any, __: Any, i: Any) -> Any:
            value = total[n, c, i]
            return (value if kind == "float32" else dequantized(value, 1.0, zero * count)) * tirx.const(step / count, "float32")

        return te.compute((batch, blocks, 1, 1, lanes), mean, name="mean")

    def conv2d(self, call: Any) -> Blocked | None:
        """Of uint8 or int8 by int8; a constant border that it was given is padding again."""
        if not of_integers(call):
            return None
        data, attrs = call.args[0], call.attrs
        kernel, padding, zero = constant_array(call.args[1]), [int(p) for p in attrs.padding], 0
        border = self.made.get(data)
        if is_border(border) and not any(padding):
            top, bottom, left, right = (int(n) for n in border.attrs.pad_width[4:])
            data, padding, zero = border.args[0], [top, left, bottom, right], int(border.attrs.pad_value)
        depthwise = int(attrs.groups) > 1
        template = self.templates["cuda_unit_depthwise" if depthwise else "cuda_unit_conv2d"]
        new = self.emit_anchor(
            template,
            self.rows(self.block(data)),
            relax.const(template.module.pack(kernel, LANES), "int8"),
            kind=str(data.ty.dtype),
            window=[int(d) for d in kernel.shape[2:]],
            strides=[int(s) for s in attrs.strides],
            padding=padding,
            dilation=[int(d) for d in attrs.dilation],
            zero=zero,
        )
        return Blocked(new, kernel.shape[0])
