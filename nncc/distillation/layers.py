"""Layers as torch computes them: each function takes the ONNX node and its operands (None for a missing one).

What torch has no form for raises ModelError. Sizes of windows, pads and axes mean what ONNX says they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from nncc.errors import ModelError
from nncc.passes.rewriting import attribute

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

__all__ = [
    "average_pool",
    "batch_normalization",
    "conv",
    "conv_transpose",
    "gemm",
    "global_average_pool",
    "global_max_pool",
    "instance_normalization",
    "layer_normalization",
    "log_softmax",
    "matmul",
    "max_pool",
    "resize",
    "softmax",
    "unsupported_form",
]

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def unsupported_form(node: onnx_ir.Node, what: str) -> ModelError:
    """The error that a node has a form which torch lacks."""
    return ModelError(
        f"`{node.name or node.outputs[0].name}`: {node.op_type} {what} cannot be trained", "cut the model before it"
    )


def _window(
    node: onnx_ir.Node, sizes: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, pads before and pads after, for each axis of a window that slides over `sizes`."""
    rank = len(kernel)
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    auto = attribute(node, "auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True):
            total = max(0, (-(-size // s) - 1) * s + (k - 1) * d + 1 - size)
            less, more = total // 2, total - total // 2
            before.append(less if auto == "SAME_UPPER" else more)
            after.append(more if auto == "SAME_UPPER" else less)
        return strides, dilations, before, after
    pads = attribute(node, "pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
    return strides, dilations, pads[:rank], pads[rank:]


def _padded(x: Tensor, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Tensor:
    flat = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return F.pad(x, flat, value=value)


def conv(node: onnx_ir.Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    strides, dilations, before, after = _window(node, x.shape[2:], w.shape[2:])
    if x.ndim == 4:  # twice as fast on processors, depthwise ones above all
        x, w = (each.contiguous(memory_format=torch.channels_last) for each in (x, w))
    if before != after:
        x, before = _padded(x, before, after), [0] * len(before)
    return _CONV[w.ndim - 2](x, w, b, strides, before, dilations, attribute(node, "group", 1))


def conv_transpose(node: onnx_ir.Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    rank, kernel = w.ndim - 2, w.shape[2:]
    strides, dilations = attribute(node, "strides", [1] * rank), attribute(node, "dilations", [1] * rank)
    more, auto = attribute(node, "output_padding", [0] * rank), attribute(node, "auto_pad", "NOTSET")
    whole = [
        (size - 1) * s + (k - 1) * d + 1 + m
        for size, s, k, d, m in zip(x.shape[2:], strides, kernel, dilations, more, strict=True)
    ]
    wanted = attribute(node, "output_shape")
    if wanted is not None or auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = wanted or [size * s for size, s in zip(x.shape[2:], strides, strict=True)]
        cut = [max(0, a - b) for a, b in zip(whole, sizes, strict=True)]
        before = [c // 2 if auto == "SAME_UPPER" else c - c // 2 for c in cut]
        after = [c - b for c, b in zip(cut, before, strict=True)]
    else:
        pads = attribute(node, "pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
        before, after = pads[:rank], pads[rank:]
    y = _CONV_TRANSPOSE[rank](x, w, b, strides, 0, more, attribute(node, "group", 1), dilations)
    return _padded(y, [-size for size in before], [-size for size in after])


def gemm(node: onnx_ir.Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    a = a.T if attribute(node, "transA", 0) else a
    b = b.T if attribute(node, "transB", 0) else b
    y = a @ b if alpha == 1.0 else alpha * (a @ b)
    return y if c is None else y + (c if beta == 1.0 else beta * c)


def matmul(node: onnx_ir.Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


def max_pool(node: onnx_ir.Node, x: Tensor) -> Tensor:
    kernel = attribute(node, "kernel_shape")
    strides, dilations, before, after = _window(node, x.shape[2:], kernel)
    if before != after or any(2 * pad > k for pad, k in zip(before, kernel, strict=True)):
        x, before = _padded(x, before, after, -torch.inf), [0] * len(kernel)
    return _MAX_POOL[len(kernel)](x, kernel, strides, before, dilations, bool(attribute(node, "ceil_mode", 0)))


def average_pool(node: onnx_ir.Node, x: Tensor) -> Tensor:
    kernel = attribute(node, "kernel_shape")
    strides, dilations, before, after = _window(node, x.shape[2:], kernel)
    if any(d != 1 for d in dilations):
        raise unsupported_form(node, "with dilations")
    up, counted = bool(attribute(node, "ceil_mode", 0)), bool(attribute(node, "count_include_pad", 0))
    pool = _AVERAGE_POOL[len(kernel)]
    if before == after and all(2 * pad <= k for pad, k in zip(before, kernel, strict=True)):
        return pool(x, kernel, strides, before, up, counted)
    mean = pool(_padded(x, before, after), kernel, strides, 0, up)
    if counted:
        return mean
    return mean / pool(_padded(torch.ones_like(x[:1, :1]), before, after), kernel, strides, 0, up)


def global_average_pool(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def batch_normalization(
    node: onnx_ir.Node, x: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """As in use: the statistics are constants, and stay what they are."""
    if attribute(node, "training_mode", 0):
        raise unsupported_form(node, "in training mode")
    return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, attribute(node, "epsilon", 1e-5))


def layer_normalization(node: onnx_ir.Node, x: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
    axis, epsilon = attribute(node, "axis", -1) % x.ndim, attribute(node, "epsilon", 1e-5)
    shape = x.shape[axis:]
    if scale.shape == shape and (shift is None or shift.shape == shape):
        return F.layer_norm(x, shape, scale, shift, epsilon)
    y = F.layer_norm(x, shape, None, None, epsilon) * scale
    return y if shift is None else y + shift


def instance_normalization(node: onnx_ir.Node, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.instance_norm(x, weight=scale, bias=shift, eps=attribute(node, "epsilon", 1e-5))


def softmax(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return torch.softmax(x, attribute(node, "axis", -1))


def log_softmax(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return torch.log_softmax(x, attribute(node, "axis", -1))


def resize(
    node: onnx_ir.Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Of the axes behind the first two; by the rules for coordinates that torch has."""
    mode, where = attribute(node, "mode", "nearest"), attribute(node, "coordinate_transformation_mode", "half_pixel")
    if attribute(node, "axes") is not None or where == "tf_crop_and_resize" or attribute(node, "antialias", 0):
        raise unsupported_form(node, "with `axes`, `antialias` or a region")
    if sizes is not None and sizes.numel():
        if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
            raise unsupported_form(node, "that keeps the aspect ratio")
        shape = [int(size) for size in sizes.tolist()]
    elif scales is not None and scales.numel():
        shape = [int(size * scale) for size, scale in zip(x.shape, scales.tolist(), strict=True)]
    else:
        raise unsupported_form(node, "without sizes and scales")
    shape[0] = x.shape[0] if shape[0] == 1 else shape[0]  # of a graph whose batch was fixed to 1
    if tuple(shape[:2]) != tuple(x.shape[:2]) or prod(shape) == 0:
        raise unsupported_form(node, "of the first two axes")
    rank = x.ndim - 2
    if mode == "nearest":
        rule = (where, attribute(node, "nearest_mode", "round_prefer_floor"))
        whole = all(new % old == 0 for new, old in zip(shape[2:], x.shape[2:], strict=True))
        if rule == ("asymmetric", "floor") or (whole and where == "half_pixel"):
            return F.interpolate(x, shape[2:], mode="nearest")
        raise unsupported_form(node, f"by {rule[0]} and {rule[1]}")
    kind = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear"}.get((mode, rank))
    if kind is None or where not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise unsupported_form(node, f"by {mode} and {where}")
    return F.interpolate(x, shape[2:], mode=kind, align_corners=where == "align_corners")
