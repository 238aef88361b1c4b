"""Products by constants of which blocks are zero: right, and taken only where they are predicted to be faster."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net
from quantized import QuantizedNet

from nncc.kernels.skipping import pack
from nncc.passes.pack_matmul import skipped
from nncc.target import resolve


def pruned(depth: int, columns: int, keep: float, seed: int = 0) -> np.ndarray:
    """float32 weights of which some blocks of 4 x 16 are left, as many in each 16 columns."""
    random = np.random.default_rng(seed)
    matrix = random.standard_normal((depth, columns)).astype(np.float32) * depth**-0.5
    for first in range(0, columns, 16):
        for block in random.permutation(depth // 4)[round(depth // 4 * keep) :]:
            matrix[4 * block : 4 * block + 4, first : first + 16] = 0
    return matrix


def takes(compiled) -> list[str]:
    return [how.split()[0] for how in compiled.program.schedules.values() if "matmul" in how]


SHAPES = {"one row": (1, 64, 40), "rows": (13, 32, 48), "batches": (2, 5, 64, 32)}


@pytest.mark.parametrize("target", ["native", "x86-64-v3", "rpi4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_what_a_dense_product_gives(shape, target, tmp_path):
    *rows, depth, columns = SHAPES[shape]
    net = Net()
    x = net.op("MatMul", net.input(*rows, depth), net.constant(pruned(depth, columns, 0.25)))
    net.output(net.op("Relu", net.op("Add", x, net.weight(columns))))
    assert takes(agrees(net, tmp_path, target, threads=1)) == ["sparse_matmul"]


@pytest.mark.parametrize("target", ["native", "x86-64-v3", "rpi4", "rpi5"])
def test_integers_are_what_a_dense_product_gives(target, tmp_path):
    """To one step of the result's grid, as with all integer products."""
    net = QuantizedNet("int8")
    x = net.quantized(net.input(9, 64), 0.05)
    weights = net.quantized(net.constant(pruned(64, 48, 0.25)), 0.01)
    net.output(net.quantized(net.op("MatMul", x, weights), 0.05))
    compiled = compile_net(net, tmp_path, target, threads=1)
    assert takes(compiled) == ["sparse_matmul"]
    inputs = compiled.sample()
    found, expected = (next(iter(run(inputs).values())) for run in (compiled.run, compiled.expected))
    assert np.abs(found - expected).max() <= 0.05 * 1.01


def test_several_threads_share_the_panels(tmp_path):
    net = Net()
    net.output(net.op("MatMul", net.input(64, 256), net.constant(pruned(256, 512, 0.3))))
    assert takes(agrees(net, tmp_path, "native", threads=2)) == ["sparse_matmul"]


def test_it_is_taken_only_where_it_is_predicted_to_be_faster():
    for target in ("x86-64-v3", "x86-64-v4-vnni", "rpi4", "rpi5"):
        hardware = resolve(target).hardware
        lanes = hardware.vector_bits // 32
        for keep, expected in ((1.0, False), (0.95, False), (0.5, True)):
            for rows in (1, 128):
                lists = skipped(pruned(256, 256, keep), rows, rows, lanes, hardware)
                assert (lists is not None) == expected, (target, keep, rows)
    assert skipped(pruned(64, 64, 0.1)[:62], 1, 1, 8, hardware) is None


def test_blocks_are_packed_with_their_places():
    matrix = np.zeros((16, 32), np.float32)
    matrix[8:12, 16:32] = np.arange(64).reshape(4, 16)
    weights, places = pack(matrix.T[:, :, None, None], 8, 2)
    assert weights.shape == (2, 1, 4, 2, 8) and places.tolist() == [[[0, 0, 0]], [[2, 0, 0]]]
    assert not weights[0].any()
    np.testing.assert_array_equal(weights[1, 0].reshape(4, 16), np.arange(64).reshape(4, 16))
