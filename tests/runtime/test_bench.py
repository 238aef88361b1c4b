"""nncc-bench: the runner for boards that have no Python."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

X = np.arange(32, dtype=np.float32)


@pytest.fixture
def run(model, bench, tmp_path):
    def call(*arguments: str, library: str | Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [bench(), library or model(), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    return call


def test_inputs_come_from_files_and_outputs_go_to_files(run, tmp_path):
    X.tofile(tmp_path / "x=1.bin")
    done = run("--input", "x=x=1.bin", "--output", "y=y.bin", "--fill", "zeros", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.fromfile(tmp_path / "y.bin", np.float32), X * (X + 0.5))


def test_ones_are_ones(run, tmp_path):
    np.zeros(1, np.int32).tofile(tmp_path / "mode.bin")
    assert run("--fill", "ones", "--input", "mode=mode.bin", "--output", "y=y.bin").returncode == 0
    assert np.array_equal(np.fromfile(tmp_path / "y.bin", np.float32), np.arange(32) + 0.5)


def test_random_inputs_depend_on_the_seed_alone_and_lie_between_minus_one_and_one(run, tmp_path):
    np.zeros(1, np.int32).tofile(tmp_path / "mode.bin")
    results = []
    for seed in ("1", "1", "2"):
        assert run("--seed", seed, "--input", "mode=mode.bin", "--output", "y=y.bin").returncode == 0
        results.append(np.fromfile(tmp_path / "y.bin", np.float32) / (np.arange(32) + 0.5))
    assert np.array_equal(results[0], results[1]) and not np.array_equal(results[0], results[2])
    assert (np.abs(results[0]) <= 1).all() and results[0].min() < -0.5 and results[0].max() > 0.5


def test_json_has_every_number(run):
    done = run("--json", "--fill", "zeros", "--repeat", "11", "--warmup", "0", "--profile")
    report = json.loads(done.stdout)
    times = sorted(report["times_ms"])
    assert len(times) == 11
    assert (report["min_ms"], report["p50_ms"], report["p90_ms"]) == (times[0], times[5], times[9])
    assert report["mean_ms"] == pytest.approx(np.mean(times), abs=2e-6), "each of 11 numbers is printed to 1e-6"
    assert report["load_ms"] > 0 and report["create_ms"] > 0 and report["peak_rss_kib"] > 100
    assert [call["name"] for call in report["calls"]] == ["fake_scale", 'fake_"behave"', "copy"]
    moved = [call["gbps"] * call["mean_us"] * 1e3 for call in report["calls"]]
    assert moved == pytest.approx([384, 20, 256], rel=0.05), "bytes, of which rates and times are printed to 1e-4"
    assert sum(call["share"] for call in report["calls"]) == pytest.approx(1, abs=3e-6)


def test_the_table_names_every_call(run):
    done = run("--fill", "zeros", "--profile")
    assert done.stdout.startswith("fake for testboard, 1 thread, 10 runs\n")
    for word in ("min_ms", "p90_ms", "GFLOP/s", "GB/s", "fake_scale", 'fake_"behave"', "copy"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("--input", "z=a.bin"), 2, "--input z=a.bin: the model has no such input; it has `x` `mode`"),
        (("--input", "x=missing.bin"), 1, "cannot read missing.bin: No such file or directory"),
        (("--input", "x=short.bin"), 1, "short.bin has 3 bytes; input `x` has 128"),
        (("--output", "y=no/such/folder"), 1, "cannot write no/such/folder: No such file or directory"),
        (("--fill", "twos"), 2, "--fill: `twos` is none of random, zeros, ones"),
        (("--repeat", "0"), 2, "--repeat: `0` is not a whole number of at least 1"),
        (("--threads",), 2, "--threads wants a value"),
        (("--speed",), 2, "--speed is no option; see --help"),
    ],
)
def test_mistakes_are_named(run, tmp_path, arguments, status, text):
    (tmp_path / "short.bin").write_bytes(b"abc")
    done = run(*(arguments if "--fill" in arguments else ("--fill", "zeros", *arguments)))
    assert (done.returncode, done.stderr) == (status, f"nncc-bench: {text}\n")


def test_libraries_that_are_none_are_named(run, model, tmp_path):
    (tmp_path / "text.so").write_text("hello")
    assert run(library="text.so").stderr.startswith("nncc-bench: cannot load: ./text.so: ")
    done = run(library=model("-DFAKE_ABI=7"))
    assert done.stderr.endswith("speaks version 7 of the interface, this program version 4\n")
    assert done.returncode == 1


def test_an_input_that_cannot_be_filled_is_named(run, model):
    library = model('-DFAKE_X_TYPE="float8_e4m3fn"')
    assert run(library=library).stderr == (
        "nncc-bench: cannot fill input `x` of dtype float8_e4m3fn with random; "
        "give it by --input, or use --fill zeros\n"
    )
    assert run("--fill", "zeros", library=library).returncode == 0
