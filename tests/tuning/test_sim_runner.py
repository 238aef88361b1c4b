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
from nncc.kernels.templates import load_templates
from nncc.pipeline import plan, run
from nncc.target import resolve
from nncc.tuning.candidates import Kernel
from nncc.tuning.cycle_lab import lab_of
from nncc.tuning.lock import read_lock, write_lock
from nncc.tuning.record import Key
from nncc.tuning.runners import open_runner
from nncc.tuning.tasks import kernel_tasks
from nncc.vta.alone import cycles_of, random_arguments, result_of
from nncc.vta.decisions import layer_of, read_plan
from nncc.vta.layer import Layer
from nncc.vta.lower_layer import argument_bytes
from nncc.vta.machine import Machine

pytestmark = pytest.mark.skipif(shutil.which("c++") is None, reason="the simulator needs a C++ compiler")
VTA = resolve("vta")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    path = residuals().save(tmp_path_factory.mktemp("net") / "net.onnx")
    return kernel_tasks(run(plan(path, Config(target="vta", until="lower", verify=False))), load_templates())


@pytest.fixture(scope="module")
def lab():
    runner = open_runner("sim", VTA)
    made = lab_of(VTA)(VTA, load_templates(), (), runner, 0, seed=0)
    yield made
    made.close()
    runner.close()


def candidates(task, count):
    return [Kernel(task.function, task.constants, {"plan": each}) for each in task.options["plan"][:count]]


def test_the_tasks_are_the_layers_of_the_accelerator_and_their_choice_is_the_plan(tasks):
    assert all(task.text.startswith("vta ") for task in tasks)
    assert {frozenset(task.options) for task in tasks} == {frozenset({"plan"})}
    assert max(len(task.options["plan"]) for task in tasks) > 20


def layer_and_machine(task) -> tuple[Layer, Machine]:
    layer, machine = layer_of(task.function), VTA.hardware.accelerator
    assert layer is not None and machine is not None
    return layer, machine


def test_candidates_are_counted_alone(tasks, lab):
    one, other = candidates(tasks[0], 2)
    first, second, again = lab.measure(one, [one, other, one])
    assert first == again and first.timing.ratio == 1.0, "who computes before has no part in it"
    layer, machine = layer_and_machine(tasks[0])
    cycles = cycles_of(layer, read_plan(other.decisions["plan"]), machine)
    assert second.timing.seconds == pytest.approx(cycles / (1e6 * machine.clock_mhz))
    assert second.timing.low == second.timing.high == second.timing.ratio


def test_all_plans_compute_the_same(tasks, lab):
    for task in tasks:
        assert lab.check(candidates(task, 4)) == ""
    assert {layer_and_machine(task)[0].kind for task in tasks} == {"conv2d", "depthwise", "max_pool", "add"}


def test_random_arguments_tell_results_apart(tasks):
    for task in tasks:
        layer, machine = layer_and_machine(task)
        given = random_arguments(layer, machine, 0)
        assert [len(each) for each in given] == list(argument_bytes(layer, machine)[:-1])
        found = result_of(layer, read_plan(task.options["plan"][0]), machine, given)
        assert len(np.unique(found)) > min(20, found.size // 3)


def test_what_computes_something_else_is_told(tasks, lab, monkeypatch):
    kernels = candidates(tasks[0], 2)
    results = [np.zeros(8, np.uint8), np.arange(8, dtype=np.uint8)]
    monkeypatch.setattr("nncc.vta.alone.result_of", lambda *_: results.pop(0))
    assert lab.check(kernels) == "7 of 8 bytes are not those of the untuned kernel"


def test_a_plan_that_is_none_fails_alone(tasks, lab):
    good, bad = candidates(tasks[0], 1)[0], Kernel(tasks[0].function, tasks[0].constants, {"plan": "1x1"})
    found = lab.measure(good, [bad, good])
    assert found[0].error == "a layer for an accelerator has no plan: `1x1`" and found[1].timing is not None
    assert lab.check([good, bad]) == found[0].error


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
