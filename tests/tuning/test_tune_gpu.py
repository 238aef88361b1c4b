"""`nncc tune` for GPUs, with g++ in place of nvcc and of the GPU: candidates are compiled, run, checked and kept."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from compiled import ROUNDING, Net
from fake_cuda import compiler, fake_compiler, fake_gpu, run_python

import nncc
from nncc.cli import cli
from nncc.config import Config, Tuning
from nncc.errors import RunError, TargetError
from nncc.frontend.onnx import import_onnx
from nncc.kernels.templates import load_templates
from nncc.pipeline import plan, run
from nncc.target import resolve
from nncc.tuning import session
from nncc.tuning.agreement import wrong_by
from nncc.tuning.candidates import Kernel, build_candidates, check_inputs
from nncc.tuning.finals import Finals
from nncc.tuning.outcome import Watcher
from nncc.tuning.records import Key, read_folder
from nncc.tuning.runners import Order, open_runner
from nncc.tuning.tasks import kernel_tasks
from nncc.tuning.tune import tune
from nncc.verify import reference, sample_inputs

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler on this machine"),
    pytest.mark.skipif(sys.platform != "linux", reason="the fake driver is for Linux"),
]

RUN = """
import sys, numpy, nncc
with nncc.load(sys.argv[1]) as module:
    numpy.savez(sys.argv[3], **module.run(dict(numpy.load(sys.argv[2]))))
"""


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """The environment of a machine with a GPU of compute capability 8.0 whose blocks take a millisecond each."""
    folder = tmp_path_factory.mktemp("nvcc")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in fake_gpu(folder / "none", capability="8.0", block_ms="1").items():
            patch.setenv(name, value)
        patch.setenv("NNCC_NVCC", fake_compiler(folder))
        patch.setattr(os, "cpu_count", lambda: 1)
        yield patch


def save_net(folder: Path) -> Path:
    net = Net()
    x = net.op("Relu", net.op("MatMul", net.input(24, 64, name="x"), net.weight(64, 96)))
    net.output(net.op("MatMul", x, net.weight(96, 40)))
    net.save(folder / "net.onnx")
    return folder / "net.onnx"


@pytest.fixture(scope="module")
def tuned(gpu, tmp_path_factory):
    """The model, the folder of its records, and what tuning found; tiles of 4 x 128 are said to spill."""
    folder = tmp_path_factory.mktemp("tune")
    model = save_net(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "BATCH", 4)
        patch.setattr(Finals, "LEVELS", 1)
        patch.setenv("NNCC_FAKE_NVCC_SPILLS", "Tile<4, 128,")
        tuning = Tuning(into=folder / "team", trials=8, graph=False)
        found = tune(model, Config(target="cuda-sm80", shipped_records=False), tuning, Watcher())
    return model, folder / "team", found


def test_the_fastest_tiles_are_found_and_the_records_say_whose_times_they_are(tuned):
    _, team, found = tuned
    assert found.state.trials == 8 and found.state.failed == 0
    assert len(found.kept) == 2 and found.final is not None and found.final.ratio < 0.9
    records, problems = read_folder(team)
    assert not problems
    assert {record.machine for record in records} == {"Fake 0"}, "never as the times of a GPU"
    assert {record.key for record in records} == {Key.of(resolve("cuda-sm80"))}
    for record in records:
        assert record.task.hash in records.workloads


def test_what_spills_is_not_measured(tuned):
    _, team, found = tuned
    assert found.state.pruned >= 2
    spilling = [r for r in read_folder(team)[0] if r.decisions["tile"][:2] == [4, 128]]
    assert spilling
    for record in spilling:
        assert record.error == "not measured: it spills 64 bytes a thread, the default 0"


def test_compiling_with_the_records_or_the_lock_has_the_tuned_tiles_and_computes_the_same(tuned, tmp_path):
    model, team, found = tuned
    options = {"target": "cuda-sm80", "verify": False, "dump_code": ("cu",), "lock": tmp_path / "net.lock"}
    plain = nncc.compile(model, output=tmp_path / "plain", target="cuda-sm80", verify=False, shipped_records=False)
    first = nncc.compile(model, output=tmp_path / "a", records=[team], shipped_records=False, **options)
    locked = nncc.compile(model, output=tmp_path / "b", **options)
    code = (tmp_path / "a" / "net.cu").read_text()
    for entry in found.kept.values():
        assert f"nncc::Tile<{', '.join(map(str, entry.decisions['tile']))}>" in code
    assert first.library.read_bytes() == locked.library.read_bytes() != plain.library.read_bytes()
    inputs = sample_inputs(import_onnx(model))
    np.savez(tmp_path / "in.npz", **inputs)
    for artifact in (plain, first):
        run_python(RUN, dict(os.environ), artifact.library, tmp_path / "in.npz", tmp_path / "out.npz")
        for name, array in reference(model, inputs).items():
            np.testing.assert_allclose(np.load(tmp_path / "out.npz")[name], array, rtol=ROUNDING, atol=ROUNDING)


def test_what_computes_something_else_is_found_by_its_numbers(gpu, tuned, tmp_path):
    model, *_ = tuned
    (tmp_path / "wrong.py").write_text(WRONG)
    target, templates = resolve("cuda-sm80"), load_templates([tmp_path / "wrong.py"])
    kernels = run(plan(model, Config(target="cuda-sm80", until="lower", verify=False)))
    task = kernel_tasks(kernels, templates)[0]
    default = {name: options[0] for name, options in task.options.items()}
    candidates = [Kernel(task.function, task.constants, {**default, "wrong": wrong}) for wrong in (False, False, True)]
    built = build_candidates(candidates, templates, target, tmp_path, check=True)
    runner = open_runner("local", target)
    try:
        plain, same, other = runner.run(built.library, 1, check_inputs(candidates, templates, target, 0), 60)
    finally:
        runner.close()
    np.testing.assert_array_equal(same, plain)
    assert wrong_by(plain, other).startswith("it is wrong by ")


WRONG = """
from nncc.gpu import device_loops
from nncc.kernels import templates
MATMUL = next(t for n, t in templates.load_templates().items() if n == "cuda_matmul").module
NAME, compute, on_grid = "cuda_matmul", MATMUL.compute, device_loops.on_grid

def schedule(sch, block, hardware, choose):
    wrong = choose("wrong", [False, True])  # each block then makes the first one's tile
    def same_tile(sch, block, call, *rest):
        return on_grid(sch, block, lambda x, y, z, thread: (*call(x, y, z, thread)[:3], 0, 0, z), *rest)
    device_loops.on_grid = same_tile if wrong else on_grid
    try:
        return MATMUL.schedule(sch, block, hardware, choose)
    finally:
        device_loops.on_grid = on_grid
"""


def test_a_machine_without_a_gpu_refuses_and_says_where_to_measure(gpu, monkeypatch):
    monkeypatch.setenv("NNCC_FAKE_CUDA_DEVICES", "0")
    with pytest.raises(RunError) as error:
        open_runner("local", resolve("cuda-sm80"))
    assert error.value.message == (
        "runner `local`: no GPU for target `cuda-sm80`: NVIDIA's driver does not start (error 100)"
    )
    assert error.value.hint == "measure on a machine that has one, with `--runner rpc://HOST:PORT/KEY`"


def test_a_gpu_of_another_compute_capability_is_refused(gpu):
    with pytest.raises(TargetError) as error:
        open_runner("local", resolve("cuda-sm90"))
    assert error.value.message == "runner `local`: target `cuda-sm90` is for sm_90, and Fake 0 there is sm_80"
    assert error.value.hint == "tune for a target of that architecture: `nncc targets` lists targets"


def test_tasks_are_listed_where_there_is_no_gpu_by_their_least_times(gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("NNCC_FAKE_CUDA_DEVICES", "0")
    words = ["tune", str(save_net(tmp_path)), "--target", "cuda-sm80", "--tasks", "list", "--records", str(tmp_path)]
    tasks = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert [task["estimated"] for task in tasks] == [True, True]
    # 24 x 64, 64 x 96 and 24 x 96 floats once from memory of 2039 GB/s.
    assert max(task["seconds"] for task in tasks) == pytest.approx(4 * (24 * 64 + 64 * 96 + 24 * 96) / 2039e9, rel=1e-3)
    text = CliRunner().invoke(cli, words).stdout
    assert text.endswith("least times by the target's facts, for there is no such GPU here\n")


def test_candidates_are_built_in_one_place_and_measured_in_another(gpu, tuned, tmp_path, capfd):
    """`benchmarks/gpu.py --tune`: what crashes is left out, what was measured is not measured again."""
    import gpu_tuning

    model, *_ = tuned
    folder = tmp_path / "tune"
    assert gpu_tuning.make_candidates(model, "cuda-sm80", 1 << 20, folder, 4) == 2
    assert gpu_tuning.make_candidates(model, "cuda-sm80", 1 << 20, folder, 4) == 0
    (folder / "0000000000000000.so").write_bytes(b"\x7fELF")
    facts = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    (folder / "0000000000000000.json").write_text(json.dumps({**next(iter(facts.values())), "number": -1}))
    gpu_tuning.measure_candidates(folder, seconds=0.0)
    assert not (folder / gpu_tuning.MEASURED).exists()
    gpu_tuning.measure_candidates(folder)
    rows = [json.loads(line) for line in (folder / gpu_tuning.MEASURED).read_text().splitlines()]
    assert [row["task"] for row in rows] == ["0" * 16, *sorted(facts, key=lambda task: facts[task]["number"])]
    assert "error" in rows[0] and all(row["machine"] == "Fake 0" and not any(row["wrong"]) for row in rows[1:])
    gpu_tuning.measure_candidates(folder)
    assert len((folder / gpu_tuning.MEASURED).read_text().splitlines()) == 3
    assert gpu_tuning.learn(folder, tmp_path / "records") == 2
    records, problems = read_folder(tmp_path / "records")
    assert not problems and len([r for r in records if r.accepted]) == 2
    assert {record.machine for record in records} == {"Fake 0"}


@pytest.mark.slow
def test_a_gpu_is_measured_behind_rpc(gpu, tuned, tmp_path):
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    from farm import Farm

    from nncc.backends import backend

    model, *_ = tuned
    program = run(plan(model, Config(target="cuda-sm80", until="flatten", verify=False)))
    library = backend(program.target).build(program, tmp_path, "net", rpc=True).library
    with Farm(tmp_path) as farm:
        farm.server("board")
        address = f"rpc://127.0.0.1:{farm.port}/board"
        runner = open_runner(address, program.target)
        assert runner.processor() == "Fake 0"
        assert runner.measure(Order(library, 1, rounds=2)).shape == (2, 2)
        inputs = sample_inputs(import_onnx(model))
        (found,) = runner.run(library, 1, list(inputs.values()), 60)
        with pytest.raises(RunError) as error:
            open_runner(address, resolve("cuda-sm90")).processor()
    np.testing.assert_allclose(found, *reference(model, inputs).values(), rtol=ROUNDING, atol=ROUNDING)
    assert error.value.message.startswith(
        "libraries for target `cuda-sm90` do not run on `board`: the kernels of target cuda-sm90 are for compute "
        "capability 9.0 and later ones; device 0, Fake 0, has 8.0: compile for a target that it runs (on 127.0.0.1:"
    )
    assert error.value.hint == "tune for a target of that machine: `nncc targets` lists targets"
