"""`benchmarks/gpu.py`, unattended: libraries are made, measured on the fake driver, and what fails or is killed costs
no more than itself."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu
import gpu_peers
import models
import numpy as np
import pytest
import tables
from compiled import Net
from fake_cuda import compiler, fake_compiler, fake_gpu
from gpu_steps import Results, Step, plan_text, read_rows, run_steps

ROOT = Path(__file__).resolve().parents[2]
needs_compiler = pytest.mark.skipif(
    sys.platform != "linux" or compiler() is None, reason="the fake driver needs Linux and g++ or clang++"
)


# ---- steps ------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def step(self, kind: str, name: str, about: float, takes: float, done: list[str], elastic: bool = False) -> Step:
        def run(left: float | None) -> None:
            self.now += takes
            done.append(f"{name} at {self.now:.0f}, {left:.0f} were left")

        return Step(kind, name, about, run, elastic)


def test_steps_run_in_their_order_as_far_as_they_fit_and_estimates_learn():
    clock, done = Clock(), []
    steps = [
        clock.step("times", "a", 10, 20, done),
        clock.step("times", "b", 10, 20, done),
        clock.step("times", "long", 40, 80, done),  # of 40 seconds, which have been 80
        clock.step("times", "c", 10, 20, done),
        clock.step("candidates", "d", 500, 5, done, elastic=True),
    ]
    assert [step.name for step in run_steps(steps, 90, clock)] == ["long"]
    assert done == [
        "a at 20, 90 were left",
        "b at 40, 70 were left",
        "c at 60, 50 were left",
        "d at 65, 30 were left",
    ]


def test_the_plan_says_what_when_and_what_may_not_fit():
    steps = [Step("times", "net-int8", 12, print), Step("candidates", "of 3 kernels", 8, print, elastic=True)]
    assert plan_text(steps, 10) == (
        "  1  times      net-int8                            12 s, done after    12 s   may not fit\n"
        "  2  candidates of 3 kernels                         8 s, done after    20 s   for as long as there is time\n"
        "2 steps, about 20 s of 10 s"
    )
    assert plan_text(steps[:1], None).endswith("\n1 steps, about 12 s without a limit")


def test_a_line_that_was_not_finished_is_no_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    results = Results(path, "A GPU")
    made = {"model": "net", "precision": "int8", "build": "b"}
    assert results.known(made) is None
    path.write_text('{"model": "net", "preci')
    results.add({**made, "gpu": "Another GPU", "error": "it is another"})
    results.add({**made, "gpu": "A GPU", "rounds": 2})
    results.add({**made, "gpu": "A GPU", "rounds": 3})
    assert len(read_rows(path)) == 3 and len(path.read_text().splitlines()) == 4
    assert results.known(made)["rounds"] == 3
    assert results.known({**made, "build": "newer"}) is None


# ---- all of it --------------------------------------------------------------------------------------------------


def net(seed: int) -> Net:
    made = Net(seed=seed)
    x = made.op("Relu", made.conv(made.input(1, 8, 9, 9, name="x"), 8, 16, (3, 3)))
    made.output(made.op("MatMul", made.op("Flatten", x), made.weight(784, 10)))
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of libraries in all precisions, light ones too, and the environment of a machine with a GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "models.toml").write_text('[one]\nfile = "one.onnx"\n[two]\nfile = "two.onnx"\n')
    for seed, name in enumerate(("one", "two")):
        net(seed).save(folder / f"{name}.onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "FILE", folder / "models.toml")
        patch.setenv("NNCC_NVCC", fake_compiler(folder))
        words = ["make", "--zoo", str(folder), "--out", str(folder / "made"), "--target", "cuda-sm80"]
        gpu.make(gpu.parser().parse_args([*words, "--models", "one"]))
        gpu.make(gpu.parser().parse_args([*words, "--models", "two", "--light", "0.001", "--precisions", "float16"]))
    return folder / "made", fake_gpu(folder / "none", capability="8.0")


def measuring(made, results: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    folder, environment = made
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "measure", str(folder), "--results", str(results)]
    own = {f"NNCC_FAKE_CUDA_{name.upper()}": value for name, value in variables.items()}
    return subprocess.Popen(
        [*command, "--rounds", "1", *words],
        # No nvidia-smi, no compute-sanitizer; a program's own folder is looked into, whatever the tests are run with.
        env=environment | own | {"PATH": "", "PYTHONSAFEPATH": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ALL = ["one-float32", "one-float16", "one-int8", "two-float16"]


def names(rows: list) -> list[str]:
    return [f"{row['model']}-{row['precision']}" for row in rows]


@needs_compiler
def test_a_run_that_is_killed_goes_on_where_it_stopped_and_makes_the_table(made, tmp_path):
    results = tmp_path / "gpu.jsonl"
    first = measuring(made, results)
    while not read_rows(results) and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert names(read_rows(results)) == ALL[:1]
    second = measuring(made, results, "--sanitize")
    printed, _ = second.communicate()
    assert second.returncode == 0
    assert printed.startswith("  1  times      one-float16") and "sanitizer" not in printed
    rows = read_rows(results)
    assert names(rows) == ALL
    assert [row["compared"] for row in rows] == [True, True, True, False]
    assert all(row["gpu"] == "Fake 0" and row["milliseconds"]["nncc"] > 0 for row in rows)
    text = tables.gpu(rows)
    assert text.count("Fake 0, cuda-sm80, ") == 3
    assert "\n| two \\* | " in text and text.count("\n\n\\* with made-up weights: timed, and not compared.\n\n") == 1
    third = measuring(made, results)
    assert third.communicate()[0] == "0 steps, about 0 s without a limit\n"


@needs_compiler
def test_what_fails_is_a_row_and_the_next_one_s_turn(made, tmp_path):
    folder, _ = made
    whole = (folder / "one-float16" / "model.so").read_bytes()
    (folder / "one-float16" / "model.so").write_bytes(whole[:5000])
    expected = dict(np.load(folder / "one-int8" / "expected.npz"))
    np.savez(folder / "one-int8" / "expected.npz", **{name: array + 9 for name, array in expected.items()})
    try:
        run = measuring(made, tmp_path / "gpu.jsonl", memory="34000")
        _, said = run.communicate()
    finally:
        (folder / "one-float16" / "model.so").write_bytes(whole)
        np.savez(folder / "one-int8" / "expected.npz", **expected)
    assert run.returncode == 0 and len(said.splitlines()) == 3
    by_name = dict(zip(ALL, read_rows(tmp_path / "gpu.jsonl"), strict=True))
    out = "failed: CUDA_ERROR_OUT_OF_MEMORY (out of memory) (exit status 1)"
    assert by_name["one-float32"]["error"].endswith(out)
    assert "model.so" in by_name["one-float16"]["error"]
    assert "is not among its outputs: the nearest is" in by_name["one-int8"]["error"]
    assert "error" not in by_name["two-float16"]
    assert "| one |" not in tables.gpu(by_name.values())


@needs_compiler
def test_no_gpu_is_one_line(made, tmp_path):
    run = measuring(made, tmp_path / "gpu.jsonl", devices="0")
    assert run.communicate()[1] == "gpu.py: NVIDIA's driver does not start (error 100)\n"
    assert run.returncode == 1
    planned, _ = measuring(made, tmp_path / "gpu.jsonl", "--plan", devices="0").communicate()
    assert planned.endswith("\n4 steps, about 13 s without a limit\n"), "a plan needs none"


def test_every_precision_has_nncc_first():
    assert list(gpu_peers.CONTESTANTS) == list(gpu.PRECISIONS)
    assert all(next(iter(found)) == "nncc" for found in gpu_peers.CONTESTANTS.values())
