"""What a kernel's work is counted as: floating-point operations, and bytes of the distinct tensors of a call."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from compiled import Net, compile_net

from nncc.execute import open_library
from nncc.ir import Operations

FLOAT = 4
"""Bytes of a float32."""
OPERATIONS = {2: (4, 4), 4: (4 + 5 + 5 + 4 + 4 + 4, 4 + 4 + 4 + 5)}
"""Additions and products of B^T d and of A^T y by m, as the template writes its rows."""


def calls_of(net: Net, folder) -> dict[str, tuple[float, float]]:
    """Operations and bytes of each call, as the library tells."""
    calls = open_library(compile_net(net, folder).library).describe()["calls"]
    return {call["name"]: (call["flops"], call["bytes"]) for call in calls}


def test_a_matrix_product_reads_its_weights(tmp_path):
    net = Net()
    net.output(net.op("MatMul", net.input(4, 8), net.weight(8, 64)))
    assert calls_of(net, tmp_path) == {"matmul": (2 * 4 * 8 * 64, (4 * 8 + 8 * 64 + 4 * 64) * FLOAT)}


def test_a_convolution_and_what_is_fused_into_it(tmp_path):
    net = Net()
    x = net.input(1, 16, 9, 9)
    net.output(net.op("Relu", net.conv(x, 16, 16, (3, 3), strides=(2, 2))))
    calls = calls_of(net, tmp_path)
    (flops, nbytes), *_ = [cost for name, cost in calls.items() if "conv2d" in name]
    outputs = 16 * 4 * 4
    assert flops == 2 * outputs * 16 * 3 * 3 + 2 * outputs  # bias and Relu
    assert nbytes == (16 * 9 * 9 + 16 * 16 * 3 * 3 + 16 + outputs) * FLOAT


def test_of_what_a_call_reads_its_weights_are_told_apart(tmp_path):
    net = Net()
    net.output(net.op("MatMul", net.input(4, 8), net.weight(8, 64)))
    (call,) = open_library(compile_net(net, tmp_path).library).describe()["calls"]
    assert (call["multiplications"], call["weight_bytes"]) == (4 * 8 * 64, 8 * 64 * FLOAT)


@pytest.mark.parametrize(("operator", "operations"), [("Exp", Operations(11, 10)), ("Erf", Operations(13, 10))])
def test_a_function_counts_as_its_polynomial(tmp_path, operator, operations):
    net = Net()
    net.output(net.op(operator, net.input(3, 5)))
    program = compile_net(net, tmp_path).program
    assert [program.operations[call.kernel] for call in program.calls] == [operations * 15]


def test_a_tensor_given_twice_counts_once(tmp_path):
    net = Net()
    x = net.input(3, 5)
    net.output(net.op("Add", x, x))
    assert calls_of(net, tmp_path) == {"add": (15, 2 * 15 * FLOAT)}


def test_of_a_table_the_rows_that_are_looked_up_count(tmp_path):
    net = Net()
    rows = net.input(2, dtype=np.int64)
    net.output(net.op("Gather", net.weight(1000, 16), rows))
    lookups = [nbytes for name, (_, nbytes) in calls_of(net, tmp_path).items() if name.startswith("take")]
    assert max(lookups) == 2 * 16 * FLOAT * 2 + 2 * 8  # rows read and written, and their numbers


def test_a_copy_reads_and_writes(tmp_path):
    net = Net()
    net.output(net.op("Identity", net.input(2, 8)))
    assert calls_of(net, tmp_path) == {"copy": (0, 2 * 16 * FLOAT)}


def test_winograd_counts_what_it_executes_and_not_its_workspace(tmp_path):
    net = Net()
    net.output(net.conv(net.input(1, 64, 32, 32), 64, 64, (3, 3), pads=(1, 1, 1, 1), bias=False))
    compiled = compile_net(net, tmp_path)
    about = json.loads(compiled.library.with_suffix(".json").read_text())
    name = next((name for name, schedule in about["schedules"].items() if "winograd" in schedule), None)
    if name is None:
        pytest.skip("this machine's target does this convolution directly")
    call = next(call for call in compiled.program.calls if call.kernel == name)
    tile_h, tile_w = map(int, re.search(r"F\((\d)x(\d),", about["schedules"][name]).groups())
    tiles, matrices = 32 // tile_h * (32 // tile_w), (tile_h + 2) * (tile_w + 2)
    (into_h, out_h), (into_w, out_w) = (OPERATIONS[m] for m in (tile_h, tile_w))
    transforms = (tile_w + 2) * into_h + (tile_h + 2) * into_w + (tile_w + 2) * out_h + tile_h * out_w
    products = 2 * 64 * 64 * matrices * tiles
    assert compiled.program.operations[name].total == products + 64 * tiles * transforms
    image = 64 * 32 * 32 * FLOAT
    weights = compiled.program.weights.nbytes
    assert compiled.program.call_bytes(call) == image + weights + image
