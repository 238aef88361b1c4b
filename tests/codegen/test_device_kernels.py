"""Scheduled TIR becomes CUDA C++ and what the host launches; what no GPU can launch is refused."""

from __future__ import annotations

from typing import Any

import pytest

from nncc.codegen.device_kernels import lower_device_kernels
from nncc.compat import Schedule, te, tirx
from nncc.errors import ModelError
from nncc.ir import Launch
from nncc.target import resolve


def scheduled(shape: tuple[int, int], block_axis: str, *, halves: bool = False) -> Any:
    """``y = x + 1`` with a block for each row, or ``y = (x + 1) * 2`` by two kernels with what is between in memory."""
    x = te.placeholder(shape, "float32", "x")
    first = te.compute(shape, lambda i, j: x[i, j] + tirx.const(1, "float32"), name="first")
    second = te.compute(shape, lambda i, j: first[i, j] * tirx.const(2, "float32"), name="second")
    sch = Schedule(te.create_prim_func([x, second if halves else first]).with_attr("global_symbol", "main"))
    for name in ("first", "second") if halves else ("first",):
        row, column = sch.get_loops(sch.get_sblock(name))
        sch.bind(row, block_axis)
        sch.bind(column, "threadIdx.x")
    return sch.mod["main"]


def lowered(function: Any) -> Any:
    return lower_device_kernels({"f": function}, resolve("cuda-sm80").tvm_target(), "m_")


def test_a_kernel_is_launched_with_its_arguments():
    found = lowered(scheduled((12, 64), "blockIdx.x"))
    [launch] = found.launches["f"]
    assert (launch.grid, launch.block, launch.shared_bytes) == ((12, 1, 1), (64, 1, 1), 0)
    assert sorted(launch.args) == [(0, 0), (1, 0)] and found.workspace == {"f": 0}
    assert f'extern "C" __global__ void __launch_bounds__(64) {launch.symbol}(' in found.code
    assert "asm" not in found.code.split('extern "C"')[1]


def test_what_lies_between_two_kernels_is_in_the_workspace():
    found = lowered(scheduled((12, 64), "blockIdx.x", halves=True))
    first, second = found.launches["f"]
    assert isinstance(first, Launch) and first.symbol != second.symbol
    assert found.workspace["f"] == 12 * 64 * 4
    assert (2, 0) in first.args and (2, 0) in second.args
    assert (0, 0) in first.args and (1, 0) in second.args


def test_a_grid_that_no_gpu_takes_is_refused():
    with pytest.raises(ModelError) as caught:
        lowered(scheduled((70_000, 32), "blockIdx.y"))
    assert caught.value.message == "the kernel `m_f` has 70000 blocks along an axis; a GPU takes 65535"
    assert caught.value.hint == "compile the model for a smaller batch"
