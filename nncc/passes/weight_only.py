"""Products of real numbers by quantized constants keep the constants small: kernels decode them in registers.

    x @ (s (q - z)) = (x @ q) s - sum_k(x) s z       one s and z for each column: z = 0, or q - z fits a byte
    x @ W, W[k, n] = s[k/g, n] q[k, n] - s[k/g, n] z[k/g, n]     one for each column and group of g rows

q is stored in 8 bits, or in 4 where all of them fit. Weights of which few are used, and those of convolutions, become
float32 as they are: there each is used many times for each time that it is loaded. So do those that GPUs are to
multiply as halves.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.passes.context import Context
from nncc.passes.pack_matmul import panel_lanes
from nncc.passes.rewriter import Rewriter

__all__ = ["Codes", "weight_only"]

LEAST = 1 << 12
"""Weights of a product below which their size does not matter."""


class Codes:
    """W[k, n] = q[k, n] scale[k // group, n] + offset[k // group, n]; `q` is int32 [K, N]."""

    def __init__(self, q: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> None:
        """`scale` and `zero` are [1 or K/group, N]."""
        self.group = q.shape[0] // scale.shape[0]
        shift = np.zeros_like(zero)
        if q.min() < -128 or q.max() > 127:  # of uint8
            shift = np.full_like(zero, 128)
        self.bits = 8
        if q.shape[0] % 2 == 0 and q.max() - q.min() < 16 and len({*np.unique(q)}) > 1:
            self.bits, shift = 4, np.full_like(zero, int(q.min()))
        self.q = q - shift[:1]
        self.scale = scale.astype(np.float32)
        self.zero = zero - shift


def weight_only(module: IRModule, context: Context) -> IRModule:
    """Rewrite products with dequantized constants whose other side is not quantized; see the module's equations."""
    lanes = max(4, context.target.hardware.vector_bits // 32)
    on_gpu = bool(context.target.hardware.multiprocessors)
    if on_gpu and context.precision in ("float16", "bfloat16"):
        return module  # whose tensor cores take halves, which the weights become

    def matmul(rewriter: Rewriter, call: Any) -> Any:
        found = _codes(call.args[1], rewriter.made)
        x = rewriter.value(call.args[0])
        if found is None or found.q.size < LEAST or str(x.ty.dtype) != "float32" or len(static_shape(x)) < 2:
            return None
        if on_gpu:
            return coded_on_gpu(rewriter, x, found)
        depth, columns = found.q.shape
        width = panel_lanes(columns, lanes)
        template = context.templates["matmul"]
        coded = replace(template, compute=template.module.compute_coded)
        options = {"columns": columns, "lanes": width, "bits": found.bits}
        weight = relax.const(template.module.codes(found.q, width, found.bits))
        if found.group == depth and not found.zero.any():
            product = rewriter.builder.emit(rewriter.emit_anchor(coded, x, weight, group=depth, **options))
            return relax.op.multiply(product, relax.const(np.broadcast_to(found.scale[0], columns).copy()))
        tables = [found.scale, -found.scale * found.zero.astype(np.float32)]
        packed = [relax.const(_spread(table, columns, width)) for table in tables[: 1 + found.zero.any()]]
        return rewriter.emit_anchor(coded, x, weight, *packed, group=found.group, **options)

    def coded_on_gpu(rewriter: Rewriter, x: Any, found: Codes) -> Any:
        depth, columns = found.q.shape
        template = context.templates["cuda_coded_matmul"]
        options = {"bits": found.bits, "group": found.group, "tf32": context.precision == "tf32"}
        weight = relax.const(template.module.codes(found.q, found.bits))
        if found.group == depth and not found.zero.any():
            product = rewriter.builder.emit(rewriter.emit_anchor(template, x, weight, **options))
            return relax.op.multiply(product, relax.const(np.broadcast_to(found.scale[0], columns).copy()))
        tables = [found.scale, -found.scale * found.zero.astype(np.float32)][: 1 + found.zero.any()]
        spread = [np.broadcast_to(table, (len(table), columns)).astype(np.float32) for table in tables]
        return rewriter.emit_anchor(template, x, weight, *(relax.const(t.copy()) for t in spread), **options)

    return Rewriter({"relax.matmul": matmul}).rewrite(module)


def _spread(table: np.ndarray, columns: int, lanes: int) -> np.ndarray:
    """[G, 1 or N] -> [ceil(N/l), G, l]."""
    blocks = -(-columns // lanes)
    whole = np.pad(np.broadcast_to(table, (len(table), columns)), ((0, 0), (0, blocks * lanes - columns)))
    return np.ascontiguousarray(whole.reshape(len(table), blocks, lanes).transpose(1, 0, 2).astype(np.float32))


def _codes(expr: Any, made: dict[Any, Any]) -> Codes | None:
    """What a constant [K, N] is made of, if it is dequantized integers of 8 bits or fewer."""
    call = made.get(expr, expr)
    if not isinstance(call, relax.Call) or len(static_shape(call)) != 2:
        return None
    inner = _plain(expr, made)
    return None if inner is None else _made(*inner)


def _made(q: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> Codes | None:
    """With parameters for each element, found to be the same along groups of rows."""
    groups = _groups(scale, zero)
    if groups is None:
        return None
    return Codes(q, scale[::groups], zero[::groups])


def _groups(scale: np.ndarray, zero: np.ndarray) -> int | None:
    """The largest group of rows, a divisor of their number, that has one scale and one zero point in each column."""
    depth = scale.shape[0]
    changes = (np.diff(scale, axis=0) != 0).any(axis=1) | (np.diff(zero, axis=0) != 0).any(axis=1)
    places = np.flatnonzero(changes) + 1
    group = int(np.gcd.reduce([depth, *places.tolist()]))
    return group if group >= 8 or group == depth else None


def _plain(expr: Any, made: dict[Any, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """q as int32, and scale and zero point for each of its elements, laid out as `expr` is."""
    call = made.get(expr, expr)
    name = getattr(call.op, "name", "") if isinstance(call, relax.Call) else ""
    if name in ("relax.permute_dims", "relax.reshape"):
        inner = _plain(call.args[0], made)
        if inner is None:
            return None
        if name == "relax.reshape":
            one, two, three = (array.reshape(static_shape(call)) for array in inner)
        else:
            axes = None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
            one, two, three = (np.transpose(array, axes) for array in inner)
        return one, two, three
    if name != "relax.dequantize" or str(call.ty.dtype) != "float32":
        return None
    if not all(isinstance(part, GenericConst) for part in call.args):
        return None
    integers, *parameters = (constant_array(part) for part in call.args)
    if integers.dtype not in (np.int8, np.uint8) or integers.ndim != 2:
        return None
    row = [-1 if axis == int(call.attrs.axis) % 2 else 1 for axis in range(2)]
    scales, zeros = (
        np.broadcast_to(part.reshape(row if part.size > 1 else (1, 1)), integers.shape) for part in parameters
    )
    return integers.astype(np.int32), scales, zeros.astype(np.int32)
