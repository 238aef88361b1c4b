"""What the machine can do at most: the formula, what is kept of a measurement, and libraries that measure."""

from __future__ import annotations

import json

import pytest

from nncc import roofline as module
from nncc.errors import NnccError, RunError, ToolError
from nncc.execute import OpenLibrary, open_library
from nncc.host import Host, host
from nncc.ir import Operations
from nncc.measurement import Measurement
from nncc.reports.bench import kernel_rows, kernel_table, measurement_facts, measurement_text, roofline_facts
from nncc.roofline import TIMES, Roofline, attempt, build, measure, roofline, typical, with_peak
from nncc.target import resolve

ROOF = Roofline(100.0, ((1 << 10, 400.0), (1 << 14, 200.0), (1 << 20, 10.0)))
SIZES = (1 << 14, 1 << 16)


# ---- the formula ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nbytes", "gbps"),
    [(0, 400.0), (1, 400.0), (1 << 11, 400.0), ((1 << 12) + 1, 200.0), ((1 << 17) + 1, 10.0), (1 << 30, 10.0)],
)
def test_the_bandwidth_is_that_of_the_working_set_that_is_nearest_by_ratio(nbytes, gbps):
    assert ROOF.gbps(nbytes) == gbps


@pytest.mark.parametrize(
    ("flops", "nbytes", "seconds"),
    [
        (10**9, 1 << 20, 1e-2),  # 1e9 / 2^20 operations a byte at 10 GB/s would be 9,500 GFLOP/s: the peak is less
        (10**6, 1 << 20, (1 << 20) / 10e9),  # one a byte: 10 GFLOP/s, below the peak
        (0, 1 << 14, (1 << 14) / 200e9),  # none: the bandwidth alone
        (0, 0, 0.0),
    ],
)
def test_the_least_time_is_that_of_the_roofline(flops, nbytes, seconds):
    assert ROOF.least_seconds(Operations(flops // 2, flops // 2), nbytes) == pytest.approx(seconds)
    if flops:
        attainable = min(ROOF.gflops, flops / nbytes * ROOF.gbps(nbytes))
        assert flops / seconds * 1e-9 == pytest.approx(attainable, rel=1e-12)


@pytest.mark.parametrize(
    ("multiplications", "additions", "seconds"),
    [
        (10**9, 0, 0.02),  # half of a multiply-add's two operations is not used
        (10**9, 10**9, 0.02),
        (10**9, 2 * 10**9, 0.02),  # as many again are done beside them
        (10**9, 3 * 10**9, 0.04),
        (0, 10**9, 0.02),
    ],
)
def test_additions_that_are_more_than_the_multiplications_are_done_beside_them(multiplications, additions, seconds):
    assert ROOF.least_seconds(Operations(multiplications, additions), 0) == pytest.approx(seconds)


def test_weights_come_from_where_the_whole_model_fits():
    assert ROOF.least_seconds(Operations(), 1 << 10, 1 << 9) == pytest.approx((1 << 10) / 400e9)
    assert ROOF.least_seconds(Operations(), 1 << 10, 1 << 9, 1 << 20) == pytest.approx((1 << 9) / 10e9)


# ---- the report -------------------------------------------------------------------------------------------------

CALLS = [
    {"name": "conv", "flops": 2e9, "multiplications": 1e9, "bytes": 1e6, "weight_bytes": 1e5},
    {"name": "copy", "flops": 0, "multiplications": 0, "bytes": 1 << 20, "weight_bytes": 0},
    {"name": "conv", "flops": 2e9, "multiplications": 1e9, "bytes": 1e6, "weight_bytes": 1e5},
]
SECONDS = [0.05, 0.025, 0.05]


def test_calls_of_one_kernel_are_one_row():
    conv, copy = kernel_rows(CALLS, SECONDS, {"conv": "conv2d tile 2x7"}, ROOF)
    assert conv == {
        "name": "conv",
        "calls": 2,
        "seconds": 0.1,
        "flops": 4e9,
        "bytes": 2e6,
        "schedule": "conv2d tile 2x7",
        "share": pytest.approx(0.8),
        "gflops": pytest.approx(40.0),
        "gbps": pytest.approx(0.02),
        "roofline": pytest.approx(0.4),
    }
    assert (copy["gflops"], copy["schedule"]) == (None, "")
    assert copy["roofline"] == pytest.approx((1 << 20) / 10e9 / 0.025)


def test_the_table_has_a_column_for_each_speed_that_is_known():
    assert kernel_table(kernel_rows(CALLS, SECONDS, {"conv": "conv2d tile 2x7"}, ROOF)) == (
        "   time   share  calls  GFLOP/s  GB/s  roofline  schedule         kernel\n"
        " 100 ms  80.0 %      2     40.0   0.0      40 %  conv2d tile 2x7  conv\n"
        "25.0 ms  20.0 %      1        -   0.0       0 %                   copy\n"
    )
    assert kernel_table(kernel_rows(CALLS[1:2], SECONDS[1:2], {"copy": "record"})) == (
        "   time    share  calls  GB/s  schedule  kernel\n"  #
        "25.0 ms  100.0 %      1   0.0  record    copy\n"
    )


ABOUT = {"name": "tiny", "target": "native", "build": "00", "features": [], "inputs": [], "outputs": []}


@pytest.fixture
def opened(tmp_path):
    return OpenLibrary(tmp_path / "tiny.so", 1, None, (), ABOUT)


MEASURED = Measurement(1, 0, (0.125,), 0.0, 0.0, 0)


def test_the_report_says_what_the_machine_can_do(opened):
    rows = kernel_rows(CALLS, SECONDS, {}, ROOF)
    text = measurement_text(opened, MEASURED, rows, ROOF)
    assert text.split("\n\n")[2] == "roofline  100 GFLOP/s, 10 GB/s from memory (1 thread, measured)"
    facts = measurement_facts(opened, MEASURED, rows, ROOF)
    assert facts["roofline"] == {
        "gflops": 100.0,
        "memory_gbps": 10.0,
        "bandwidth": [{"bytes": size, "gbps": gbps} for size, gbps in ROOF.bandwidth],
        "source": "measurement",
    }
    assert facts["kernels"] == rows


def test_the_report_says_in_one_line_why_nothing_was_measured(opened):
    error = ToolError("no C compiler for target `native`: looked for `cc`, zig", "install gcc or clang")
    rows = kernel_rows(CALLS, SECONDS, {}, error)
    assert {row["roofline"] for row in rows} == {None}
    head, table = measurement_text(opened, MEASURED, rows, error).split("\n\n")[2:]
    assert head == (
        "roofline  not measured: no C compiler for target `native`: looked for `cc`, zig (install gcc or clang)"
    )
    assert "roofline" not in table
    facts = measurement_facts(opened, MEASURED, rows, error)["roofline"]
    assert facts == {"why_not": head.removeprefix("roofline  not measured: ")}
    failed = ToolError("cc failed with exit status 1:\n  cc -c model.c\nmodel.c:1: error")
    assert roofline_facts(failed) == {"why_not": "cc failed with exit status 1"}


# ---- what is kept -----------------------------------------------------------------------------------------------


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """The measurements that were made, with nothing measured, in an empty cache."""
    made = []

    def fake(target, features, vector_bits, sizes, threads, seconds=0.0):
        made.append((tuple(features), vector_bits, threads))
        return Roofline(float(len(made)), tuple((size, 10.0) for size in sizes))

    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "measure", fake)
    monkeypatch.setattr(module, "target_of", lambda path: resolve("x86-64-v3"))
    return made


def with_features(opened: OpenLibrary, *features: str, threads: int = 1) -> OpenLibrary:
    return OpenLibrary(opened.path, threads, None, (), ABOUT | {"features": list(features)})


@pytest.fixture
def once(monkeypatch):
    """The first measurement is believed."""
    monkeypatch.setattr(module, "TIMES", 1)


def kept(*features: str, threads: int = 1) -> Roofline:
    """What predictions for a target go by."""
    return module._kept(resolve("x86-64-v3"), features, threads)


def test_beside_a_library_it_is_measured_anew_for_clocks_change(opened, measured, tmp_path):
    assert [roofline(opened).gflops for _ in range(2)] == [1.0, 2.0]
    assert roofline(with_features(opened, "avx", "fma", threads=2)).gflops == 3.0
    assert measured[2] == (("avx", "fma"), 256, 2)
    assert not (tmp_path / "cache").exists()


def test_for_predictions_it_is_measured_once_for_each_processor_features_and_threads(
    measured, once, monkeypatch, tmp_path
):
    first = kept()
    assert kept() == first and len(measured) == 1
    assert kept(threads=2).gflops == 2.0
    assert kept("avx", "fma").gflops == 3.0
    other = Host("Linux", "x86_64", frozenset(), host().cores, processor="another")
    monkeypatch.setattr(module, "host", lambda: other)
    assert kept().gflops == 4.0
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_the_best_of_some_measurements_is_kept_for_other_programs_may_disturb_one(monkeypatch, tmp_path):
    rounds = iter([(90.0, 8.0, 40.0), (100.0, 30.0, 35.0), (80.0, 20.0, 42.0)])

    def fake(target, features, vector_bits, sizes, threads):
        gflops, first, others = next(rounds)
        return Roofline(gflops, tuple((size, first if size == sizes[0] else others) for size in sizes))

    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "measure", fake)
    found = [kept() for _ in range(TIMES + 1)]
    assert [(each.gflops, each.bandwidth[0][1], each.memory_gbps) for each in found] == [
        (90.0, 8.0, 40.0),
        (100.0, 30.0, 40.0),
        (100.0, 30.0, 42.0),
        (100.0, 30.0, 42.0),
    ]


def test_native_gets_a_peak_and_other_targets_keep_what_they_say(measured, once):
    native = with_peak(resolve("native")).hardware
    assert (native.peak_gflops, native.dram_gbps) == (1.0, 10.0)
    assert with_peak(resolve("native,peak_gflops=7")).hardware.peak_gflops == 7
    assert [with_peak(resolve(name)) == resolve(name) for name in ("rpi4", "x86-64-v3")] == [True, True]
    assert len(measured) == 1


def test_what_is_damaged_or_cannot_be_kept_is_measured_again(measured, once, monkeypatch, tmp_path):
    kept()
    (file,) = (tmp_path / "cache").iterdir()
    for text in ("", "[]", '{"gflops": 1}'):
        file.write_text(text)
        assert len(kept().bandwidth) > 2
    assert json.loads(file.read_text())["gflops"] == len(measured) == 4
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "file"))
    assert [kept().gflops for _ in range(2)] == [5.0, 6.0]


def test_vectors_are_as_wide_as_the_library_s(opened, measured):
    v3 = resolve("x86-64-v3").hardware.features
    for features in (v3, ("avx",), ("avx", "avx512f"), ("sse3",)):
        roofline(with_features(opened, *features))
    assert [bits for _, bits, _ in measured] == [256, 256, 512, 128]


def test_working_sets_grow_from_the_first_cache_past_the_last():
    sizes = module._sizes()
    assert list(sizes) == sorted(set(sizes))
    assert sizes[0] == 16 << 10 and sizes[-1] >= max(128 << 20, min(4 * host().last_cache_kib << 10, 512 << 20))


# ---- measuring --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "x86-64-v4", "arm64", "armv7", "riscv64", "x86-64-windows"])
def test_the_library_that_measures_can_be_made_for_every_kind_of_machine(name, tmp_path):
    target = resolve(name)
    try:
        library = build(target, target.hardware.features, target.hardware.vector_bits, [0, *SIZES], tmp_path)
    except ToolError as error:
        if "no C compiler" not in error.message:
            raise
        pytest.skip(error.message)
    assert library.is_file()


@pytest.mark.parametrize("threads", [1, 2, 0])
def test_measuring_gives_a_number_for_everything(threads):
    target = resolve("native")
    try:
        found = measure(target, target.hardware.features, target.hardware.vector_bits, SIZES, threads, 0.01)
    except ToolError as error:
        pytest.skip(error.message)
    assert found.gflops > 0
    assert tuple(size for size, _ in found.bandwidth) == SIZES
    assert all(gbps > 0 for _, gbps in found.bandwidth)


def test_without_a_compiler_there_is_a_reason(library, monkeypatch, tmp_path):
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path))
    opened = open_library(library)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = attempt(opened)
    assert isinstance(found, ToolError)
    assert roofline_facts(found)["why_not"].startswith("no C compiler for target `native`: looked for `cc`")


def test_a_failure_while_measuring_is_a_reason_too(opened, measured, monkeypatch):
    def fail(*anything: object) -> Roofline:
        raise RunError("no memory for the arena")

    monkeypatch.setattr(module, "measure", fail)
    found = attempt(opened)
    assert isinstance(found, NnccError) and roofline_facts(found) == {"why_not": "no memory for the arena"}


def test_kernels_of_a_gpu_have_the_least_times_of_its_description_which_knows_of_tensor_cores():
    launches = [
        {"blocks": 80, "threads": 128, "waves": 0.25, "occupancy": 0.5},
        {"blocks": 10, "threads": 128, "waves": 0.01, "occupancy": 0.25},
    ]
    device = {"kernels": {"conv": {"least_us": 2.5e4, "launches": launches}}}
    described = Roofline(1.0, ((1 << 20, 300.0),), described=True)
    conv, copy = kernel_rows(CALLS, SECONDS, {}, described, device)
    assert (conv["roofline"], conv["waves"], conv["occupancy"]) == (pytest.approx(0.5), 0.25, 0.5)
    assert copy["roofline"] is None
    head, first, second = kernel_table([conv, copy]).splitlines()
    assert head.split()[5:9] == ["roofline", "waves", "occupancy", "schedule"]
    assert first.split()[-6:] == ["50", "%", "0.25", "50", "%", "conv"]
    assert second.split()[-4:] == ["-", "-", "-", "copy"]


def test_the_roofline_of_a_gpu_is_that_of_its_description(opened):
    roof = Roofline(10_000.0, ((1 << 20, 300.0),), described=True)
    text = measurement_text(opened, MEASURED, kernel_rows(CALLS, SECONDS, {}, roof), roof)
    words = "roofline  10000 GFLOP/s, 300 GB/s from memory (float32, as the target describes a GPU)"
    assert text.split("\n\n")[2] == words


def test_of_measurements_in_turn_with_something_else_the_medians_count_and_failures_do_not():
    error = ToolError("no C compiler", "install gcc")
    found = [Roofline(gflops, ((1 << 14, gflops / 2), (1 << 27, 30.0 + gflops))) for gflops in (100.0, 300.0, 104.0)]
    assert typical([error, *found]) == Roofline(104.0, ((1 << 14, 52.0), (1 << 27, 134.0)))
    assert typical([error, error]) is error
