"""Bytes are looked up in tables of 256 in vectors, where the processor shuffles bytes."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.codegen.look_up import look_up
from nncc.compat import IRModule, structural_walk, tirx, tvm
from nncc.host import host
from nncc.scheduling import lookup_lanes
from nncc.target import resolve


def kernel(lanes, data, index=lambda x: x, size=256, most=64):
    """Stores table[index(x[i])] for the 256 bytes of x, by vectors."""
    x, table = tirx.decl_buffer((256,), data, name="x"), tirx.decl_buffer((size,), "uint8", name="table")
    y, i = tirx.decl_buffer((256,), "uint8", name="y"), tirx.Var("i", "int32")
    at = tirx.Ramp(i * lanes, 1, lanes)
    place = index(tirx.Cast(f"int32x{lanes}", x[at]))
    if data == "int8":
        place = place + tirx.Broadcast(tirx.const(128, "int32"), lanes)
    body = tirx.For(i, 0, 256 // lanes, tirx.ForKind.SERIAL, tirx.BufferStore(y, table[place], [at]))
    return look_up(most)(IRModule({"main": tirx.PrimFunc([x, table, y], body).with_attr("global_symbol", "main")}))


def gathers(module):
    """Loads that take each lane from its own place."""
    found = []
    structural_walk(module["main"].body, [(tvm.ir.TensorLoad, found.append)])
    return [load for load in found if not isinstance(load.indices[0], (tirx.Ramp, tirx.Var, tirx.IntImm))]


@pytest.mark.parametrize("data", ["uint8", "int8"])
@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_every_byte_is_found_in_its_place(target, data):
    machine = resolve(target)
    if host().machine != "x86_64" or not set(machine.hardware.features) <= set(host().features):
        pytest.skip(f"this processor does not run {target}")
    module = kernel(lookup_lanes(machine.hardware), data)
    assert not gathers(module)
    random = np.random.default_rng(0)
    x, table = random.permutation(256).astype(np.uint8).view(data), random.integers(0, 256, 256).astype(np.uint8)
    y = tvm.runtime.tensor(np.zeros(256, np.uint8))
    tvm.compile(module, machine.tvm_target())["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(table), y)
    np.testing.assert_array_equal(y.numpy(), table[x.astype(int) + (128 if data == "int8" else 0)])


@pytest.mark.parametrize(
    ("index", "size"),
    [
        (lambda x: x, 300),  # no table of bytes
        (lambda x: x * tirx.Broadcast(tirx.const(2, "int32"), 32), 256),  # no byte
    ],
)
def test_other_gathers_stay(index, size):
    assert len(gathers(kernel(32, "uint8", index, size))) == 1
    assert len(gathers(kernel(32, "uint8", most=16))) == 1


def test_processors_that_shuffle_no_bytes_look_up_one_by_one():
    assert [lookup_lanes(resolve(name).hardware) for name in ("x86-64", "x86-64-v2", "x86-64-v3", "arm64")] == [
        0, 16, 32, 0,
    ]  # fmt: skip
