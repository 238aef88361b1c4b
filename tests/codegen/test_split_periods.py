"""Loops over what repeats are split at its period: LLVM 22 vectorizes ``x[i & 3]`` as ``x[i]``."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees


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
