"""Candidate libraries measured on devices behind TVM's RPC: a real tracker and servers, all on this machine."""

from __future__ import annotations

import os
import platform
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from candidates import (
    SAID,
    candidate_inputs,
    check_model,
    check_outputs,
    processes_of,
    wait_until,
    whole,
)
from farm import Farm, free_port

from nncc.backends import llvm
from nncc.errors import RunError
from nncc.target import resolve
from nncc.tuning.runners import CandidateError, Order, open_runner

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="forks")


@pytest.fixture(scope="module")
def shimmed(compiled, tmp_path_factory) -> Path:
    """The same model, for TVM's RPC server."""
    return llvm.build(compiled.program, tmp_path_factory.mktemp("shim"), "net", rpc=True).library


@pytest.fixture(scope="module")
def farm(tmp_path_factory) -> Iterator[Farm]:
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    with Farm(tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture(scope="module")
def one(farm) -> str:
    """The key of one device, and no more."""
    farm.server("one")
    return "one"


def test_a_model_is_measured_behind_rpc(farm, one, compiled, shimmed):
    runner = farm.open(one)
    assert (runner.name, runner.stores_times, runner.slots) == (f"rpc://127.0.0.1:{farm.port}/one", True, 1)
    assert runner.processor()
    check_model(compiled, runner, shimmed)


def test_a_candidate_that_crashes_hangs_or_fails_leaves_the_server_usable(farm, one, candidate):
    runner = farm.open(one)
    [(host, port)] = runner._tracker.devices(one)
    with pytest.raises(CandidateError) as caught:
        runner.measure(Order(candidate("crash"), 1))
    assert whole(caught) == (f"{candidate('crash')} crashed: SIGSEGV (on {host}:{port})", None)
    start = time.monotonic()
    with pytest.raises(CandidateError) as caught:
        runner.measure(Order(candidate("hang"), 1, timeout=0.7))
    assert whole(caught) == (f"{candidate('hang')} did not end within 0.7 s (on {host}:{port})", None)
    assert time.monotonic() - start < 5
    wait_until(lambda: not processes_of(candidate("hang")), 3)  # the session, which has loaded it too, is ending
    with pytest.raises(CandidateError) as caught:
        runner.measure(Order(candidate("fail"), 1))
    words = f"{candidate('fail')}: kernel 1 (behave) failed: {SAID} (on {host}:{port})"
    assert whole(caught) == (words, None)
    check_outputs(runner.run(candidate("well"), 1, candidate_inputs(), 30))
    with pytest.raises(CandidateError) as caught:
        runner.run(candidate("well"), 1, candidate_inputs()[::-1], 30)
    assert whole(caught) == (f"{candidate('well')}: input 0 has 16 bytes, expected 128 (on {host}:{port})", None)
    assert runner.measure(Order(candidate("slow"), 1, warmup=0, seconds=0.0)).shape == (3, 2)


def test_what_the_device_cannot_load_is_the_candidate_s(farm, one, tmp_path):
    runner = farm.open(one)
    (tmp_path / "text.so").write_text("no library")
    with pytest.raises(CandidateError, match=r"text\.so cannot be loaded on 127\.0\.0\.1:\d+: .*"):
        runner.measure(Order(tmp_path / "text.so", 1))
    assert runner.processor()


def test_waiting_for_a_device_is_not_the_candidate_s_time(farm, one, candidate):
    """Three orders of 0.6 s each on one device, which may take 1.6 s each."""
    runner = farm.open(one)
    orders = [Order(candidate("slow"), 1, warmup=2, rounds=10, timeout=1.6)] * 3
    assert [len(found) for found in together(runner, orders)] == [10, 10, 10]


def how_to_serve(farm: Farm, key: str) -> str:
    command = f"python -m tvm.exec.rpc_server --tracker=127.0.0.1:{farm.port} --key={key}"
    return f"start the server on the device: `{command}`"


def together(runner, orders: list[Order]) -> list:
    """What each order gives, or its error; each in a thread of its own."""
    found: list = [None] * len(orders)

    def work(number: int) -> None:
        try:
            found[number] = runner.measure(orders[number])
        except RunError as error:
            found[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(orders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_two_devices_measure_at_once_and_one_takes_over_for_the_other(farm, candidate):
    first, second = farm.server("two"), farm.server("two")
    runner = farm.open("two")
    assert runner.slots == 2
    at_once: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            at_once.add(len(processes_of(candidate("slow"))))

    watcher = threading.Thread(target=watch)
    watcher.start()
    found = together(runner, [Order(candidate("slow"), 1, rounds=20)] * 2)
    done.set()
    watcher.join()
    assert [getattr(each, "shape", str(each)) for each in found] == [(20, 2), (20, 2)]
    assert max(at_once) >= 4, "a session and its kernels on each"

    killer = threading.Timer(0.7, farm.kill, [first])
    killer.start()
    assert [each.shape for each in together(runner, [Order(candidate("slow"), 1, rounds=30)] * 2)] == [(30, 2)] * 2
    killer.join()

    killer = threading.Timer(0.7, farm.kill, [second])
    killer.start()
    [error] = together(runner, [Order(candidate("slow"), 1, rounds=100, seconds=5)])
    killer.join()
    assert type(error) is RunError
    address = re.escape(second.address)
    assert re.fullmatch(rf"device {address} \(`two`\) is gone: .+", error.message)
    assert error.hint == how_to_serve(farm, "two")


def test_a_device_that_falls_silent_is_given_up(farm, candidate, monkeypatch):
    """As one that has lost its power: no connection ends, nothing answers."""
    from nncc.tuning import rpc_runner

    device = farm.server("frozen")
    runner = farm.open("frozen")
    monkeypatch.setattr(rpc_runner, "SLACK", 0.5)
    freezer = threading.Timer(0.7, os.killpg, [device.pid, signal.SIGSTOP])
    freezer.start()
    gone, waiting = together(runner, [Order(candidate("slow"), 1, rounds=100, timeout=2)] * 2)
    freezer.join()
    farm.kill(device)
    if "no device" in gone.message:  # either was first
        gone, waiting = waiting, gone
    assert (type(gone), type(waiting)) == (RunError, RunError)
    assert gone.message == f"device {device.address} (`frozen`) is gone: it has not answered for 3 s"
    assert waiting.message == "no device with the key `frozen` answers any more"
    assert gone.hint == waiting.hint == how_to_serve(farm, "frozen")


def test_an_unknown_key_is_told_with_those_that_are_known(farm, one):
    with pytest.raises(RunError) as caught:
        farm.open("rpi3")
    at = f"127.0.0.1:{farm.port}"
    # The tracker goes on to name devices of earlier tests for a while.
    known = r"(`frozen` \(1\), )?`one` \(1\)"
    assert re.fullmatch(rf"the tracker at {at} has no device with the key `rpi3`; it has {known}.*", str(caught.value))
    assert caught.value.hint == how_to_serve(farm, "rpi3")


def test_a_tracker_that_is_not_there_is_told_at_once():
    port, start = free_port(), time.monotonic()
    with pytest.raises(RunError) as caught:
        open_runner(f"rpc://127.0.0.1:{port}/rpi4", resolve("native"))
    assert time.monotonic() - start < 6
    assert whole(caught) == (
        f"cannot reach the RPC tracker at 127.0.0.1:{port}: Connection refused",
        f"start it: `pip install 'nncc[rpc]'`, `python -m tvm.exec.rpc_tracker --host=127.0.0.1 --port={port}`",
    )


def test_what_is_no_tracker_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(struct.pack("<i", 0xFF271))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RunError) as caught:
            open_runner(f"rpc://127.0.0.1:{port}/rpi4", resolve("native"))
        thread.join()
    assert whole(caught) == (f"what answers at 127.0.0.1:{port} is no RPC tracker", "is this the port of a device?")
