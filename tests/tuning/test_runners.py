"""Candidate libraries measured on this machine and under an emulator."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from candidates import (
    SAID,
    candidate_inputs,
    check_model,
    check_outputs,
    processes_of,
    small_net,
    wait_until,
    whole,
)
from compiled import ROUNDING, Compiled, compile_net

from nncc.emulation import emulator
from nncc.errors import NnccError, RunError, UsageError
from nncc.target import resolve
from nncc.tuning.runners import CandidateError, Order, open_runner

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")


@pytest.fixture(scope="module")
def compiled_arm64(tmp_path_factory) -> Compiled:
    """A small model for another machine."""
    return compile_net(small_net(), tmp_path_factory.mktemp("arm64"), "arm64")


@pytest.fixture(scope="module")
def local():
    runner = open_runner("local", resolve("native"))
    yield runner
    runner.close()


# ---- the names of runners


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("lokal", "did you mean `local`?"),
        ("board", "known: local, sim, qemu, rpc://HOST:PORT/KEY"),
        ("rpc", "known: local, sim, qemu, rpc://HOST:PORT/KEY"),
        ("local://x", "known: local, sim, qemu, rpc://HOST:PORT/KEY"),
    ],
)
def test_an_unknown_runner_is_refused(text, hint):
    with pytest.raises(UsageError) as caught:
        open_runner(text, resolve("native"))
    assert whole(caught) == (f"there is no runner `{text}`", hint)


@pytest.mark.parametrize("text", ["rpc://", "rpc://host/key", "rpc://host:9190", "rpc://host:9190/"])
def test_an_address_without_its_parts_is_refused(text):
    with pytest.raises(UsageError) as caught:
        open_runner(text, resolve("native"))
    hint = "rpc://HOST:PORT/KEY: the tracker's address, the devices' key"
    assert whole(caught) == (f"`{text}` names no devices", hint)


@pytest.mark.parametrize(
    ("features", "system", "words"),
    [((), "Darwin", "is for Darwin on "), (("warp", "flux"), "", "needs warp, flux, which this processor lacks")],
)
def test_another_machine_is_not_measured_here(features, system, words):
    native = resolve("native")
    link = replace(native.link, system=system or native.link.system)
    other = replace(native, name="other", link=link, hardware=replace(native.hardware, features=features))
    with pytest.raises(UsageError) as caught:
        open_runner("local", other)
    assert whole(caught) == (
        f"runner `local`: target `other` {words}{native.link.machine if system else ''}",
        "measure on the device, with rpc://HOST:PORT/KEY; or try the flow without times, with qemu",
    )


def test_this_machine_is_not_emulated():
    with pytest.raises(UsageError) as caught:
        open_runner("qemu", resolve("native"))
    name = resolve("native").name
    assert whole(caught) == (f"runner `qemu`: target `{name}` is this very machine", "use the runner `local`")


# ---- on this machine


def test_a_model_is_measured_on_this_machine(local, compiled):
    assert (local.name, local.stores_times, local.slots) == ("local", True, 1)
    assert local.processor()
    check_model(compiled, local, compiled.library)


def test_rounds_end_after_the_time_given_but_for_three(local, candidate):
    assert local.measure(Order(candidate("slow"), 1, warmup=0, seconds=0.0)).shape == (3, 2)
    assert len(local.measure(Order(candidate("slow"), 1, seconds=0.3))) in range(3, 8)
    slow = local.measure(Order(candidate("slow"), 1, rounds=2))
    assert slow.shape == (2, 2) and (slow[:, 1] >= 0.05).all() and (slow[:, 0] < 0.05).all()


def test_a_crash_is_the_candidate_s_and_the_next_one_is_measured(local, candidate):
    with pytest.raises(CandidateError) as caught:
        local.measure(Order(candidate("crash"), 1))
    assert whole(caught) == (f"{candidate('crash')} crashed: SIGSEGV", None)
    check_outputs(local.run(candidate("well"), 1, candidate_inputs(), 30))


def test_a_hang_is_killed_and_leaves_nothing(local, candidate):
    start = time.monotonic()
    with pytest.raises(CandidateError) as caught:
        local.measure(Order(candidate("hang"), 1, timeout=0.7))
    assert time.monotonic() - start < 5
    assert whole(caught) == (f"{candidate('hang')} did not end within 0.7 s", None)
    assert not processes_of(candidate("hang"))
    check_outputs(local.run(candidate("well"), 1, candidate_inputs(), 30))


def test_what_a_kernel_says_is_told(local, candidate):
    with pytest.raises(CandidateError) as caught:
        local.measure(Order(candidate("fail"), 1))
    assert whole(caught) == (f"{candidate('fail')}: kernel 1 (behave) failed: {SAID}", None)


def test_libraries_that_cannot_be_loaded_are_the_candidate_s(local, candidate, tmp_path):
    library = candidate("well", '-DFEATURES="flux"')
    with pytest.raises(CandidateError, match="flux"):
        local.measure(Order(library, 1))
    with pytest.raises(CandidateError) as caught:
        local.measure(Order(tmp_path / "none.so", 1))
    assert whole(caught) == (f"{tmp_path / 'none.so'} does not exist", None)


def test_inputs_of_another_size_are_refused(local, candidate):
    with pytest.raises(CandidateError) as caught:
        local.run(candidate("well"), 1, [np.zeros(3, np.float32), np.zeros(2, np.int64)], 30)
    assert whole(caught) == (f"{candidate('well')}: input `x` has 12 bytes, expected 128 for float32[4x8]", None)


def test_it_has_as_many_cores_as_threads(candidate, tmp_path):
    """The last ones of those allowed: what the kernel says of a process in the middle of an order."""
    runner = open_runner("local", resolve("native"))
    slow = candidate("slow")
    worker = threading.Thread(target=lambda: runner.measure(Order(slow, 1, rounds=40, seconds=1.0)))
    worker.start()
    allowed: set[str] = set()
    while worker.is_alive() and not allowed:
        for number in processes_of(slow):
            status = Path(f"/proc/{number}/status").read_text()
            allowed.add(re.search(r"Cpus_allowed_list:\s*(\S+)", status)[1])
        time.sleep(0.02)
    worker.join()
    runner.close()
    assert allowed == {str(max(os.sched_getaffinity(0)))}


def test_a_runner_that_is_closed_leaves_no_process(candidate):
    runner = open_runner("local", resolve("native"))
    runner.measure(Order(candidate("well"), 1))
    number = runner._warm._process.pid
    runner.close()
    runner.close()
    assert not Path(f"/proc/{number}").exists()


def test_a_warm_process_ends_with_the_one_that_started_it(candidate):
    """Killed, not closed; in the middle of an order that never ends."""
    program = (
        "from nncc.tuning.runners import *; from nncc.target import resolve; from pathlib import Path; "
        f"open_runner('local', resolve('native')).measure(Order(Path({str(candidate('hang'))!r}), 1))"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    wait_until(lambda: processes_of(candidate("hang")))
    process.kill()
    process.wait()
    wait_until(lambda: not processes_of(candidate("hang")))


def test_systems_that_do_not_fork_start_a_process_for_each_library(compiled, candidate):
    runner = open_runner("local", resolve("native"))
    runner._warm = None
    check_model(compiled, runner, compiled.library)
    for behaviour, words in [
        ("crash", " crashed: SIGSEGV"),
        ("hang", " did not end within 2 s"),
        ("fail", f": kernel 1 (behave) failed: {SAID}"),
    ]:
        with pytest.raises(CandidateError) as caught:
            runner.measure(Order(candidate(behaviour), 1, timeout=2))
        assert whole(caught) == (f"{candidate(behaviour)}{words}", None)
    assert not processes_of(candidate("hang"))
    runner.close()


def test_a_warm_process_that_was_killed_is_an_error_of_its_own(candidate):
    """The tuning must not blame a candidate for it; the next order has a new process."""
    runner = open_runner("local", resolve("native"))
    runner.measure(Order(candidate("well"), 1))
    killer = threading.Timer(0.3, runner._warm._process.kill)
    killer.start()
    with pytest.raises(RunError) as caught:
        runner.measure(Order(candidate("slow"), 1))
    assert type(caught.value) is RunError
    assert whole(caught) == ("the process that measures has ended: it said nothing", None)
    check_outputs(runner.run(candidate("well"), 1, candidate_inputs(), 30))
    runner.close()


# ---- under an emulator


def test_the_flow_under_an_emulator_has_no_times_to_store(compiled_arm64, tmp_path, monkeypatch):
    target = resolve("arm64")
    try:
        emulator(target)
    except NnccError as error:
        pytest.skip(error.message)
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    net = compiled_arm64
    runner = open_runner("qemu", target)
    assert (runner.name, runner.stores_times, runner.slots, runner.processor()) == ("qemu-aarch64", False, 1, "")
    seconds = runner.measure(Order(net.library, 1))
    assert seconds.shape == (3, len(net.program.calls)) and (seconds > 0).all()
    inputs = net.sample()
    expected = net.expected(inputs)
    found = runner.run(net.library, 1, [inputs[spec.name] for spec in net.program.inputs], 60)
    for spec, array in zip(net.program.outputs, found, strict=True):
        np.testing.assert_allclose(array, expected[spec.name], rtol=ROUNDING, atol=ROUNDING)
    with pytest.raises(CandidateError) as caught:
        runner.measure(Order(net.library, 1, timeout=0.01))
    assert whole(caught) == (f"{net.library} did not end within 0.01 s", None)
    runner.close()
