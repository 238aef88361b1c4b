"""Products of two activations, as attention has them, on integers.

    sa (a - za) @ sb (b - zb)  =  sa sb (a @ b - za sum_k b - zb sum_k a + K za zb)

a and b are bytes of the signs that the processor multiplies, or the GPU, which takes either for a: of the other sign
they are moved by 128, with their zero point. The kernel packs b itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nncc.compat import relax, static_shape
from nncc.passes.integer_costs import slower
from nncc.passes.relax_grids import Grid, named

if TYPE_CHECKING:
    from nncc.passes.integer_products import Integers

__all__ = ["Stays", "product_of_activations"]

_BYTES = ("uint8", "int8")
_MOST_PRODUCTS = (2**31 - 1) // 255**2
"""Of two bytes, whose sum stays in int32 whatever they are."""


class Stays(Exception):
    """A product stays float32, for a reason."""


def product_of_activations(integers: Integers, call: Any) -> Any:
    """A ``relax.matmul`` of two dequantized tensors as one of integers. Raises Stays."""
    data, other = (integers.data(operand) for operand in call.args)
    left, right = (static_shape(operand) for operand in call.args)
    if min(len(left), len(right)) < 2 or (len(right) > 2 and left[:-2] != right[:-2]):
        raise Stays("its leading axes are broadcast")
    depth, columns = right[-2:]
    if depth > _MOST_PRODUCTS:
        raise Stays(f"sums of more than {_MOST_PRODUCTS} products of bytes may leave int32")
    if _begins_attention(integers):
        raise Stays("attention in float32 from its scores on is one kernel, which makes the scores too")
    if reason := slower(call, np.broadcast_to(np.int8(1), (depth, columns)), data.dtype, integers.context):
        raise Stays(reason)
    signs = integers.dot.data, integers.dot.weight
    if integers.context.target.hardware.multiprocessors:
        signs = data.dtype, "int8"
    elif integers.dot.name == "none":
        signs = data.dtype, other.dtype
    a, a_zero = _signed_as(integers, data, signs[0])
    b, b_zero = _signed_as(integers, other, signs[1])
    acc = integers.emit(relax.op.matmul(a, b, out_dtype="int32"))
    if a_zero:
        acc = integers.emit(relax.op.add(acc, _sums(integers, b, -2, -a_zero, depth * a_zero * b_zero)))
    if b_zero:
        acc = integers.emit(relax.op.add(acc, _sums(integers, a, -1, -b_zero, 0)))
    return integers.dequantize(acc, (data.scale * other.scale).astype(np.float32), -1)


def _begins_attention(integers: Integers) -> bool:
    """Whether the product that is being bound, scaled and masked, goes to a softmax, and that to a product, all of it
    in float32: then `nncc.passes.fuse_attention` makes one kernel of it."""
    value, after = integers.variable, False
    while len(integers.readers[value]) == 1:
        ((result, reader),) = integers.readers[value]
        if named(reader, "relax.nn.softmax"):
            after = True
        elif after and named(reader, "relax.matmul"):
            return bool(reader.args[0].same_as(value))
        elif not named(reader, "relax.reshape", *(() if after else ("relax.multiply", "relax.divide", "relax.add"))):
            return False
        value = result
    return False


def _signed_as(integers: Integers, grid: Grid, wanted: str) -> tuple[Any, int]:
    """The integers of a grid and their zero point; as bytes of the type `wanted`, if that is one of bytes."""
    q, zero = integers.value(grid.q), int(grid.zero[0])
    if wanted == grid.dtype or wanted not in _BYTES:
        return q, zero
    move = integers.fresh.get(q)
    if named(move, "relax.permute_dims"):  # which stays in front of the product: packing takes it on
        moved, zero = _signed_as(integers, replace(grid, q=move.args[0]), wanted)
        return integers.emit(relax.Call(move.op, [moved], move.attrs)), zero
    shift = 128 if wanted == "uint8" else -128
    wide = integers.emit(relax.op.astype(q, "int16"))
    moved = integers.emit(relax.op.add(wide, relax.const(np.int16(shift), "int16")))
    return integers.emit(relax.op.astype(moved, wanted)), zero + shift


def _sums(integers: Integers, q: Any, axis: int, factor: int, more: int) -> Any:
    """The sums of integers along an axis, which is kept, times `factor`, plus `more`."""
    move = integers.fresh.get(q)
    axes = [int(a) for a in move.attrs.axes] if named(move, "relax.permute_dims") else list(range(len(static_shape(q))))
    if named(move, "relax.permute_dims"):  # of what it moves, whose rows lie side by side
        q, axis = move.args[0], axes[axis]
    wide = integers.emit(relax.op.astype(q, "int32"))
    total = integers.emit(relax.op.sum(wide, axis=[axis], keepdims=True))
    kept = [a for a in axes if static_shape(total)[a] > 1]
    if kept == sorted(kept):  # axes of one have no order
        total = integers.emit(relax.op.reshape(total, [static_shape(total)[a] for a in axes]))
    else:
        total = integers.emit(relax.op.permute_dims(total, axes))
    scaled = integers.emit(relax.op.multiply(total, relax.const(np.int32(factor), "int32")))
    return integers.emit(relax.op.add(scaled, relax.const(np.int32(more), "int32"))) if more else scaled
