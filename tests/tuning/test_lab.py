"""Candidates are built, measured beside the default and checked; one that is bad fails alone."""

import math
import os
import time

import numpy as np
import pytest
from compiled import Net, lowered

from nncc.kernels.choices import Choices
from nncc.kernels.schedule_kernel import schedule_kernel
from nncc.kernels.templates import load_templates
from nncc.target import resolve
from nncc.tuning.agreement import wrong_by
from nncc.tuning.candidates import Kernel
from nncc.tuning.lab import Lab
from nncc.tuning.runners import CandidateError, open_runner
from nncc.tuning.tasks import kernel_tasks

TARGET = resolve("native,num-cores=1")

FAULTY = """
import os, pathlib, time
from nncc.kernels import templates
MATMUL = next(t for n, t in templates.load_templates().items() if n == "matmul").module
NAME, codes, compute_coded = "matmul", MATMUL.codes, MATMUL.compute_coded
compute = MATMUL.compute

def schedule(sch, block, hardware, choose):
    fault = choose("fault", ["none", "abort", "hang", "refuse"])
    elsewhere = os.getpid() != int(os.environ["NNCC_TEST_PID"])
    if fault == "abort" and elsewhere:
        os.abort()
    if fault == "hang" and elsewhere:
        time.sleep(600)
    if fault == "refuse" and elsewhere:
        raise ValueError("no such tile")
    return MATMUL.schedule(sch, block, hardware, choose)
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    net = Net()
    x = net.input(1, 24, 32)
    net.output(net.op("MatMul", x, net.weight(32, 48)))
    return kernel_tasks(lowered(net, tmp_path_factory.mktemp("net")), load_templates())[0]


def default(task, templates=None, **changes):
    """The default's kernel with some answers changed, and what the template then asks for besides."""
    choices = Choices({name: options[0] for name, options in task.options.items()} | changes)
    with TARGET.tvm_target():
        schedule_kernel(task.function, templates or load_templates(), TARGET.hardware, choices)
    return Kernel(task.function, task.constants, choices.taken)


@pytest.fixture
def lab():
    runner = open_runner("local", TARGET)
    made = Lab(TARGET, load_templates(), (), runner, 1 << 20, seed=0)
    yield made
    made.close()
    runner.close()


def test_candidates_are_timed_beside_the_default_and_right(task, lab):
    tiles = task.options["tile"][1:4]
    candidates = [default(task, tile=tile) for tile in tiles]
    results = lab.measure(default(task), candidates)
    assert [result.error for result in results] == [""] * 3
    for result in results:
        assert 0.05 < result.timing.ratio < 20
        assert result.timing.low <= result.timing.ratio <= result.timing.high
    assert lab.check([default(task), *candidates]) == ""


def test_an_abort_a_hang_and_a_refusal_of_the_compiler_fail_alone(task, tmp_path, monkeypatch):
    monkeypatch.setenv("NNCC_TEST_PID", str(os.getpid()))
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY)
    templates = load_templates([path])
    runner = open_runner("local", TARGET)
    lab = Lab(TARGET, templates, [path], runner, 0, seed=0)
    try:
        faults = ["none", "abort", "hang", "refuse"]
        plain, *others = (default(task, templates, fault=fault) for fault in ["none", *faults])
        start = time.monotonic()
        lab.measure(plain, [plain])  # how long one takes here and now, from the start of its process on
        lab.builders.timeout = max(8, math.ceil(2 * (time.monotonic() - start)))
        results = lab.measure(plain, others)
        again = lab.measure(plain, [plain])
    finally:
        lab.close()
        runner.close()
    assert results[0].timing is not None
    assert [result.error for result in results[1:]] == [
        "the compiler crashed: SIGABRT",
        f"it was not built within {lab.builders.timeout} s",
        "no such tile",
    ]
    assert again[0].timing is not None


def test_a_library_that_crashes_where_it_runs_costs_only_the_candidate_that_is_to_blame(task, lab, monkeypatch):
    measure, orders = lab.runner.measure, []

    def measured(order):
        found = measure(order)
        orders.append(found.shape[1])
        if found.shape[1] % 3 == 0:  # the two libraries with two candidates, first; then one of those with one
            raise CandidateError(f"{order.library} crashed: SIGSEGV")
        return found

    monkeypatch.setattr(lab.runner, "measure", measured)
    lab._weights_bytes = 0
    tiles = task.options["tile"][1:5]
    results = lab.measure(default(task), [default(task, tile=tile) for tile in tiles])
    assert orders == [3, 3, 2, 2, 2, 2]
    assert [result.timing is not None for result in results] == [True] * 4


def test_wrong_numbers_are_told_from_rounding():
    expected = np.linspace(-4, 4, 1000, dtype=np.float32)
    assert wrong_by(expected, expected * (1 + 1e-6)) == ""
    assert (
        wrong_by(expected, np.roll(expected, 1)) == "it is wrong by 8, where the untuned kernel's largest output is 4"
    )
    broken = expected.copy()
    broken[7] = np.nan
    assert wrong_by(expected, broken) == "it gives infinities or NaNs where the untuned kernel does not"
    assert wrong_by(broken, broken) == ""


def test_a_time_that_is_too_short_is_a_failure_and_no_record(task, lab, monkeypatch):
    measure = lab.runner.measure
    monkeypatch.setattr(lab.runner, "measure", lambda order: 0 * measure(order))
    (result,) = lab.measure(default(task), [default(task, tile=task.options["tile"][1])])
    assert (result.timing, result.error) == (None, "its time is too short to measure")
