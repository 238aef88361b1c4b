"""Kernels take pointers, nothing else; what they need besides is counted before anything runs."""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled import Net, agrees

from nncc.codegen.bare_pointers import lower_kernels
from nncc.target import resolve


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """A convolution that needs memory for its padded input, and a softmax."""
    net = Net()
    x = net.conv(net.input(1, 16, 37, 37), 16, 32, (3, 3), pads=[1] * 4)
    net.output(net.op("Softmax", x, axis=1))
    return agrees(net, tmp_path_factory.mktemp("padded"))


def test_kernels_are_functions_of_pointers_that_give_a_status(padded):
    for name, function in padded.program.kernels.functions.items():
        if not name.name_hint.endswith("compute_"):
            assert str(function.ret_type) == "int32", name
            assert all("handle" in str(p.ty) or "Pointer" in type(p.ty).__name__ for p in function.params), name


def test_workspaces_lie_in_the_arena_and_apart(padded):
    """A kernel with a workspace has one argument more, and nothing else that is alive overlaps it."""
    arity = {
        name: len(f.params)
        for name, f in ((v.name_hint, f) for v, f in padded.kernels.module.functions.items() if v.name_hint != "main")
    }
    more = {call.kernel for call in padded.program.calls if len(call.args) == arity[call.kernel] + 1}
    assert more, "the padded input is too large for the stack"
    assert all(len(call.args) - arity[call.kernel] in (0, 1) for call in padded.program.calls)


def test_nothing_of_tvm_but_the_threads_and_scratch_is_called(padded):
    text = padded.program.kernels.script()
    known = {"TVMBackendParallelLaunch", "TVMBackendAllocWorkspace", "TVMBackendFreeWorkspace"}
    assert set(re.findall(r"\bTVM\w+", text)) <= known


def test_a_kernel_with_a_size_known_at_run_time_is_refused():
    from nncc.compat import te, tirx

    n = tirx.Var("n", "int64")
    x = te.placeholder((n, 4), name="x")
    y = te.compute((n, 4), lambda i, j: x[i, j] + 1.0, name="y")
    # Raised within one of TVM's passes, our error comes out as its.
    with pytest.raises(RuntimeError, match="the kernel `p_odd` has the scalar parameter `n`"):
        lower_kernels({"odd": te.create_prim_func([n, x, y])}, resolve("x86-64-v2").tvm_target(), "p_")


@pytest.mark.parametrize("rows", [1, 8, 15, 16, 17, 33])
def test_rows_of_any_length_with_64_bit_indices(tmp_path, rows):
    """A loop of 64-bit variables that is left with one step once got a 32-bit constant, which TVM refused."""
    net = Net()
    table, index = net.input(5, rows), net.input(3, 2, dtype=np.int64)
    net.output(net.op("Gather", table, index, axis=0))
    agrees(net, tmp_path)
