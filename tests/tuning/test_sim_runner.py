"""Layers of an accelerator are tuned by the cycles of its simulator, and their records are for that machine alone."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from accelerated import residuals
from quantized import QuantizedNet

from nncc.config import Config
from nncc.errors import UsageError
from nncc.pipeline import plan, run
from nncc.target import resolve
from nncc.templates import load_templates
from nncc.tuning.candidates import Kernel, build_candidates, check_inputs
from nncc.tuning.lock import read_lock, write_lock
from nncc.tuning.record import Key
from nncc.tuning.runners import Order, open_runner
from nncc.tuning.tasks import kernel_tasks

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="the simulator needs a C++ compiler")
VTA = resolve("vta")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    path = residuals().save(tmp_path_factory.mktemp("net") / "net.onnx")
    return kernel_tasks(run(plan(path, Config(target="vta", until="lower", verify=False))), load_templates())


@pytest.fixture(scope="module")
def runner():
    found = open_runner("sim", VTA)
    yield found
    found.close()


def candidates(task, count):
    return [Kernel(task.function, task.constants, {"plan": each}) for each in task.options["plan"][:count]]


def test_the_tasks_are_the_layers_of_the_accelerator_and_their_choice_is_the_plan(tasks):
    assert all(task.text.startswith("vta ") for task in tasks)
    assert {frozenset(task.options) for task in tasks} == {frozenset({"plan"})}
    assert max(len(task.options["plan"]) for task in tasks) > 20


def test_candidates_are_counted_alone(tasks, runner, tmp_path):
    one, other = candidates(tasks[0], 2)
    library = build_candidates([one, other, one], load_templates(), VTA, tmp_path).library
    seconds = runner.measure(Order(library, 1))
    assert (seconds == seconds[0]).all()
    first, second, again = seconds[0]
    assert first > 0 and second > 0
    assert again == first, "who computes before has no part in it"


@pytest.mark.parametrize("number", range(4))
def test_all_plans_compute_the_same(tasks, runner, tmp_path, number):
    kernels = candidates(tasks[number], 4)
    library = build_candidates(kernels, load_templates(), VTA, tmp_path, check=True).library
    inputs = check_inputs(kernels, load_templates(), VTA, 0)
    expected, *others = runner.run(library, 1, inputs, 60.0)
    assert len(np.unique(expected)) > 20
    for other in others:
        np.testing.assert_array_equal(other, expected)


def test_the_runner_of_this_machine_is_the_simulator_where_there_is_an_accelerator():
    local = open_runner("local", VTA)
    assert local.name == "sim"
    local.close()


def test_a_target_without_an_accelerator_has_no_simulator():
    with pytest.raises(UsageError) as caught:
        open_runner("sim", resolve("native"))
    assert caught.value.message == "runner `sim`: target `native` has no accelerator"
    assert caught.value.hint == "use the runner `local`"


def test_the_key_of_records_is_the_machine_and_not_its_host():
    key = Key.of(VTA)
    assert (key.kind, key.mcpu) == ("accelerator", "nv1_16x16_inp32_wgt256_acc128_uop16_par32")
    assert Key.of(replace(VTA, hardware=replace(VTA.hardware, cores=64), tvm={"kind": "llvm"})).code == key.code
    assert Key.of(resolve("vta,memory=ideal")).code != key.code
    assert Key.of(resolve("vta,golden=true")).kind == "llvm"


def test_a_lock_holds_the_machine(tmp_path):
    target = resolve("vta,wgt_kib=128")
    write_lock(tmp_path / "lock", target, ())
    assert read_lock(tmp_path / "lock", "vta").target.hardware == target.hardware


def test_tuning_through_the_simulator_tries_plans_and_writes_records(tmp_path):
    from nncc.config import Tuning
    from nncc.tuning.tune import tune

    net = QuantizedNet("int8")
    x = net.quantized(net.input(1, 32, 12, 12), 0.05)
    net.output(net.quantized_conv(x, 32, 32, (3, 3), pads=(1, 1, 1, 1)))
    path = net.save(tmp_path / "net.onnx")
    outcome = tune(path, Config(target="vta", verify=False), Tuning(into=tmp_path / "records", trials=6))
    assert (outcome.state.trials, outcome.state.failed) == (6, 0)
    assert outcome.baseline > 0
    assert list((tmp_path / "records").rglob("vta-1t*"))
