"""What is gathered from one vector is that vector and a shuffle, and nothing is read outside of it."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.codegen.shuffle_lanes import shuffle_lanes
from nncc.compat import IRModule, structural_walk, tirx, tvm
from nncc.target import resolve

LANE = tirx.Ramp(0, 1, 8)


def eight(value):
    return tirx.Broadcast(value, 8)


def kernel(index, size):
    """Stores x[index(i)] for each row i of eight."""
    x, y = tirx.decl_buffer((size,), "float32", name="x"), tirx.decl_buffer((size,), "float32", name="y")
    i = tirx.Var("i", "int32")
    store = tirx.BufferStore(y, x[index(i)], [tirx.Ramp(i * 8, 1, 8)])
    body = tirx.For(i, 0, size // 8, tirx.ForKind.SERIAL, store)
    function = tirx.PrimFunc([x, y], body).with_attr("global_symbol", "main")
    return shuffle_lanes()(IRModule({"main": function}))["main"]


def shuffles(function):
    found = []
    structural_walk(function.body, [(tirx.Shuffle, found.append)])
    return [[int(i) for i in shuffle.indices] for shuffle in found]


@pytest.mark.parametrize(
    ("index", "pattern", "first", "step"),
    [
        (lambda i: eight(i * 8 + 1) + tirx.Div(LANE, eight(4)) * eight(4), [1, 1, 1, 1, 5, 5, 5, 5], 0, 8),
        (lambda i: eight(i * 8 + 2) + tirx.Mod(LANE, eight(4)), [0, 1, 2, 3, 0, 1, 2, 3], 2, 8),
        (lambda i: eight(i * 8 + 7) - LANE, [7, 6, 5, 4, 3, 2, 1, 0], 0, 8),
        (lambda i: eight(i * 4) + tirx.Div(LANE, eight(2)), [0, 0, 1, 1, 2, 2, 3, 3], 0, 4),
        # Begins anywhere: no other elements are read than by a gather.
        (lambda i: eight(i + 3) + tirx.Div(LANE, eight(2)), [0, 0, 1, 1, 2, 2, 3, 3], 3, 1),
    ],
)
def test_a_gather_within_a_vector(index, pattern, first, step):
    function = kernel(index, 32)
    assert shuffles(function) == [pattern]
    module = tvm.compile(IRModule({"main": function}), resolve("native").tvm_target())
    x = np.random.default_rng(0).standard_normal(32).astype(np.float32)
    y = tvm.runtime.tensor(np.zeros(32, np.float32))
    module["main"](tvm.runtime.tensor(x), y)
    np.testing.assert_array_equal(y.numpy(), [x[i * step + first + lane] for i in range(4) for lane in pattern])


@pytest.mark.parametrize(
    "index",
    [
        lambda i: eight(i * 8 + 4) + tirx.Div(LANE, eight(4)) * eight(4),  # 4 to 8 lie in two vectors
        lambda i: eight(i) + tirx.Div(LANE, eight(2)) * eight(2),  # begins anywhere, and leaves elements out
        lambda i: eight(0) + LANE * eight(i),  # distances that are not known
    ],
)
def test_what_may_lie_in_two_vectors_is_left_alone(index):
    assert shuffles(kernel(index, 64)) == []


def test_a_buffer_that_ends_within_the_vector_is_left_alone():
    assert shuffles(kernel(lambda i: eight(i * 8) + tirx.Div(LANE, eight(2)) * eight(2), 20)) == []


def test_rows_that_are_interleaved_are_loaded_as_vectors_each():
    function = kernel(lambda i: eight(i * 4) + tirx.Mod(LANE, eight(2)) * eight(16) + tirx.Div(LANE, eight(2)), 32)
    assert shuffles(function) == [[0, 4, 1, 5, 2, 6, 3, 7]]
    module = tvm.compile(IRModule({"main": function}), resolve("native").tvm_target())
    x, y = np.arange(32, dtype=np.float32), tvm.runtime.tensor(np.zeros(32, np.float32))
    module["main"](tvm.runtime.tensor(x), y)
    np.testing.assert_array_equal(y.numpy(), x.reshape(2, 16).T.reshape(-1))
