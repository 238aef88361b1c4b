"""Products of integers in other operators' clothes become standard ones.

DynamicQuantizeMatMul(A, B)    = MatMulIntegerToFloat(DynamicQuantizeLinear(A), B)
MatMulIntegerToFloat(A, B)     = float(MatMulInteger(A, B)) * (a_scale * b_scale) + bias
MatMulNBits(A, packed)         = MatMul(A, DQ(B; scales and zero points of blocks along K)) + bias
MatMulBnb4(A, packed)          = MatMul(A, codes[B] * scales of blocks)

MatMulInteger and ConvInteger give int32, which no QDQ form does exactly: they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nncc.passes.grids import insert_dequantize, insert_node
from nncc.passes.qoperators import MICROSOFT, Refusal, Site, rewrite_each
from nncc.passes.rewriting import Report, add_constant, constant

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["INTEGER_MATMULS", "integer_matmuls", "unpacked"]


def _plus(site: Site, real: onnx_ir.Value, at: int) -> onnx_ir.Value:
    if not site.has(at):
        return real
    return insert_node(site.node, "Add", [real, site.operand(at)], name=f"{site.name}/bias", dtype=real.dtype)


def _scaled(
    site: Site,
    a: onnx_ir.Value,
    a_scale: onnx_ir.Value,
    a_zero: onnx_ir.Value | None,
    b_at: tuple[int, int, int],
    bias: int,
) -> onnx_ir.Value:
    """float(MatMulInteger(a, B)) * (a_scale * b_scale) + bias; `b_at` are the places of B, its scale and zero point."""
    import onnx_ir

    node = site.node
    b, b_scale, b_zero = (site.operand(at) if at != b_at[2] or site.has(at) else None for at in b_at)
    sums = insert_node(
        node, "MatMulInteger", [a, b, a_zero, b_zero], name=f"{site.name}/sums", dtype=onnx_ir.DataType.INT32
    )
    real = insert_node(
        node, "Cast", [sums], name=f"{site.name}/real", dtype=a_scale.dtype, to=int(onnx_ir.DataType.FLOAT)
    )
    scale = insert_node(node, "Mul", [a_scale, b_scale], name=f"{site.name}/scale", dtype=a_scale.dtype)
    return _plus(site, insert_node(node, "Mul", [real, scale], name=site.name, dtype=a_scale.dtype), bias)


def _to_float(site: Site) -> onnx_ir.Value:
    a_scale = site.operand(2)
    if a_scale.shape is None or any(size != 1 for size in a_scale.shape):
        raise Refusal("its first operand has more than one scale")
    return _scaled(site, site.operand(0), a_scale, site.operand(4) if site.has(4) else None, (1, 3, 5), 6)


def _dynamic(site: Site) -> onnx_ir.Value:
    import onnx_ir

    node = site.node
    quantize = onnx_ir.node("DynamicQuantizeLinear", [site.operand(0)], num_outputs=3, name=f"{site.name}/quantize")
    kinds = (onnx_ir.DataType.UINT8, onnx_ir.DataType.FLOAT, onnx_ir.DataType.UINT8)
    for out, word, dtype in zip(quantize.outputs, ("integers", "scale", "zero_point"), kinds, strict=True):
        out.name, out.type = f"{site.name}/nncc_{word}", onnx_ir.TensorType(dtype)
    site.graph.insert_before(node, quantize)
    a, a_scale, a_zero = quantize.outputs
    return _scaled(site, a, a_scale, a_zero, (1, 2, 3), 4)


def unpacked(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first `count` numbers of `bits` (2, 4 or 8) in each row of bytes, lowest bits first, as uint8."""
    import numpy as np

    rows = packed.reshape(packed.shape[0], -1)
    parts = [(rows >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(len(rows), -1)[:, :count]


def _n_bits(site: Site) -> onnx_ir.Value:
    import numpy as np

    node = site.node
    k, n, block = (int(site.number(name)) for name in ("K", "N", "block_size"))
    bits = int(site.number("bits", 4))
    packed, scales = constant(site.operand(1)), constant(site.operand(2))
    if packed is None or packed.dtype != np.uint8 or scales is None or bits not in (2, 4, 8):
        raise Refusal(f"its weights are computed at run time, or of {bits} bits")
    if min(k, n, block) < 1 or block % 8:
        raise Refusal(f"it has K {k}, N {n} and blocks of {block}")
    blocks = -(-k // block)
    if packed.size != n * blocks * block * bits // 8 or scales.size != n * blocks:
        raise Refusal(f"its weights or scales do not fit K {k}, N {n} and blocks of {block}")
    weight = unpacked(packed.reshape(n, -1), bits, k)
    scales = scales.reshape(n, blocks)
    zeros = np.full((n, blocks), 2 ** (bits - 1), np.uint8)
    if site.has(3):
        given = constant(site.operand(3))
        if given is None or given.size != n * (-(-blocks * bits // 8) if given.dtype == np.uint8 else blocks):
            raise Refusal("its zero points are computed at run time, or not one for each block")
        zeros = unpacked(given.reshape(n, -1), bits, blocks) if given.dtype == np.uint8 else given.reshape(n, blocks)
    groups = np.arange(k) // block
    if site.has(4):
        if site.has(3):  # ONNX Runtime gives other numbers than its documentation says
            raise Refusal("it has both groups in an order of their own and zero points")
        found = constant(site.operand(4))
        if found is None or found.size < k or not ((found >= 0) & (found < blocks)).all():
            raise Refusal("its groups are computed at run time, or not among its blocks")
        groups = found.reshape(-1)[:k]
    if zeros.dtype != np.uint8 or site.has(4):  # no DequantizeLinear says this
        real = (weight.astype(scales.dtype) - zeros.astype(scales.dtype)[:, groups]) * scales[:, groups]
        matrix = add_constant(site.graph, np.ascontiguousarray(real.T), f"{site.name}/weight")
    else:
        dequantize = [_small(site, array.T, bits, word) for array, word in ((weight, "weight"), (zeros, "zero_point"))]
        scale = add_constant(site.graph, np.ascontiguousarray(scales.T), f"{site.name}/scale")
        matrix = insert_dequantize(
            node, dequantize[0], scale, dequantize[1], name=f"{site.name}/weight", axis=0, block_size=block
        )
    product = insert_node(node, "MatMul", [site.operand(0), matrix], name=site.name, dtype=site.operand(0).dtype)
    return _plus(site, product, 5)


def _small(site: Site, array: np.ndarray, bits: int, word: str) -> onnx_ir.Value:
    """An initializer of uint4, or of uint8 for other widths."""
    import ml_dtypes
    import numpy as np

    array = np.ascontiguousarray(array)
    return add_constant(site.graph, array.astype(ml_dtypes.uint4) if bits == 4 else array, f"{site.name}/{word}")


_CODES = (
    # fp4: a sign, and the numbers of two bits of exponent and one of mantissa over their largest, 12
    (0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4, 0, -1 / 192, -2 / 3, -1, -1 / 3, -1 / 2, -1 / 6, -1 / 4),
    # nf4: quantiles of a normal distribution over the largest
    (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)  # fmt: skip
"""By `quant_type`: what the 16 codes stand for, as bitsandbytes and ONNX Runtime have them."""


def _bnb4(site: Site) -> onnx_ir.Value:
    import numpy as np

    k, n, block, kind = (int(site.number(name)) for name in ("K", "N", "block_size", "quant_type"))
    packed, scales = constant(site.operand(1)), constant(site.operand(2))
    if packed is None or packed.dtype != np.uint8 or scales is None:
        raise Refusal("its weights are computed at run time")
    if min(k, n, block) < 1 or kind not in (0, 1):
        raise Refusal(f"it has K {k}, N {n}, blocks of {block} and numbers of kind {kind}")
    if not site.number("transB", 1):  # ONNX Runtime gives other numbers than its documentation says
        raise Refusal("its weights are transposed for training")
    count = k * n
    if packed.size != -(-count // 2) or scales.size != -(-count // block):
        raise Refusal(f"its weights or scales do not fit K {k}, N {n} and blocks of {block}")
    codes = np.stack([packed.reshape(-1) >> 4, packed.reshape(-1) & 15], axis=-1).reshape(-1)[:count]
    steps = scales.reshape(-1)[np.arange(count) // block]
    matrix = (np.array(_CODES[kind], np.float32)[codes] * steps.astype(np.float32)).reshape(n, k)
    weight = add_constant(site.graph, np.ascontiguousarray(matrix.T.astype(scales.dtype)), f"{site.name}/weight")
    return insert_node(site.node, "MatMul", [site.operand(0), weight], name=site.name, dtype=site.operand(0).dtype)


INTEGER_MATMULS: Mapping[tuple[str, str], Callable[[Site], onnx_ir.Value]] = {
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic,
    (MICROSOFT, "MatMulIntegerToFloat"): _to_float,
    (MICROSOFT, "MatMulBnb4"): _bnb4,
    (MICROSOFT, "MatMulNBits"): _n_bits,
}
"""By domain and operator: a function that inserts the standard form and returns its last value."""


def integer_matmuls(graph: onnx_ir.Model) -> Report:
    """Rewrite in place every operator that `INTEGER_MATMULS` names; MatMulNBits needs opset 21, others 11."""
    return rewrite_each(graph, INTEGER_MATMULS, lambda node: 21 if node.op_type == "MatMulNBits" else 11)
