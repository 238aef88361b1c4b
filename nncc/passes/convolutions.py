"""Convolutions on blocked channels: which template takes which, of float32 and of integers.

There may be several ways for one: directly, as Winograd's or Strassen's, or skipping blocks of weights that are zero.
The first is the one that is predicted to be fastest; where a record or a search says so, another is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from nncc import scheduling
from nncc.compat import GenericConst, constant_array, relax, static_shape
from nncc.kernels.choices import graph_task
from nncc.kernels.dots import Dot, wide_dot_of
from nncc.kernels.skipping import Lists
from nncc.layer_time import INTERLEAVED
from nncc.passes.blocked import Blocked, block_array, interleaved
from nncc.passes.relax_grids import named

if TYPE_CHECKING:
    from nncc.kernels.templates import Template
    from nncc.passes.choose_layout import Layout

__all__ = ["conv2d", "convolution_texts", "of_integers", "without_border"]

_EFFICIENCY = 0.9
"""Of the peak, that others reach."""
_WORTH = {True: 1.0, False: 0.75}
"""Zeros are skipped where that is predicted to take less than so much of Winograd's time: with 32 vector registers or
more, and with fewer. Measured with AVX2, 70 % of zeros, 3x3, 128 channels on 28x28 pixels: int8 takes 1.33 times as
long where 0.78 is predicted, float32 1.06 times where it is 0.84; the target's second-level cache is smaller than that
processor's."""


class _Convolution:
    """A convolution's facts, which its ways share."""

    def __init__(self, layout: Layout, call: Any) -> None:
        self.layout = layout
        self.call = call
        self.kernel = constant_array(call.args[1])
        self.out_channels, self.group_channels = self.kernel.shape[:2]
        self.strides, self.padding, self.dilation = (
            [int(v) for v in values] for values in (call.attrs.strides, call.attrs.padding, call.attrs.dilation)
        )
        self.groups = int(call.attrs.groups)
        self.batch, _, *self.size = static_shape(call)

    @property
    def depthwise(self) -> bool:
        return self.groups == self.out_channels and self.group_channels == 1

    def template(self, name: str) -> Template:
        return self.layout.templates[name]

    def window(self, **more: Any) -> dict[str, Any]:
        return {"strides": self.strides, "padding": self.padding, "dilation": self.dilation, **more}

    @property
    def plain(self) -> bool:
        """Whether rows do not matter."""
        return self.kernel.shape[2:] == (1, 1) and self.strides == [1, 1] and not any(self.padding)

    @property
    def row(self) -> int:
        """The outputs of a row, as a direct convolution has them."""
        return prod(self.size) if self.plain else self.size[1]

    def source(self, tensor: Blocked) -> Any:
        """What a direct convolution reads: all rows in one where they do not matter."""
        return self.layout.rows(tensor, (1, self.row) if self.plain else ())

    def way(
        self, lanes: tuple[int, int], text: str, dot: Dot | None = None, exact: Callable[[Any], bool] = lambda _: True
    ) -> tuple[Any, str]:
        """The plan of Winograd or of Strassen, lists that skip zeros, or None for a direct convolution; and the hash of
        what was asked.

        `lanes` are those of the input and of the output. Integers are multiplied by `dot`, and by Winograd's where a
        tile of it is `exact`.
        """
        layout, winograd = self.layout, self.template("winograd").module
        found: list[Any] = [None]
        batch = 1 if self.batch in layout.open_sizes else self.batch  # one way for all batches
        varies = bool(layout.open_sizes)  # here or behind strides: one size may have other ways than another
        blocks = lanes[0] == layout.lanes
        if self.plain and dot is None and lanes == (layout.lanes, layout.lanes) and not varies:
            strassen = self.template("strassen").module
            found = strassen.ways(self.kernel.shape, self.row, batch, layout.lanes, layout.hardware)
        elif (dot is None or (wide_dot_of(layout.hardware) and blocks)) and (self.strides == [1, 1] or not varies):
            shape = self.kernel.shape, self.strides, self.dilation, batch, *self.size
            numbers = winograd.FLOATS if dot is None else winograd.integers(dot)
            ways = winograd.ways(*shape, layout.lanes, layout.hardware, numbers)
            found = [way for way in ways if way is None or exact(way.tile)] or [None]
        lists = self.template("sparse_conv2d").module.lists(self.kernel, *lanes, self.row, layout.hardware, dot)
        if lists is not None:
            blocks = -(-self.group_channels // lanes[0]) * -(-self.out_channels // lanes[1])
            steps = blocks * lanes[0] * prod(self.kernel.shape[2:]) * self.batch * prod(self.size)
            direct = steps / (1 if dot is None else dot.size) / _EFFICIENCY
            worth = _WORTH[layout.hardware.vector_registers >= 32]
            best = found[0].cost * worth if found[0] is not None else direct
            found.insert(0 if lists.cost * direct * _EFFICIENCY < best else len(found), lists)
            text += f", {100 * lists.density:.0f} % of its blocks"
        if len(found) == 1 or layout.open_sizes & {self.batch, *self.size}:  # a task is of one size
            return found[0], ""
        task, words = graph_task("algorithm", text), {str(way or "direct"): way for way in found}
        return words[layout.graph("algorithm", text)("algorithm", words)], task


def conv2d(layout: Layout, call: Any) -> Blocked | None:
    """Of float32 or, into int32, of integers, by constant weights."""
    if of_integers(call):
        return _of_bytes(layout, call)
    data, weight = call.args
    if not isinstance(weight, GenericConst) or str(data.ty.dtype) != "float32" or call.attrs.data_layout != "NCHW":
        return None
    this, tables = _Convolution(layout, call), []
    kernel = this.kernel
    lanes_out = layout.lanes_of(this.out_channels)
    if this.groups == 1:
        if not layout.is_blocked(data) and kernel.shape[1] < layout.lanes:
            tensor, this.padding = layout.plain(data, this.padding), [0, 0, 0, 0]
        else:
            tensor = layout.block(data)
        lanes = tensor.lanes, lanes_out
        way, task = this.way(lanes, f"{_text(call)}, blocks of {layout.lanes}")
        if isinstance(way, Lists):
            template, source = this.template("sparse_conv2d"), this.source(tensor)
            options = this.window(kernel=kernel.shape[2:], task=task)
            packed, places = template.module.pack(kernel, *lanes, way.vectors)
            tables = [relax.const(places, "int32")]
        elif way and this.plain:
            template, source, options = this.template("strassen"), this.source(tensor), {"task": task}
            packed = template.module.pack(kernel, layout.lanes)
        elif way:
            template, source = this.template("winograd"), layout.rows(tensor)
            stride = this.strides[0]
            options = {"padding": this.padding, "tile": way.tile, "strip": way.strip, "stride": stride, "task": task}
            packed = template.module.pack(kernel, *lanes, way.tile, stride)
        else:
            template, source = this.template("conv2d"), this.source(tensor)
            options = this.window(task=task)
            packed = template.module.pack(kernel, *lanes)
    else:
        tensor = layout.block(data)
        source = layout.rows(tensor)
        if this.depthwise:
            template, options = this.template("depthwise_conv2d"), this.window()
            packed = template.module.pack(kernel, tensor.lanes)
        else:
            template = this.template("grouped_conv2d")
            options = this.window(in_group=this.group_channels, out_group=this.out_channels // this.groups)
            packed = template.module.pack(kernel, this.groups, tensor.lanes, lanes_out)
    new = layout.emit_anchor(template, source, relax.const(packed, "float32"), *tables, **options)
    return Blocked(new, this.out_channels, tuple(this.size))


def _of_bytes(layout: Layout, call: Any) -> Blocked:
    """Of uint8 or int8 by int8; a constant border that it was given is padding again."""
    data, dot = call.args[0], layout.dot
    this = _Convolution(layout, call)
    kernel = this.kernel
    data, this.padding, zero = without_border(layout, data, this.padding)
    along = _along_rows(this, data)
    tensor = layout.block(data) if along is None else along[0]
    lanes = tensor.lanes, layout.lanes_of(this.out_channels, "int32")
    shift = scheduling.shift(str(data.ty.dtype), dot)
    source, tables = layout.rows(tensor), []
    options = this.window(dot=dot, zero=zero + shift)
    if along is not None:
        template = this.template("conv2d")
        packed = template.module.pack(along[1], dot.size, lanes[1], dot)
    elif this.groups == 1:
        winograd = this.template("winograd")
        text = f"{_text(call)}, blocks of {layout.lanes}, {call.args[0].ty.dtype}"
        way, task = this.way(lanes, text, dot=dot, exact=lambda tile: winograd.module.exact(kernel, tile))
        if isinstance(way, Lists):
            template, source = this.template("sparse_conv2d"), this.source(tensor)
            options |= {"kernel": kernel.shape[2:], "task": task}
            packed, places = template.module.pack(kernel, *lanes, way.vectors, dot)
            tables = [relax.const(places, "int32")]
        elif way:
            template, wide = winograd, wide_dot_of(layout.hardware)
            options = {"padding": this.padding, "tile": way.tile, "strip": way.strip, "task": task}
            options |= {"dot": wide, "zero": zero}
            packed = template.module.pack_integers(kernel, *lanes, way.tile, wide)
            shift = 0  # of 16 bits, they are taken as they are
        else:
            template, source = this.template("conv2d"), this.source(tensor)
            options["task"] = task
            packed = template.module.pack(kernel, *lanes, dot)
    elif this.depthwise:
        template = this.template("depthwise_conv2d")
        template = replace(template, compute=template.module.compute_words)
        packed = template.module.pack_words(kernel, tensor.lanes, this.strides[1], this.dilation[1], dot)
        options["size"] = this.size
    else:
        template = this.template("grouped_conv2d")
        options |= {"in_group": this.group_channels, "out_group": this.out_channels // this.groups}
        packed = template.module.pack(kernel, this.groups, *lanes, dot)
    new = layout.emit_anchor(template, source, relax.const(packed, str(packed.dtype)), *tables, **options)
    result = Blocked(new, this.out_channels, tuple(this.size))
    if shift:
        offset = -shift * kernel.astype(np.int32).sum(axis=(1, 2, 3)).reshape(1, -1, 1, 1)
        added = relax.op.add(new, relax.const(block_array(offset, result), "int32"))
        result = Blocked(layout.builder.emit(added), this.out_channels, tuple(this.size))
    return result


def _along_rows(this: _Convolution, data: Any) -> tuple[Blocked, np.ndarray] | None:
    """The input and the kernel of a convolution of few channels whose words run along rows, to the end of which the
    padding is made to reach; None where words are of channels.

    The channels of a column lie side by side, and count as columns: strides and padding are then of those.
    """
    layout, dot, channels = this.layout, this.layout.dot, this.group_channels
    # Where activations are lanes of registers, a word along rows is a load of its own.
    by_lanes = layout.hardware.lane_operand
    few = dot.size // 2 if by_lanes else INTERLEAVED
    if this.groups > 1 or channels > few or layout.is_blocked(data) or this.dilation[1] > 1:
        return None
    width = this.kernel.shape[3]
    kernel = this.template("conv2d").module.along_rows(this.kernel, dot)
    words, of_channels = kernel.shape[3], width * (layout.lanes_of(channels, "int32") // dot.size)
    if words > of_channels or (by_lanes and words == of_channels):
        return None
    top, left, bottom, right = this.padding
    behind = words * dot.size - width * channels
    this.padding = [top, left * channels, bottom, right * channels + behind]
    this.strides = [this.strides[0], this.strides[1] * channels]
    if channels == 1:
        return layout.plain(data, ()), kernel
    rows = layout.builder.emit_te(interleaved, layout.value(data), primfunc_name_hint="interleave_channels")
    return Blocked(rows, 1), kernel


def of_integers(call: Any) -> bool:
    """Whether an expression is a convolution of integers by constants."""
    if not named(call, "relax.nn.conv2d"):
        return False
    of_bytes = str(call.ty.dtype) == "int32" and str(call.args[0].ty.dtype) in ("uint8", "int8")
    return of_bytes and isinstance(call.args[1], GenericConst) and call.attrs.data_layout == "NCHW"


def without_border(layout: Layout, data: Any, padding: list[int]) -> tuple[Any, list[int], int]:
    """The input of a convolution, its padding, and the number there: a constant border around `data` is padding again,
    where there is no other."""
    border = layout.made.get(data)
    if any(padding) or not _is_border(border):
        return data, padding, 0
    top, bottom, left, right = (int(n) for n in border.attrs.pad_width[4:])
    return border.args[0], [top, left, bottom, right], int(border.attrs.pad_value)


def _is_border(expr: Any) -> TypeGuard[Any]:
    """Whether an expression puts a constant around height and width."""
    if not named(expr, "relax.nn.pad"):
        return False
    widths = [int(n) for n in expr.attrs.pad_width]
    return str(expr.attrs.pad_mode) == "constant" and not any(widths[:4]) and min(widths) >= 0


def convolution_texts(values: Iterable[Any]) -> list[str]:
    """The convolutions among expressions that may be blocked, each once, as text."""
    return list(dict.fromkeys(_text(value) for value in values if named(value, "relax.nn.conv2d")))


def _text(call: Any) -> str:
    """A convolution as text: its shapes, and what differs from stride 1 without padding."""
    attrs = call.attrs
    x, w = ("x".join(map(str, static_shape(a))) for a in call.args)
    words = [f"{x}*{w}"]
    for name, plain in (("strides", 1), ("padding", 0), ("dilation", 1)):
        values = [int(v) for v in getattr(attrs, name)]
        if any(v != plain for v in values):
            words.append(f"{name}={','.join(map(str, values))}")
    return " ".join([*words, *([f"groups={attrs.groups}"] if int(attrs.groups) > 1 else [])])
