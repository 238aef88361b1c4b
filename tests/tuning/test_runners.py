"""Candidate libraries measured on this machine, under an emulator, and on devices behind TVM's RPC."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from compiled import ROUNDING, Compiled, Net, compile_net

from nncc.backends import llvm
from nncc.codegen.link import PUBLIC_FUNCTIONS, RPC_FUNCTIONS, emulator
from nncc.errors import NnccError, RunError, UsageError
from nncc.resources import runtime_folder
from nncc.target import resolve
from nncc.tuning.runners import CandidateError, Order, open_runner

pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="forks, and reads ELF files")

BEHAVIOURS = ("well", "crash", "hang", "fail", "slow")
SAID = "ValueError: this tile has no elements"


@pytest.fixture(scope="module")
def candidate(tmp_path_factory) -> Callable[..., Path]:
    """candidate("crash"): the library of candidate.c whose second kernel does so."""
    if shutil.which("cc") is None:
        pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("candidates")

    def build(behaviour: str, *flags: str, cc: str = "cc") -> Path:
        output = folder / f"{behaviour}{len(flags)}-{os.getpid()}.so"
        if not output.exists():
            strict = ("-std=c11", "-O1", "-g0", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC")
            number = f"-DBEHAVIOUR={BEHAVIOURS.index(behaviour)}"
            source = Path(__file__).parent / "candidate.c"
            command = [cc, *strict, *flags, number, f"-I{runtime_folder()}", source, "-o", output, "-pthread"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        return output

    return build


def small_net() -> Net:
    net = Net()
    x = net.input(1, 8, 12, 12, name="x")
    net.output(net.op("Softmax", net.op("Relu", net.conv(x, 8, 16, (3, 3)))), net.input(3, dtype=np.int64, name="n"))
    net.outputs[-1] = net.op("Identity", net.outputs[-1])
    return net


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Compiled:
    return compile_net(small_net(), tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def shimmed(compiled, tmp_path_factory) -> Path:
    """The same model, for TVM's RPC server."""
    return llvm.build(compiled.program, tmp_path_factory.mktemp("shim"), "net", rpc=True).library


@pytest.fixture(scope="module")
def local():
    runner = open_runner("local", resolve("native"))
    yield runner
    runner.close()


def candidate_inputs() -> list[np.ndarray]:
    return [np.arange(32, dtype=np.float32).reshape(4, 8), np.array([7, 9])]


def check_outputs(found: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(found[0], 2 * candidate_inputs()[0])
    np.testing.assert_array_equal(found[1], [8, 11])


def check_model(compiled: Compiled, runner, library: Path) -> None:
    """`runner` measures the model, and computes with it what ONNX Runtime computes."""
    seconds = runner.measure(Order(library, threads=1, rounds=5))
    assert (seconds.dtype, seconds.shape) == (np.float64, (5, len(compiled.program.calls)))
    assert np.isfinite(seconds).all() and (seconds > 0).all()
    inputs = compiled.sample()
    expected = compiled.expected(inputs)
    found = runner.run(library, 2, [inputs[spec.name] for spec in compiled.program.inputs], 30)
    for spec, array in zip(compiled.program.outputs, found, strict=True):
        assert (array.dtype, array.shape) == (expected[spec.name].dtype, expected[spec.name].shape)
        np.testing.assert_allclose(array, expected[spec.name], rtol=ROUNDING, atol=ROUNDING)


def whole(error: pytest.ExceptionInfo[NnccError]) -> tuple[str, str | None]:
    return error.value.message, error.value.hint


def processes_of(path: Path) -> list[str]:
    """The processes that have mapped a file of this name, wherever it lies."""
    found = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if f"/{path.name}\n" in maps.read_text():
                found.append(maps.parent.name)
        except OSError:
            pass
    return found


# ---- the names of runners


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("lokal", "did you mean `local`?"),
        ("board", "known: local, qemu, rpc://HOST:PORT/KEY"),
        ("rpc", "known: local, qemu, rpc://HOST:PORT/KEY"),
        ("local://x", "known: local, qemu, rpc://HOST:PORT/KEY"),
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


def test_another_machine_is_not_measured_here():
    with pytest.raises(UsageError) as caught:
        open_runner("local", resolve("arm64-macos"))
    assert whole(caught) == (
        "runner `local`: target `arm64-macos` is another machine, a arm64 Darwin",
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


# ---- under an emulator


def test_the_flow_under_an_emulator_has_no_times_to_store(tmp_path, monkeypatch):
    target = resolve("arm64")
    try:
        emulator(target)
    except NnccError as error:
        pytest.skip(error.message)
    monkeypatch.setenv("NNCC_CACHE_DIR", str(tmp_path / "cache"))
    net = compile_net(small_net(), tmp_path, "arm64")
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


# ---- the shim


def test_an_arm64_candidate_carries_the_shim_and_wants_nothing_of_tvm(tmp_path):
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    net = compile_net(small_net(), tmp_path, "arm64")
    library = llvm.build(net.program, tmp_path / "shim", "net", rpc=True).library
    table = subprocess.run(["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in table.splitlines()]
    symbols = [(row[7], row[6] != "UND") for row in rows if len(row) >= 8 and row[0][:-1].isdigit()]
    assert {name for name, defined in symbols if defined} == {*PUBLIC_FUNCTIONS, *RPC_FUNCTIONS}
    assert not [name for name, defined in symbols if not defined and "TVM" in name.upper()]
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"NEEDED.*\[(.*?)\]", needed)) <= {"libc.so.6", "libm.so.6", "libpthread.so.0"} | set(
        re.findall(r"\[(ld-linux[^]]*)\]", needed)
    )


def test_its_layouts_are_those_of_tvm_ffi(tmp_path, candidate):
    """Compiled against tvm_ffi's own headers, sizes and places agree."""
    import tvm_ffi

    include = Path(tvm_ffi.__file__).parent / "include"
    pairs = [
        ("rpc_tensor", "DLTensor", ("data", "ndim", "lanes", "shape", "strides", "byte_offset")),
        ("rpc_any", "TVMFFIAny", ()),
    ]
    lines = [f"_Static_assert(sizeof({ours}) == sizeof({theirs}), {ours!r});" for ours, theirs, _ in pairs]
    lines += [
        f"_Static_assert(offsetof({ours}, {name}) == offsetof({theirs}, {'dtype.lanes' if name == 'lanes' else name}), "
        f'"{name}");'
        for ours, theirs, names in pairs
        for name in names
    ]
    text = '#define BEHAVIOUR 0\n#include "candidate.c"\n#include "tvm/ffi/c_api.h"\n' + "\n".join(lines)
    text += '\n_Static_assert(offsetof(rpc_any, as) == offsetof(TVMFFIAny, v_int64), "value");'
    text += '\n_Static_assert(sizeof(TVMFFIObject) == 24, "header");'
    codes = {"RPC_INT": "Int", "RPC_BOOL": "Bool", "RPC_FLOAT": "Float", "RPC_DLTENSOR": "DLTensorPtr"}
    for ours, theirs in (codes | {"RPC_TENSOR": "Tensor"}).items():
        text += f'\n_Static_assert((int){ours} == (int)kTVMFFI{theirs}, "{ours}");'
    (tmp_path / "layout.c").write_text(text.replace("'", '"') + "\n")
    folders = (f"-I{runtime_folder()}", f"-I{Path(__file__).parent}", f"-I{include}")
    command = ["cc", "-std=gnu11", "-fsyntax-only", *folders, tmp_path / "layout.c"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- TVM's RPC


def wait_until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Farm:
    """A tracker and servers, each a process group of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen] = field(default_factory=list)

    def start(self, *words: str) -> subprocess.Popen:
        with (self.folder / f"log{len(self.processes)}").open("wb") as log:
            command = [sys.executable, "-m", *words]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=self.folder)
        self.processes.append(process)
        return process

    def tracker(self) -> None:
        self.start("tvm.exec.rpc_tracker", "--host=127.0.0.1", f"--port={self.port}", f"--port-end={self.port + 1}")
        wait_until(self._tracked)

    def _tracked(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def server(self, key: str) -> subprocess.Popen:
        from nncc.tuning.rpc_tracker import Tracker

        def count() -> int:
            try:
                return len(Tracker("127.0.0.1", self.port).devices(key))
            except RunError:
                return 0

        before, port = count(), free_port()
        tracker = f"--tracker=127.0.0.1:{self.port}"
        words = ("--host=127.0.0.1", f"--port={port}", f"--port-end={port + 1}", tracker, f"--key={key}")
        process = self.start("tvm.exec.rpc_server", *words)
        process.address = f"127.0.0.1:{port}"  # type: ignore[attr-defined]
        wait_until(lambda: count() > before)
        return process

    def open(self, key: str):
        return open_runner(f"rpc://127.0.0.1:{self.port}/{key}", resolve("native"))

    def kill(self, process: subprocess.Popen) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def farm(tmp_path_factory) -> Iterator[Farm]:
    pytest.importorskip("tornado", reason="TVM's tracker needs tornado")
    farm = Farm(tmp_path_factory.mktemp("farm"))
    try:
        farm.tracker()
        yield farm
    finally:
        for process in farm.processes:
            if process.poll() is None:
                farm.kill(process)


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
    assert time.monotonic() - start < 5 and not processes_of(candidate("hang"))
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
    """Three orders of 0.6 s each, on one device, within a second each."""
    runner = farm.open(one)
    orders = [Order(candidate("slow"), 1, warmup=2, rounds=10, timeout=1.0)] * 3
    assert [len(found) for found in together(runner, orders)] == [10, 10, 10]


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
    assert [each.shape for each in found] == [(20, 2), (20, 2)]
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
    server = f"python -m tvm.exec.rpc_server --tracker=127.0.0.1:{farm.port} --key=two"
    assert error.hint == f"start it again: `{server}`"


def test_an_unknown_key_is_told_with_those_that_are_known(farm, one):
    with pytest.raises(RunError) as caught:
        farm.open("rpi3")
    at = f"127.0.0.1:{farm.port}"
    assert re.fullmatch(
        rf"the tracker at {at} has no device with the key `rpi3`; it has `one` \(1\).*", str(caught.value)
    )
    assert caught.value.hint == f"on the device: `python -m tvm.exec.rpc_server --tracker={at} --key=rpi3`"


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
