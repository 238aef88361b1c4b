"""A square that is gathered column by column is loaded by rows and transposed; anything else stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import ROUNDING, Net, agrees

from nncc.codegen.transpose_lanes import transpose_lanes
from nncc.compat import IRModule, structural_walk, tirx, tvm
from nncc.target import resolve

LANES = 8


def kernel(columns, dtype="float32", stride=24):
    """Stores x[c + 24 lane] behind each other for each c of `columns`."""
    x = tirx.decl_buffer((stride * LANES,), dtype, name="x")
    y = tirx.decl_buffer((len(columns) * LANES,), dtype, name="y")
    stores = [
        tirx.BufferStore(y, x[tirx.Ramp(c, stride, LANES)], [tirx.Ramp(at * LANES, 1, LANES)])
        for at, c in enumerate(columns)
    ]
    function = tirx.PrimFunc([x, y], tirx.SeqStmt(stores)).with_attr("global_symbol", "main")
    return transpose_lanes()(IRModule({"main": function}))["main"]


def shuffles(function):
    found = []
    structural_walk(function.body, [(tirx.Shuffle, found.append)])
    return len(found)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("columns", [range(8), [3, *range(4, 12), 0], [*range(16)], [0, 2, 4, 6, 8, 10, 12, 14]])
def test_what_is_stored_is_the_same(columns, dtype):
    function = kernel(list(columns), dtype)
    consecutive = max(sum(c - i == a for i, c in enumerate(columns)) for a in (0, 3))
    assert (shuffles(function) > 0) == (consecutive >= LANES)
    module = tvm.compile(IRModule({"main": function}), resolve("native").tvm_target())
    x = np.random.default_rng(0).integers(0, 256, 24 * LANES).astype(dtype)
    y = tvm.runtime.tensor(np.zeros(len(columns) * LANES, dtype))
    module["main"](tvm.runtime.tensor(x), y)
    np.testing.assert_array_equal(y.numpy(), np.concatenate([x[c::24][:LANES] for c in columns]))


def test_a_square_takes_as_many_shuffles_as_a_sorting_network_has_levels():
    assert shuffles(kernel(range(8))) == 8 * 3


@pytest.mark.parametrize("target", ["native", "x86-64-v3", "rpi4"])
@pytest.mark.parametrize("size", [(9, 7), (2, 3), (1, 40)])
def test_channels_go_into_blocks_and_back(size, target, tmp_path):
    """Squares, what is left of them in rows that they do not divide, and images that are smaller than one."""
    net = Net()
    point = net.op("Relu", net.conv(net.input(2, 32, *size), 32, 48, (1, 1)))
    window = net.conv(net.input(1, 16, *size), 16, 32, (3, 3), pads=[1] * 4)
    net.output(point, window)
    agrees(net, tmp_path, target, {point: ROUNDING, window: 1e-4})
