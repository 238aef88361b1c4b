"""Libraries run in a process of their own, under an emulator where they are another machine's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import nncc
from nncc.codegen.toolchains import find_toolchain
from nncc.emulation import emulator, write_runner
from nncc.errors import NnccError, RunError, TargetError
from nncc.execute import describe, open_library
from nncc.library_facts import is_library, schedules_beside, target_of
from nncc.measurement import Measurement
from nncc.resources import runtime_folder
from nncc.target import resolve


def can_emulate(name: str) -> bool:
    try:
        return bool(emulator(resolve(name)))
    except NnccError:
        return False


@pytest.fixture(autouse=True, scope="module")
def _runner_of_our_own(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNCC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def inputs():
    rng = np.random.default_rng(3)
    return {"image": rng.standard_normal((2, 3, 8, 8), np.float32), "offset": rng.standard_normal(5, np.float32)}


def test_a_library_runs_as_the_loader_runs_it(library, inputs):
    opened = open_library(library, threads=2)
    assert [str(spec) for spec in (*opened.inputs, *opened.outputs)] == [
        "image: float32[2x3x8x8]",
        "offset: float32[5]",
        "y: float32[2x5]",
    ]
    with nncc.load(library) as module:
        assert opened.describe() == module.description
        np.testing.assert_array_equal(opened.run(inputs)["y"], module.run(inputs)["y"])


def test_all_that_is_wrong_with_the_inputs_is_told_at_once(library):
    wrong = {"image": np.zeros((1, 3, 8, 8), np.float64), "bias": np.zeros(5, np.float32)}
    with pytest.raises(RunError) as caught:
        open_library(library).run(wrong)
    assert caught.value.message.splitlines() == [
        "input `image` is float64[1x3x8x8], expected float32[2x3x8x8]",
        "input `offset` is missing, expected float32[5]",
        "there is no input `bias`; the model's are `image`, `offset`",
    ]


def test_measurements_are_ordered(library, inputs):
    found = open_library(library).benchmark(inputs, repeat=30, warmup=1, profile=True)
    assert len(found.seconds) == 30
    assert 0 < min(found.seconds) <= found.p50 <= found.p90 <= max(found.seconds)
    assert len(found.call_seconds) == len(open_library(library).describe()["calls"])


def test_a_time_limit_decides_how_often(library, inputs):
    assert len(open_library(library).benchmark(inputs, seconds=1e-9).seconds) == 5


@pytest.mark.parametrize(
    ("seconds", "p50", "p90"),
    [((3.0,), 3.0, 3.0), ((4.0, 1.0), 2.5, 4.0), (tuple(map(float, range(1, 11))), 5.5, 9.0)],
)
def test_percentiles(seconds, p50, p90):
    found = Measurement(1, 0, seconds, 0.0, 0.0, 0)
    assert (found.p50, found.p90) == (p50, p90)


def test_the_schedules_are_those_of_the_same_build(library, tmp_path):
    assert schedules_beside(library, describe(library))
    copy = Path(shutil.copy(library, tmp_path))
    assert schedules_beside(copy, describe(copy)) == {}
    copy.with_suffix(".json").write_text('{"build": "another", "schedules": {"conv": "x"}}')
    assert schedules_beside(copy, describe(copy)) == {}


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_crash_of_the_library_is_an_error_here(tmp_path):
    (tmp_path / "crash.c").write_text(
        """
        #include <signal.h>
        #include "nncc.h"
        static const int64_t shape[] = {1};
        static const nncc_tensor t = {"x", "float32", 1, shape, 4};
        static const nncc_info info = {.abi_version = NNCC_ABI_VERSION, .num_inputs = 1, .num_outputs = 1,
            .name = "crash", .target = "native", .build = "", .compiler = "", .features = "", .inputs = &t,
            .outputs = &t};
        const nncc_info* nncc_describe(void) { return &info; }
        int nncc_create(nncc_context** c, int n) { *c = (nncc_context*)&info; return 0; }
        int nncc_resize(nncc_context* c, const int64_t* s) { return 0; }
        int nncc_output_shape(const nncc_context* c, int32_t o, int64_t* s) { s[0] = 1; return 0; }
        int nncc_run(nncc_context* c, const void* const* i, void* const* o) { return raise(SIGSEGV); }
        int nncc_profile(nncc_context* c, const void* const* i, void* const* o, double* s) { return 0; }
        void nncc_destroy(nncc_context* c) {}
        const char* nncc_last_error(void) { return ""; }
        """
    )
    library = tmp_path / "crash.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-I", runtime_folder(), tmp_path / "crash.c", "-o", library],
        check=True,
    )
    with pytest.raises(RunError) as caught:
        open_library(library).run({"x": np.zeros(1, np.float32)})
    assert caught.value.message == f"{library} crashed: SIGSEGV"


# ---- another machine's ------------------------------------------------------------------------------------------


def test_the_target_is_written_in_the_file(library, arm64_library):
    assert target_of(arm64_library).name == "arm64"
    assert target_of(library).name == "native"


def test_a_target_of_one_s_own_is_like_one_of_the_same_machine(arm64_library, tmp_path):
    data = arm64_library.read_bytes()
    renamed = tmp_path / "renamed.so"
    renamed.write_bytes(data.replace(b"nncc-target:arm64\0", b"nncc-target:board\0"))
    assert renamed.read_bytes() != data
    assert target_of(renamed).name == "arm64"


def test_files_that_are_no_libraries(library, tmp_path):
    text = tmp_path / "text.so"
    text.write_text("hello")
    assert [is_library(path) for path in (library, text, tmp_path / "nothing")] == [True, False, False]
    for path, words in ((text, "is not a shared library"), (tmp_path / "nothing", "does not exist")):
        for attempt in (open_library, target_of):
            with pytest.raises(RunError, match=re.escape(f"{path} {words}")):
                attempt(path)


@pytest.mark.skipif(not can_emulate("arm64"), reason="needs qemu-aarch64 and an arm64 libc")
def test_another_machine_s_library_runs_in_an_emulator_and_is_not_timed(library, arm64_library, inputs):
    opened = open_library(arm64_library, threads=2)
    assert opened.emulated_by == "qemu-aarch64"
    assert opened.describe()["target"] == "arm64"
    found, expected = opened.run(inputs)["y"], open_library(library).run(inputs)["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * abs(expected).max())  # verify.TOLERANCE
    with pytest.raises(RunError) as caught:
        opened.benchmark(inputs)
    assert caught.value.message == "emulated by qemu-aarch64: times say nothing about the device"
    assert caught.value.hint == "`--runner FOLDER` writes the bench program for the board: copy both there"


def test_without_an_emulator_the_error_says_what_to_install(arm64_library, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(TargetError) as caught:
        open_library(arm64_library)
    assert caught.value.message == "this machine cannot run target `arm64`: there is no `qemu-aarch64`"
    assert caught.value.hint == "`apt install qemu-user libc6-arm64-cross`, or run it on a machine of its own"


def test_a_library_that_cannot_run_here_is_described_by_the_json_beside_it(arm64_library, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    about = describe(arm64_library)
    assert [each["name"] for each in about["inputs"]] == ["image", "offset"]
    copy = Path(shutil.copy(arm64_library, tmp_path))
    with pytest.raises(TargetError):
        describe(copy)
    copy.with_suffix(".json").write_text(
        arm64_library.with_suffix(".json").read_text().replace(about["build"], "0" * 32)
    )
    with pytest.raises(TargetError):
        describe(copy)


def test_without_a_libc_for_the_emulator(arm64_library, monkeypatch, tmp_path):
    from nncc import execute

    monkeypatch.delenv("QEMU_LD_PREFIX", raising=False)
    (tmp_path / "qemu-aarch64").write_text("")
    (tmp_path / "qemu-aarch64").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    from dataclasses import replace

    target = target_of(arm64_library)
    target = replace(target, link=replace(target.link, sysroot="/nowhere/aarch64"))
    monkeypatch.setattr(execute, "target_of", lambda path: target)
    with pytest.raises(TargetError) as caught:
        open_library(arm64_library)
    assert caught.value.message == "this machine cannot run target `arm64`: there is no `/nowhere/aarch64`"


def test_the_runner_for_a_board_is_compiled_for_the_board(arm64_library, tmp_path):
    try:
        find_toolchain(resolve("arm64"))
    except NnccError as error:
        pytest.skip(str(error))
    program = write_runner(arm64_library, tmp_path / "board")
    assert program == tmp_path / "board" / "nncc-bench"
    assert program.read_bytes()[18:20] == b"\xb7\x00"  # EM_AARCH64
    assert program.stat().st_mode & 0o111


def test_what_lies_in_the_current_folder_is_not_imported(library, inputs, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    with_neighbour = open_library(library).run(inputs)
    assert set(with_neighbour) == set(nncc.load(library).run(inputs))
