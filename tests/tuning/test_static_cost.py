"""What cannot win is known from the compiler's report, by numbers that can be counted by hand."""

from __future__ import annotations

from nncc.codegen.cuda_compiler import Resources
from nncc.gpu.estimate import KernelEstimate, LaunchEstimate
from nncc.target import Hardware
from nncc.tuning.static_cost import least_seconds, why_not

HARDWARE = Hardware(multiprocessors=10, multiprocessor_threads=2048, multiprocessor_shared_kib=100)


def kernel(blocks: int, threads: int = 128, resident: int = 4, symbol: str = "k", seconds: float = 1e-3):
    launch = LaunchEstimate(symbol, blocks, threads, resident, 1.0, 1.0)
    return KernelEstimate("k", "", 1, 10**9, 10**6, seconds, seconds, "arithmetic", (launch,))


def resources(symbol: str = "k", registers: int = 40, spilled: int = 0):
    return {symbol: Resources(registers, 1000, spilled, 0)}


def test_a_gpu_that_is_full_takes_what_its_peak_says():
    assert least_seconds(kernel(80), HARDWARE) == 1e-3


def test_blocks_that_leave_multiprocessors_idle_take_longer():
    assert least_seconds(kernel(1), HARDWARE) == 10e-3
    assert least_seconds(kernel(11), HARDWARE) == 1e-3 * 20 / 11


def test_a_warp_keeps_one_of_four_schedulers_busy():
    assert least_seconds(kernel(10, threads=32), HARDWARE) == 4e-3
    assert least_seconds(kernel(40, threads=32), HARDWARE) == 1e-3, "four blocks reside together"
    assert least_seconds(kernel(40, threads=32, resident=2), HARDWARE) == 2e-3


def test_of_several_launches_the_one_that_is_spread_best_bounds_the_time():
    both = kernel(1).launches + kernel(80).launches
    few = kernel(1)
    several = KernelEstimate(few.kernel, "", 1, few.flops, few.nbytes, 1e-3, 1e-3, "arithmetic", both)
    assert least_seconds(several, HARDWARE) == 1e-3


def test_where_the_peak_is_not_known_nothing_is():
    assert least_seconds(kernel(1, seconds=0.0), HARDWARE) == 0.0
    assert why_not(kernel(1), kernel(80), resources(), Hardware(), 1e-9) == ""


def test_what_takes_longer_than_the_default_did_is_left_out():
    found = why_not(kernel(1), kernel(80), resources(), HARDWARE, 2e-3)
    assert found == "not measured: of 1 blocks it takes at least 1e+04 us, the default takes 2e+03 us"
    assert why_not(kernel(1), kernel(80), resources(), HARDWARE, 11e-3) == ""
    assert why_not(kernel(1), kernel(80), resources(), HARDWARE) == "", "the default's time is not known"


def test_what_spills_more_than_the_default_is_left_out():
    spills = resources("a", spilled=16) | resources("b", spilled=8)
    found = why_not(kernel(80, symbol="a"), kernel(80, symbol="b"), spills, HARDWARE)
    assert found == "not measured: it spills 16 bytes a thread, the default 8"
    assert why_not(kernel(80, symbol="b"), kernel(80, symbol="a"), spills, HARDWARE) == ""


def test_what_no_multiprocessor_holds_is_left_out():
    found = why_not(kernel(80, threads=1024, resident=0), kernel(80), resources(registers=96), HARDWARE)
    assert found == (
        "not measured: no multiprocessor holds 1024 threads of 96 registers and 1000 bytes of shared memory"
    )
