"""Matrix products go to the panel template; constant right-hand sides are packed here.

x[.., m, k] @ w[k, n]  ->  matmul(x, P)        P[p, k, i] = w[k, p l + i], zeros where n is missing

Integers are packed in words (`nncc.kernels.dots`). Constants of which blocks are zero may go to a template that skips
them, where that is predicted to be faster (`skipped`).
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from nncc import scheduling
from nncc.compat import GenericConst, IRModule, constant_array, relax, static_shape
from nncc.kernels.dots import Dot, dot_of
from nncc.kernels.skipping import WORD, Lists, best_lists
from nncc.passes.context import Context
from nncc.passes.relax_grids import swaps_last_axes
from nncc.passes.rewriter import Rewriter
from nncc.target import Hardware

__all__ = ["pack_matmul"]

_EFFICIENCY = 0.9
"""Of what `tile_cost` says, that dense products reach."""
_WORTH = 0.9
"""Zeros are skipped where that takes less than so much of the time: the prediction is no better."""


def pack_matmul(module: IRModule, context: Context) -> IRModule:
    """Rewrite ``relax.matmul`` calls of float32, and those of integers; see the module's equation."""
    lanes = max(4, context.target.hardware.vector_bits // 32)
    dot = dot_of(context.target.hardware)

    def matmul(rewriter: Rewriter, call: Any) -> Any:
        x, weight = (rewriter.value(a) for a in call.args)
        left, right = static_shape(x), static_shape(weight)
        if str(call.ty.dtype) == "int32" and isinstance(weight, GenericConst) and str(weight.ty.dtype) == "int8":
            return integers(rewriter, x, constant_array(weight))
        if str(call.ty.dtype) == "int32" and str(weight.ty.dtype) in ("uint8", "int8"):
            width, transposed = panel_lanes(right[-1], lanes), rewriter.made.get(call.args[1])
            options = {"columns": right[-1], "lanes": width, "packed": False, "dot": dot.of_activations()}
            if swaps_last_axes(transposed):  # words of it lie side by side
                weight, options["transposed"] = rewriter.value(transposed.args[0]), True
            return rewriter.emit_anchor(context.templates["matmul"], x, weight, **options)
        if str(call.ty.dtype) != "float32" or str(weight.ty.dtype) != "float32" or len(left) < 2 or len(right) < 2:
            return None
        if len(right) > 2 and (right[:-2] != left[:-2]):
            return None
        columns = right[-1]
        ragged = columns in context.open_sizes
        width = lanes if ragged else panel_lanes(columns, lanes)
        template = context.templates["matmul"]
        constant = isinstance(weight, GenericConst) and len(right) == 2
        if constant:
            matrix = constant_array(weight)
            if lists := skipped(matrix, prod(left[:-1]), left[-2], width, context.target.hardware):
                return sparse(rewriter, x, matrix, width, lists)
            weight = relax.const(pack_panels(matrix, width), "float32")
        options = {"ragged": True} if ragged else {}
        return rewriter.emit_anchor(template, x, weight, columns=columns, lanes=width, packed=constant, **options)

    def integers(rewriter: Rewriter, x: Any, matrix: np.ndarray) -> Any:
        columns = matrix.shape[-1]
        width = panel_lanes(columns, lanes)
        rows = static_shape(x)[:-1]
        if lists := skipped(matrix, prod(rows), rows[-1], width, context.target.hardware, dot):
            return shifted(x, matrix, sparse(rewriter, x, matrix, width, lists, dot))
        depth = -(-matrix.shape[0] // dot.size) * dot.size
        whole = np.pad(matrix, ((0, depth - matrix.shape[0]), (0, 0)))
        packed = relax.const(dot.words(pack_panels(whole, width), 1), dot.weight)
        product = rewriter.emit_anchor(
            context.templates["matmul"], x, packed, columns=columns, lanes=width, packed=True, dot=dot
        )
        return shifted(x, matrix, product)

    def sparse(rewriter: Rewriter, x: Any, matrix: np.ndarray, width: int, lists: Lists, dot: Dot | None = None) -> Any:
        template = context.templates["sparse_matmul"]
        packed, places = template.module.pack(matrix, width, lists.vectors, dot)
        tables = relax.const(packed, str(packed.dtype)), relax.const(places, "int32")
        return rewriter.emit_anchor(template, x, *tables, dot=dot)

    def shifted(x: Any, matrix: np.ndarray, product: Any) -> Any:
        shift = scheduling.shift(str(x.ty.dtype), dot)
        if not shift:
            return product
        offset = -shift * matrix.astype(np.int32).sum(axis=0)
        return relax.op.add(product, relax.const(offset, "int32"))

    return Rewriter({"relax.matmul": matmul}).rewrite(module)


def skipped(
    matrix: np.ndarray, rows: int, tiled: int, lanes: int, hardware: Hardware, dot: Dot | None = None
) -> Lists | None:
    """How the zeros of a constant are skipped; None where the dense product is predicted to be at least as fast.

    `rows` are multiplied in all, `tiled` of them lie in tiles. Both products take what their tiles cost, or as long as
    their weights come from memory.
    """
    depth, columns = matrix.shape
    lists = lists_of_panels(matrix, tiled, lanes, hardware, dot)
    if lists is None or rows == 0:
        return None
    tile, *_ = scheduling.register_tiles(tiled, columns // lanes, lanes, hardware, streamed=True, dot=dot)
    dense = scheduling.tile_cost(tile[0], tile[1], tiled, lanes, hardware) / _EFFICIENCY
    steps = rows * depth * columns / lanes / (1 if dot is None else dot.size)
    nbytes = depth * columns * (4 if dot is None else np.dtype(dot.weight).itemsize)
    fetching = nbytes / hardware.bytes_per_flop / (2 * lanes)
    faster = max(lists.cost * steps, lists.density * fetching) < _WORTH * max(dense * steps, fetching)
    return lists if faster else None


def lists_of_panels(
    matrix: np.ndarray, tiled: int, lanes: int, hardware: Hardware, dot: Dot | None = None
) -> Lists | None:
    """How the zeros of a constant are best skipped, in panels of `lanes` columns; None where that is no way."""
    depth, columns = matrix.shape
    if depth % WORD or columns % lanes or lanes < WORD:
        return None
    return best_lists(matrix.T[:, :, None, None], lanes, tiled, hardware, dot)


def panel_lanes(columns: int, lanes: int) -> int:
    """The widest panel that divides `columns`, down to a quarter of a vector; a full vector where none does."""
    for width in (lanes, lanes // 2, lanes // 4):
        if width >= 4 and columns % width == 0:
            return width
    while lanes // 2 >= columns:
        lanes //= 2
    return lanes


def pack_panels(weight: np.ndarray, lanes: int) -> np.ndarray:
    """[K, N] -> [ceil(N/l), K, l]."""
    depth, columns = weight.shape
    blocks = -(-columns // lanes)
    padded = np.pad(weight, ((0, 0), (0, blocks * lanes - columns)))
    return np.ascontiguousarray(padded.reshape(depth, blocks, lanes).transpose(1, 0, 2))
