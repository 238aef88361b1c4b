"""Loops over what repeats are split at its period: LLVM 22 vectorizes ``x[i & 3]`` as ``x[i]``."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 8, 7), (1, 2, 3, 5)])
@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_what_is_tiled_is_read_again(tmp_path, shape, target):
    net = Net(13)
    net.output(net.op("Tile", net.input(*shape), net.ints(1, 2, 4, 2)))
    agrees(net, tmp_path, target, tolerance=0.0)


def test_a_rotary_embedding_keeps_its_heads_apart(tmp_path):
    """A concatenation of halves that is reshaped: indices modulo 8 and 4 in one loop of 32."""
    net = Net(18)
    x = net.op("Reshape", net.input(2, 3, 32), net.ints(2, 3, 4, 8))
    cos, sin = (net.op("Unsqueeze", net.input(2, 3, 4), net.ints(2)) for _ in range(2))
    first, second = net.op("Split", x, outputs=2, axis=-1, num_outputs=2)
    real = net.op("Sub", net.op("Mul", cos, first), net.op("Mul", sin, second))
    imaginary = net.op("Add", net.op("Mul", sin, first), net.op("Mul", cos, second))
    net.output(net.op("Reshape", net.op("Concat", real, imaginary, axis=-1), net.ints(2, 3, 32)))
    compiled = agrees(net, tmp_path)
    assert np.prod(compiled.model.outputs[0].shape) == 192


def test_what_a_split_leaves_has_variables_of_its_own(tmp_path):
    """Forty channels out of blocks of sixteen: the loops of the last eight shared theirs with those of the rest."""
    net = Net()
    x = net.input(1, 40, 3, 3)
    scale, zero = net.constant(0.1, np.float32), net.constant(3, np.int8)
    weights = net.op(
        "DequantizeLinear", net.constant(np.ones((40, 40, 1, 1)), np.int8), scale, net.constant(0, np.int8)
    )
    q = net.op("DequantizeLinear", net.op("QuantizeLinear", x, scale, zero), scale, zero)
    y = net.op("QuantizeLinear", net.op("Conv", q, weights), scale, zero)
    net.output(net.op("DequantizeLinear", y, scale, zero))
    compile_net(net, tmp_path)
