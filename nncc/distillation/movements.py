"""Movements and reductions as torch computes them: each function takes the ONNX node and its operands."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from nncc.distillation.layers import unsupported_form
from nncc.errors import ModelError
from nncc.passes.rewriting import attribute, constant

if TYPE_CHECKING:
    import onnx_ir
    from torch import Tensor

__all__ = ["MOVEMENTS", "torch_dtype"]

_DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


def torch_dtype(number: int, node: onnx_ir.Node) -> torch.dtype:
    """Torch's dtype of an ONNX one. Raises ModelError."""
    if number not in _DTYPES:
        raise unsupported_form(node, f"to the data type {number}")
    return _DTYPES[number]


def _numbers(node: onnx_ir.Node, name: str, operand: Tensor | None) -> list[int] | None:
    """Integers that are an operand since some opset, and were an attribute before."""
    return attribute(node, name) if operand is None else [int(n) for n in operand.reshape(-1).tolist()]


def _reshape(node: onnx_ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = [int(size) for size in shape.tolist()]
    if not attribute(node, "allowzero", 0):
        sizes = [x.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    return torch.reshape(x, sizes)


def _transpose(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return x.permute(attribute(node, "perm", list(range(x.ndim))[::-1]))


def _flatten(node: onnx_ir.Node, x: Tensor) -> Tensor:
    axis = attribute(node, "axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(prod(x.shape[:axis]), -1)


def _concat(node: onnx_ir.Node, *operands: Tensor) -> Tensor:
    return torch.cat(operands, attribute(node, "axis"))


def _split(node: onnx_ir.Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, given = attribute(node, "axis", 0), _numbers(node, "split", sizes)
    if given is None:
        step = -(-x.shape[axis] // len(node.outputs))
        return torch.split(x, step, axis)
    return torch.split(x, given, axis)


def _slice(
    node: onnx_ir.Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first, last = _numbers(node, "starts", starts) or [], _numbers(node, "ends", ends) or []
    along = _numbers(node, "axes", axes) or list(range(len(first)))
    by = _numbers(node, "steps", steps) or [1] * len(first)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        found = range(x.shape[axis])[start:end:step]
        if step == 1:
            x = x.narrow(axis, found.start if len(found) else 0, len(found))
        else:
            x = x.index_select(axis, torch.tensor(list(found), dtype=torch.int64))
    return x


def _gather(node: onnx_ir.Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = attribute(node, "axis", 0) % x.ndim
    flat = indices.reshape(-1).to(torch.int64)
    found = x.index_select(axis, torch.where(flat < 0, flat + x.shape[axis], flat))
    return torch.reshape(found, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


def _squeeze(node: onnx_ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _numbers(node, "axes", axes)
    return x.squeeze() if along is None else x.squeeze(tuple(along))


def _unsqueeze(node: onnx_ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    along = _numbers(node, "axes", axes) or []
    rank = x.ndim + len(along)
    for axis in sorted(axis % rank for axis in along):
        x = x.unsqueeze(axis)
    return x


def _expand(node: onnx_ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, [int(size) for size in shape.tolist()]))


def _tile(node: onnx_ir.Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat([int(n) for n in repeats.tolist()])


def _pad(
    node: onnx_ir.Node,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    given, along = _numbers(node, "pads", pads) or [], _numbers(node, "axes", axes)
    along = list(range(x.ndim)) if along is None else [axis % x.ndim for axis in along]
    sizes = [(0, 0)] * x.ndim
    for at, axis in enumerate(along):
        sizes[axis] = (given[at], given[at + len(along)])
    mode = attribute(node, "mode", "constant")
    if mode == "constant":
        fill = attribute(node, "value", 0.0) if value is None else value.item()
        return F.pad(x, [size for pair in reversed(sizes) for size in pair], value=fill)
    if mode not in ("reflect", "edge") or any(size != (0, 0) for size in sizes[:2]) or x.ndim < 3:
        raise unsupported_form(node, f"by {mode}")
    flat = [size for pair in reversed(sizes[2:]) for size in pair]
    return F.pad(x, flat, mode="replicate" if mode == "edge" else "reflect")


def _shape(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return torch.tensor(list(x.shape)[slice(attribute(node, "start", 0), attribute(node, "end"))], dtype=torch.int64)


def _constant(node: onnx_ir.Node) -> Tensor:
    """What folding leaves for a graph output: all other constants are initializers."""
    array = constant(node.outputs[0])
    if array is None:
        raise unsupported_form(node, "of text")
    return torch.from_numpy(array.copy())


def _constant_of_shape(node: onnx_ir.Node, shape: Tensor) -> Tensor:
    value = attribute(node, "value")
    filled = torch.zeros(1) if value is None else torch.from_numpy(value.numpy().reshape(1).copy())
    return filled.expand([int(size) for size in shape.tolist()])


def _cast(node: onnx_ir.Node, x: Tensor) -> Tensor:
    return x.to(torch_dtype(int(attribute(node, "to")), node))


def _range(node: onnx_ir.Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _depth_to_space(node: onnx_ir.Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = attribute(node, "blocksize")
    if attribute(node, "mode", "DCR") == "DCR":
        return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)
    return F.pixel_shuffle(x, b)


def _space_to_depth(node: onnx_ir.Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = attribute(node, "blocksize")
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def reduce(node: onnx_ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        along = _numbers(node, "axes", axes)
        if not along and attribute(node, "noop_with_empty_axes", 0):
            return x
        dims = tuple(along or range(x.ndim))
        return function(x, dims, bool(attribute(node, "keepdims", 1)))

    return reduce


def _einsum(node: onnx_ir.Node, *operands: Tensor) -> Tensor:
    try:
        return torch.einsum(attribute(node, "equation"), *operands)
    except RuntimeError as error:
        raise ModelError(f"`{node.name}`: {error}") from error


MOVEMENTS: dict[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Einsum": _einsum,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Pad": _pad,
    "Range": _range,
    "ReduceL2": _reduction(lambda x, dims, keep: torch.sqrt((x * x).sum(dims, keep))),
    "ReduceMax": _reduction(lambda x, dims, keep: x.amax(dims, keep)),
    "ReduceMean": _reduction(lambda x, dims, keep: x.mean(dims, keep)),
    "ReduceMin": _reduction(lambda x, dims, keep: x.amin(dims, keep)),
    "ReduceSum": _reduction(lambda x, dims, keep: x.sum(dims, keep)),
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Operators that move elements, or reduce along axes. All but Split have one result."""
