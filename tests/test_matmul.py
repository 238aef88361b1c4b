"""Matrix products of every shape, with constant and computed operands, in panels and without."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees
from test_schedules import TARGETS

from nncc.codegen.flatten import in_panels
from nncc.passes.pack_matmul import pack_panels, panel_lanes

# M, K, N: rows of one and prime, odd depths, columns that no panel divides (1, 10, 197) and that many do.
SIZES = [
    (1, 64, 1000), (1, 33, 10), (7, 31, 1), (13, 64, 197), (197, 64, 192), (5, 1, 17), (16, 16, 16), (3, 7, 5),
    (1, 1, 1), (64, 129, 24), (2, 500, 3), (31, 20, 12),
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_products_of_awkward_sizes(tmp_path, target):
    net = Net()
    for number, (m, k, n) in enumerate(SIZES):
        x = net.input(m, k)
        product = net.op("MatMul", x, net.weight(k, n, scale=k**-0.5))
        net.output(net.op("Relu", net.op("Add", product, net.weight(n, scale=1.0))) if number % 2 else product)
        net.output(net.op("MatMul", x, net.input(k, n)))
    compiled = agrees(net, tmp_path, target)
    kinds = [origin.split()[0] for origin in compiled.kernels.schedules.values()]
    assert kinds.count("matmul") == 2 * len(SIZES)


def test_operands_of_every_rank_broadcast(tmp_path):
    net = Net()
    for left, right in (
        ((2, 3, 13, 17), (2, 3, 17, 10)),
        ((2, 3, 13, 17), (17, 10)),
        ((2, 3, 13, 17), (3, 17, 10)),
        ((2, 1, 13, 17), (1, 3, 17, 10)),
        ((13, 17), (2, 3, 17, 10)),
        ((1, 13, 17), (5, 17, 8)),
        ((17,), (17, 10)),
        ((13, 17), (17,)),
        ((17,), (17,)),
        ((2, 3, 17), (17,)),
        ((17,), (2, 17, 3)),
    ):
        x = net.input(*left)
        net.output(net.op("MatMul", x, net.input(*right)), net.op("MatMul", x, net.weight(*right, scale=0.25)))
        net.output(net.op("MatMul", net.weight(*left, scale=0.25), net.input(*right)))
    agrees(net, tmp_path)


def test_gemm_in_all_its_forms(tmp_path):
    net = Net()
    for left, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        a = net.input(*((21, 13) if left else (13, 21)))
        b = (10, 21) if right else (21, 10)
        options = {"transA": left, "transB": right}
        net.output(
            net.op("Gemm", a, net.weight(*b, scale=0.2), net.weight(10, scale=1.0), **options),
            net.op("Gemm", a, net.input(*b), net.input(13, 1), alpha=0.5, beta=2.0, **options),
            net.op("Gemm", a, net.weight(*b, scale=0.2), **options),
        )
    agrees(net, tmp_path)


def test_products_of_other_types(tmp_path):
    """float64 sums agree to its own rounding, float16 to that of ONNX Runtime's float32 sums; integers are exact."""
    net = Net()
    net.output(net.op("MatMul", net.input(7, 33, dtype=np.float64), net.input(33, 10, dtype=np.float64)))
    net.output(net.op("MatMul", net.input(7, 33, dtype=np.int32), net.input(33, 10, dtype=np.int32)))
    net.output(net.op("MatMul", net.input(7, 33, dtype=np.float16), net.input(33, 10, dtype=np.float16)))
    agrees(net, tmp_path, tolerance=None)


def test_attention(tmp_path):
    """Scores, masks and softmax between two batched products, as transformers have them."""
    net = Net()
    tokens, heads, width = 19, 3, 8
    x = net.input(1, tokens, heads * width)
    split = [
        net.op(
            "Transpose",
            net.op("Reshape", net.op("MatMul", x, net.weight(24, 24)), net.ints(1, tokens, heads, width)),
            perm=order,
        )
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    ]
    scores = net.op("Div", net.op("MatMul", split[0], split[1]), net.constant(width**0.5, np.float32))
    mask = net.op("Cast", net.input(1, 1, 1, tokens, dtype=bool), to=1)
    scores = net.op("Add", scores, net.op("Mul", mask, net.constant(-1e4, np.float32)))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), split[2])
    net.output(net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(1, tokens, -1)), scores)
    agrees(net, tmp_path)


@pytest.mark.parametrize("columns", [1, 3, 4, 10, 24, 197, 1000])
@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
def test_panels_hold_every_column_once_and_zeros_behind(columns, lanes):
    width = panel_lanes(columns, max(4, lanes))
    weight = np.random.default_rng(0).standard_normal((5, columns)).astype(np.float32)
    blocks = -(-columns // width)
    packed = pack_panels(weight, width)
    for vectors in (v for v in range(1, 9) if blocks % v == 0):
        panels = in_panels(packed, (blocks // vectors, 5, vectors, width) if vectors > 1 else packed.shape)
        flat = panels.reshape(blocks // vectors, 5, vectors, width).transpose(1, 0, 2, 3).reshape(5, -1)
        assert np.array_equal(flat[:, :columns], weight) and not flat[:, columns:].any()
