"""Register tiles become one buffer a vector, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.codegen.split_registers import split_registers
from nncc.compat import IRModule, structural_walk, tirx, tvm
from nncc.target import resolve


def kernel(size, accesses, dtype="float32"):
    """Copies `accesses`, (first element, lanes) each, of x into a local buffer of `size`, and from there into y."""
    x, y = (tirx.decl_buffer((size,), dtype, name=name) for name in "xy")
    tile = tirx.decl_buffer((size,), dtype, name="tile")
    steps = [tirx.AllocBuffer(tile)]
    for source, target in ((x, tile), (tile, y)):
        for start, lanes in accesses:
            at = [tirx.Ramp(start, 1, lanes) if lanes > 1 else tirx.const(start, "int32")]
            steps.append(tirx.BufferStore(target, source[at[0]], at))
    function = tirx.PrimFunc([x, y], tirx.SeqStmt(steps)).with_attr("global_symbol", "main")
    return split_registers()(IRModule({"main": function}))["main"]


def local_buffers(function):
    found = []
    structural_walk(function.body, [(tirx.AllocBuffer, lambda stmt: found.append(stmt.buffer))])
    return [tuple(int(d) for d in b.shape) for b in found]


def test_a_tile_is_one_buffer_a_vector():
    assert local_buffers(kernel(1024, [(i, 16) for i in range(0, 1024, 16)])) == [(16,)] * 64


def test_single_lanes_are_read_from_their_vector():
    function = kernel(12, [(0, 4), (4, 4), (8, 4), (1, 1), (6, 1)])
    assert local_buffers(function) == [(4,)] * 3


@pytest.mark.parametrize(
    "accesses",
    [
        [(2, 4), (8, 4)],  # across two vectors
        [(0, 4), (4, 8)],  # of different lengths
        [(0, 16)],  # one vector is one buffer already
    ],
)
def test_what_is_not_a_tile_of_vectors_stays_whole(accesses):
    assert local_buffers(kernel(16, accesses)) == [(16,)]


def test_the_values_stay_what_they_were():
    accesses = [(i, 8) for i in range(0, 512, 8)] + [(13, 1), (77, 1)]
    module = tvm.compile(IRModule({"main": kernel(512, accesses)}), resolve("native").tvm_target())
    x = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    y = tvm.runtime.tensor(np.zeros(512, np.float32))
    module["main"](tvm.runtime.tensor(x), y)
    np.testing.assert_array_equal(y.numpy(), x)


def test_a_view_goes_with_its_buffer_and_a_pointer_that_leaves_keeps_it_whole():
    x, tile, view = (tirx.decl_buffer((32,), "float32", name=name) for name in ("x", "tile", "view"))
    at = [[tirx.Ramp(i, 1, 16)] for i in (0, 16)]
    steps = [tirx.AllocBuffer(tile), *(tirx.BufferStore(tile, x[i[0]], i) for i in at)]
    steps += [tirx.DeclBuffer(view, data=tile.data), *(tirx.BufferStore(x, view[i[0]], i) for i in at)]
    call = tirx.Evaluate(tirx.call_extern("int32", "elsewhere", tile.data))
    for body, expected in ((steps, [(16,), (16,)]), ([*steps, call], [(32,)])):
        function = tirx.PrimFunc([x], tirx.SeqStmt(body)).with_attr("global_symbol", "main")
        assert local_buffers(split_registers()(IRModule({"main": function}))["main"]) == expected
