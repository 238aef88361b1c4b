"""Rooflines of kernels for GPUs, from numbers that can be counted by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from nncc.gpu.estimate import estimates
from nncc.ir import Call, Launch, Operations, Program, Ref
from nncc.target import Hardware, Target

HARDWARE = Hardware(
    peak_gflops=1000.0,
    dram_gbps=100.0,
    multiprocessors=10,
    multiprocessor_threads=2048,
    multiprocessor_shared_kib=100,
    tensor_tf32_gflops=8000.0,
    tensor_fp16_gflops=16000.0,
    tensor_int8_gops=32000.0,
)


@dataclass(frozen=True)
class Used:
    registers: int
    shared_bytes: int


def program(schedule: str = "cuda_matmul tile") -> Program:
    launch = Launch("k_product", (8, 10, 1), (128, 1, 1), ((0, 0), (1, 0)))
    call = Call("product", (Ref("input", 0), Ref("output", 0)))
    return Program(
        "net", Target("gpu", "", hardware=HARDWARE), (), (), (call, call), np.zeros(0, np.uint8), 0, 0, "",
        schedules={"product": schedule}, operations={"product": Operations(5 * 10**8, 5 * 10**8)},
        argument_bytes={"product": (10**6, 10**6)},
        launches={"product": (launch,)},
    )  # fmt: skip


def test_the_least_time_is_that_of_arithmetic_or_of_memory() -> None:
    (found,) = estimates(program())
    assert (found.calls, found.nbytes, found.bound) == (2, 2 * 10**6, "arithmetic")
    assert found.seconds == pytest.approx(1e-3)
    (found,) = estimates(replace(program(), operations={"product": Operations(5 * 10**5, 5 * 10**5)}))
    assert found.bound == "memory"
    assert found.seconds == pytest.approx(2e-5)


def test_tensor_cores_have_their_own_peak() -> None:
    for schedule, faster in (
        ("cuda_matmul tile, TF32", 8), ("cuda_unit_matmul tile, bfloat16", 16), ("cuda_unit_conv2d tile, uint8", 32),
        ("cuda_unit_depthwise tile, uint8", 1),
    ):  # fmt: skip
        (found,) = estimates(program(schedule))
        assert found.seconds == pytest.approx(1e-3 / faster)


def test_residence_is_bounded_by_registers_shared_memory_and_threads() -> None:
    def resident(registers: int, shared_bytes: int) -> int:
        (found,) = estimates(program(), {"k_product": Used(registers, shared_bytes)})
        return found.launches[0].resident

    assert resident(16, 0) == 16  # 2048 / 128 threads
    assert resident(100, 0) == 4  # 65536 / (104 * 128)
    assert resident(16, 32 * 1024) == 3  # 100 / (32 + 1) KiB
    (found,) = estimates(program(), {"k_product": Used(100, 0)})
    assert found.launches[0].waves == pytest.approx(2.0)  # 80 blocks, 4 on each of 10
    assert found.launches[0].occupancy == pytest.approx(4 * 128 / 2048)
