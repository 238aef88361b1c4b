"""Operators that take and give blocked channels: what `choose_layout` does with each, beside the convolutions.

Each rule gets the walk and a call; it returns the blocked result, or None to leave the call alone.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from nncc import scheduling
from nncc.compat import GenericConst, constant_array, relax, te, tirx, topi
from nncc.operators.pad import bordered
from nncc.operators.resample import data_of, emit_resample, resample_of
from nncc.passes.blocked import Blocked
from nncc.passes.tabulate import looked_up_bytes

if TYPE_CHECKING:
    from nncc.passes.choose_layout import Layout

__all__ = ["RULES"]


def conv2d_transpose(layout: Layout, call: Any) -> Blocked | None:
    """By the template's phases, where the weights are constant, there is one group, and the phases are few."""
    data, weight = call.args
    attrs = call.attrs
    dtype = str(call.ty.dtype)
    supported = isinstance(weight, GenericConst) and dtype in ("float32", "int32") and int(attrs.groups) == 1
    if not supported or attrs.data_layout != "NCHW" or attrs.kernel_layout != "IOHW" or attrs.out_layout != "NCHW":
        return None
    kernel = constant_array(weight)
    shape = {name: [int(v) for v in getattr(attrs, name)] for name in ("strides", "padding", "dilation")}
    template = layout.templates["conv2d_transpose"]
    if prod(shape["strides"]) > template.module.MOST_PHASES:
        return None
    out_channels = kernel.shape[1]
    sizes = {"kernel": kernel.shape[2:], "size": [int(d) for d in call.ty.shape][2:]}
    if dtype == "float32":
        tensor, dot, extra = layout.block(data), None, []
    else:
        if (found := _centred(layout, data)) is None:
            return None
        data, zero = found
        tensor, dot, kernel = layout.block(data), layout.dot, kernel.astype(np.int8)
        sizes |= {"dot": dot, "zero": zero + scheduling.shift(str(data.ty.dtype), dot)}
    lanes = tensor.lanes, layout.lanes_of(out_channels, dtype)
    packed = template.module.pack(kernel, **shape, in_lanes=lanes[0], out_lanes=lanes[1], dot=dot)
    if dot is not None:
        extra = [relax.const(template.module.offsets(kernel, **shape, out_lanes=lanes[1], zero=sizes["zero"]), "int32")]
    weights = [relax.const(phase, str(phase.dtype)) for phase in packed]
    new = layout.emit_anchor(template, layout.rows(tensor), *extra, *weights, **sizes, **shape)
    return Blocked(new, out_channels)


def _centred(layout: Layout, expr: Any) -> tuple[Any, int] | None:
    """The bytes q and the zero point z of what is q - z in int16, as `integer_products` makes it."""
    call, zero = layout.made.get(expr), 0
    if isinstance(call, relax.Call) and call.op.name == "relax.subtract" and isinstance(call.args[1], GenericConst):
        zero, call = int(constant_array(call.args[1])), layout.made.get(call.args[0])
    if not isinstance(call, relax.Call) or call.op.name != "relax.astype":
        return None
    return (call.args[0], zero) if str(call.args[0].ty.dtype) in ("uint8", "int8") else None


def pool2d(layout: Layout, call: Any) -> Blocked | None:
    data, attrs = call.args[0], call.attrs
    if not layout.is_blocked(data) or attrs.layout != "NCHW":
        return None
    tensor, template = layout.pooled(data)
    window: dict[str, Any] = {
        name: [int(v) for v in getattr(attrs, name)] for name in ("strides", "dilation", "padding")
    }
    window |= {"kernel": [int(v) for v in attrs.pool_size], "size": [int(d) for d in call.ty.shape][2:]}
    scale = []
    if str(call.op.name).endswith("avg_pool2d"):
        counts = template.module.counts(tensor.shape[2:], **window, count_padding=bool(attrs.count_include_pad))
        if (found := layout.integers(data)) is not None:
            tensor, window["step"], window["zero"] = found
        of_integers = "int" in str(tensor.expr.ty.dtype)
        scale = [relax.const(counts if of_integers else 1 / counts, "float32")]
    return Blocked(layout.emit_anchor(template, layout.rows(tensor), *scale, **window), tensor.channels)


def resized(layout: Layout, call: Any) -> Blocked | None:
    """Of H and W alone, whose tables stay as they are."""
    how = resample_of(layout.kernels, call)
    if how is None or any(axis.axis not in (2, 3) for axis in how.axes):
        return None
    data, tables = data_of(call)
    if not layout.is_blocked(data):
        return None
    tensor = layout.blocked[data]
    return Blocked(emit_resample(layout.builder, how, layout.rows(tensor), tables), tensor.channels)


def concat(layout: Layout, call: Any) -> Blocked | None:
    """Of channels by `move_channels`; along another axis as it is."""
    fields = call.args[0].fields if isinstance(call.args[0], relax.Tuple) else []
    axis = int(call.attrs.axis) % max(1, len(call.ty.shape))
    dtype = str(call.ty.dtype)
    known = dtype in ("float32", "float16", "bfloat16", "uint8", "int8") and all(
        isinstance(f, relax.Var) for f in fields
    )
    if len(call.ty.shape) != 4 or not known:
        return None
    if not any(map(layout.is_blocked, fields)):
        return None
    if axis == 1:
        counts = [layout.blocked[f].channels if layout.is_blocked(f) else int(f.ty.shape[1]) for f in fields]
        widths = [layout.lanes_of(count, dtype) for count in counts]
        template, lanes = layout.templates["move_channels"].module, layout.lanes_of(sum(counts), dtype)
        if template.grain(widths, [0], counts, lanes) == 1:
            return None
        if int(call.ty.shape[0]) == 1 and all(count % layout.lanes == 0 for count in counts):
            return _concatenated(layout, [layout.block(f) for f in fields])
        return _moved(layout, [layout.block(f) for f in fields], [0] * len(fields), counts)
    tensors = [layout.block(f) for f in fields]
    together = relax.op.concat([layout.rows(t) for t in tensors], axis=axis)
    return Blocked(layout.builder.emit(together), tensors[0].channels)


def _concatenated(layout: Layout, tensors: list[Blocked]) -> Blocked:
    """Whole blocks one after the other."""
    together = layout.emit_concatenation([layout.rows(t) for t in tensors], axis=1)
    return Blocked(together, sum(t.channels for t in tensors))


def _moved(layout: Layout, tensors: list[Blocked], starts: list[int], counts: list[int]) -> Blocked | None:
    """`counts` channels of each tensor, from its `starts` on; None where single lanes would have to move."""
    dtype = str(tensors[0].expr.ty.dtype)
    template, lanes = layout.templates["move_channels"], layout.lanes_of(sum(counts), dtype)
    if template.module.grain([t.lanes for t in tensors], starts, counts, lanes) == 1:
        return None
    options = {"starts": starts, "counts": counts, "lanes": lanes}
    return Blocked(layout.emit_anchor(template, *map(layout.rows, tensors), **options), sum(counts))


def split(layout: Layout, call: Any) -> list[Blocked] | None:
    """Slices of channels, rows or columns, all of them blocked or none."""
    data, axis = call.args[0], int(call.attrs.axis)
    if not layout.is_blocked(data):
        return None
    tensor, axis = layout.blocked[data], axis % 4
    sizes = [int(field.shape[axis]) for field in call.ty.fields]
    ends = list(accumulate(sizes))
    slices = [_slice(layout, tensor, {axis: (end - size, end, 1)}) for end, size in zip(ends, sizes, strict=True)]
    found = [s for s in slices if s is not None]
    return found if len(found) == len(slices) else None


def strided_slice(layout: Layout, call: Any) -> Blocked | None:
    """Of whole groups of lanes, and of any rows and columns; the bounds are constants as ONNX and numpy take them."""
    if not layout.is_blocked(call.args[0]):
        return None
    tensor = layout.blocked[call.args[0]]
    numbers = [_integers(argument) for argument in call.args[1:]]
    if any(n is None for n in numbers):
        return None
    axes, begins, ends, *strides = (n for n in numbers if n is not None)
    bounds = {}
    for axis, begin, end, step in zip(axes, begins, ends, strides[0] if strides else [1] * len(axes), strict=True):
        size = tensor.shape[axis % 4]
        bounds[axis % 4] = slice(begin, end, step).indices(size)
    return _slice(layout, tensor, bounds)


def _integers(expr: Any) -> list[int] | None:
    fields = getattr(expr, "fields", None)
    if fields is None or not all(isinstance(f, tirx.IntImm) for f in fields):
        return None
    return [int(f) for f in fields]


def _slice(layout: Layout, tensor: Blocked, bounds: dict[int, tuple[int, int, int]]) -> Blocked | None:
    """Elements begin, begin + step, .. before end of each axis in `bounds`, whose numbers lie inside."""
    channels = bounds.pop(1, (0, tensor.channels, 1))
    if any(len(range(*bound)) == 0 for bound in (channels, *bounds.values())) or channels[2] != 1:
        return None
    if channels != (0, tensor.channels, 1):
        moved = _moved(layout, [tensor], [channels[0]], [channels[1] - channels[0]])
        if moved is None:
            return None
        tensor = moved
    if not bounds:
        return tensor
    axes, places = list(bounds), list(bounds.values())

    def sliced(x: te.Tensor) -> te.Tensor:
        shape = list(x.shape)
        for axis, place in zip(axes, places, strict=True):
            shape[axis] = len(range(*place))

        def element(*at: Any) -> Any:
            index = list(at)
            for axis, (begin, _, step) in zip(axes, places, strict=True):
                index[axis] = begin + at[axis] * step
            return x[tuple(index)]

        return te.compute(shape, element, name="strided_slice", tag=topi.tag.INJECTIVE)

    return Blocked(
        layout.builder.emit_te(sliced, layout.rows(tensor), primfunc_name_hint="strided_slice"), tensor.channels
    )


def pad(layout: Layout, call: Any) -> Blocked | None:
    """Around H and W: each element of the border is a constant, or an element of the tensor."""
    data, attrs = call.args[0], call.attrs
    widths = [int(n) for n in attrs.pad_width]
    if not layout.is_blocked(data) or any(widths[:4]):
        return None
    mode, value = str(attrs.pad_mode), float(attrs.pad_value)

    if mode not in ("constant", "reflect", "replicate"):
        return None
    tensor = layout.blocked[data]
    (top, bottom), (left, right) = widths[4:6], widths[6:]
    padded = partial(bordered, before=[0, 0, top, left, 0], after=[0, 0, bottom, right, 0], mode=mode, value=value)
    return Blocked(layout.builder.emit_te(padded, layout.rows(tensor), primfunc_name_hint="pad"), tensor.channels)


def take(layout: Layout, call: Any) -> Blocked | None:
    """Of bytes from a table; see `nncc.passes.tabulate`."""
    q = looked_up_bytes(layout.made, call)
    if q is None or not layout.is_blocked(q):
        return None
    tensor = layout.blocked[q]
    return Blocked(
        layout.emit_anchor(layout.templates["table"], tensor.expr, call.args[0]), tensor.channels, tensor.size
    )


RULES = {
    "relax.take": take,
    "relax.nn.pad": pad,
    "relax.concat": concat,
    "relax.split": split,
    "relax.strided_slice": strided_slice,
    "relax.call_tir": resized,
    "relax.nn.conv2d_transpose": conv2d_transpose,
    "relax.nn.max_pool2d": pool2d,
    "relax.nn.avg_pool2d": pool2d,
}
