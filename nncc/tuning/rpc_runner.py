"""Candidates on boards through TVM's RPC: a tracker, and a server on each board under one key.

Whoever reaches a server can run anything there, and nothing is encrypted: bind tracker and servers to loopback or to a
network of their own, and reach them from elsewhere through an SSH tunnel.

The board needs TVM with psutil and cloudpickle, and nothing of nncc:
``python -m tvm.exec.rpc_server --tracker=HOST:PORT --key=KEY``.
Libraries come linked, with runtime/rpc_shim.c inside (``build(..., rpc=True)`` of the backends). Those for GPUs open
the driver themselves: TVM needs no CUDA there either.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nncc.errors import RunError, UsageError
from nncc.host import Gpu
from nncc.tuning.rpc_tracker import Device, Tracker
from nncc.tuning.runners import CandidateError, Order
from nncc.worker import never_ended, signal_name

if TYPE_CHECKING:
    from nncc.target import Target

__all__ = ["RpcRunner"]

SLACK = 15.0
"""Seconds that a session may take beyond its library: to connect, to load, to answer."""
SLOWEST_UPLOAD = 250_000.0
"""Bytes per second that an upload may count on."""
GONE_AFTER = 1.0
"""Seconds after which the tracker knows that a server has ended."""
TEXT = 512
FAILED, HUNG, CRASHED = -1, -2, -100
"""How runtime/rpc_shim.c ended, where it did not succeed; CRASHED less the signal's number."""


class _Gone(Exception):
    """The session broke off: what is left of the error is its text."""


class _Silent(_Gone):
    """The device does not even end the session that is over."""


class RpcRunner:
    """``rpc://HOST:PORT/KEY``: measures on every device that the tracker has under the key, as many as there are.

    Raises UsageError where `text` is no such address; RunError where the tracker cannot be reached or has no device.
    """

    stores_times = True

    def __init__(self, text: str, target: Target) -> None:
        match = re.fullmatch(r"rpc://(\[[^]]+\]|[^/:]+):(\d{1,5})/(\S+)", text)
        if not match:
            raise UsageError(
                f"`{text}` names no devices", "rpc://HOST:PORT/KEY: the tracker's address, the devices' key"
            )
        self.name = text
        self._target = target
        self._tracker = Tracker(match[1].strip("[]"), int(match[2]))
        self._key = match[3]
        self.slots = len(self._tracker.devices(self._key))
        self._processor: str | None = None
        self._silent: set[tuple[str, int]] = set()
        # TVM is imported here, not by several threads at once.
        import tvm.rpc  # noqa: F401

    def measure(self, order: Order) -> np.ndarray:
        """The seconds of each call in each timed round: float64[rounds, calls]."""

        def task(session: _Session) -> np.ndarray:
            calls, _, _ = session.facts()
            seconds = session.zeros((order.rounds, calls), "float64")
            numbers = (order.threads, order.seed, order.warmup, order.rounds, order.seconds, order.timeout)
            done = session.call("nncc_measure", order.timeout, seconds, session.text, *numbers)
            return seconds.numpy()[:done]

        return self._on_a_device(task, order.library, order.timeout)

    def run(self, library: Path, threads: int, inputs: Sequence[np.ndarray], timeout: float) -> list[np.ndarray]:
        """The outputs of one inference, inputs and outputs in the order of the C interface."""

        def task(session: _Session) -> list[np.ndarray]:
            _, _, outputs = session.facts()
            there = [session.there(array) for array in inputs]
            results = [session.zeros((max(1, tensor.nbytes),), "uint8") for tensor in outputs]
            session.call("nncc_run", timeout, session.text, threads, timeout, *there, *results)
            return [
                result.numpy()[: tensor.nbytes].view(tensor.numpy_dtype).reshape(tensor.shape)
                for result, tensor in zip(results, outputs, strict=True)
            ]

        return self._on_a_device(task, library, timeout)

    def processor(self) -> str:
        """Of the first device that is free, the processor by LLVM's name, empty where its TVM has no LLVM; or the GPU
        by its driver's.

        RunError where libraries of the target do not run there, TargetError where it is of another compute capability.
        """
        if self._processor is None and self._target.hardware.multiprocessors:
            self._processor = self._gpu()
        elif self._processor is None:
            self._processor = self._on_a_device(_Session.processor, None, SLACK)
        return self._processor

    def _gpu(self) -> str:
        from nncc.tuning.gpu_probe import build_probe, check_gpu

        with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
            probe = build_probe(self._target, Path(folder))
            try:
                gpu = self._on_a_device(_Session.gpu, probe, SLACK)
            except CandidateError as error:
                said = error.message.removeprefix(f"{probe}: ")
                raise RunError(
                    f"libraries for target `{self._target.name}` do not run on `{self._key}`: {said}",
                    "tune for a target of that machine: `nncc targets` lists targets",
                ) from None
        check_gpu(self.name, gpu, self._target)
        return str(gpu.name)

    def close(self) -> None:
        """Nothing is left open: each order is a session of its own."""

    def _on_a_device(self, task: Callable[[_Session], Any], library: Path | None, timeout: float) -> Any:
        """What `task` returns on one device or, where that is lost meanwhile, on another."""
        lost: list[str] = []
        while True:
            device = self._tracker.request(self._key, self._silent)
            address = (device.host, device.port)
            try:
                found = _watched(device, task, library, timeout)
                self._silent.discard(address)
                return found
            except _Silent as gone:
                said, silent = str(gone), True
                self._silent.add(address)
            except _Gone as gone:
                said, silent = str(gone), False
            if "RPCSessionTimeoutError" in said and library is not None:
                raise CandidateError(f"{never_ended(library, timeout).message} (on {device})")
            time.sleep(GONE_AFTER)
            listed = self._listed()
            if library is not None and not silent and address in listed:
                raise CandidateError(f"{library} ended its session on {device}: {said}")
            lost.append(f"device {device} (`{self._key}`) is gone: {said}")
            if len(lost) == 2 or self._silent.issuperset(listed):
                raise RunError("\n".join(lost), self._tracker.how_to_serve(self._key))

    def _listed(self) -> list[tuple[str, int]]:
        try:
            return self._tracker.devices(self._key)
        except RunError:
            return []


def _watched(device: Device, task: Callable[[_Session], Any], library: Path | None, timeout: float) -> Any:
    """`task` in a session of its own.

    TVM waits without end for a device that has lost its power: it does so in a thread, which is left behind then.
    """
    size = library.stat().st_size if library else 0
    limit = timeout + SLACK + size / SLOWEST_UPLOAD
    found: list[Any] = []

    def talk() -> None:
        try:
            found.append(_Session(device, library, limit).do(task))
        except (CandidateError, _Gone) as error:
            found.append(error.with_traceback(None))  # whose frames hold the connection
        except Exception as error:
            found.append(_Gone(_first_line(error)))

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    thread.join(limit + SLACK)
    if not found:
        raise _Silent(f"it has not answered for {limit + SLACK:.0f} s")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


class _Session:
    """One connection to one device, with a library loaded there. It ends when nothing refers to it any more."""

    def __init__(self, device: Device, library: Path | None, limit: float) -> None:
        import tvm.rpc

        self._device = device
        self._library = library
        self._functions: Any = None
        self._remote = tvm.rpc.connect(device.host, device.port, device.match_key, limit)

    def do(self, task: Callable[[_Session], Any]) -> Any:
        """Upload and load the library, then the task.

        Raises _Gone where the session broke off, CandidateError where the device still answers.
        """
        said = ""
        try:
            if self._library is not None:
                self._remote.upload(str(self._library))
                self._functions = self._remote.load_module(self._library.name)
                self.text = self.zeros((TEXT,), "uint8")
            return task(self)
        except CandidateError:
            raise
        except Exception as error:
            # What is raised must not hold the frames of TVM's error: they hold the connection.
            said = _first_line(error)
        if self._library is not None and self._answers():
            raise CandidateError(f"{self._library} cannot be loaded on {self._device}: {said}")
        raise _Gone(said)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Any:
        return self._there(np.zeros(shape, dtype))

    def there(self, array: np.ndarray) -> Any:
        """The bytes of an array, on the device."""
        return self._there(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    def _there(self, array: np.ndarray) -> Any:
        import tvm.runtime

        return tvm.runtime.tensor(array, self._remote.cpu(0))

    def facts(self) -> tuple[int, list[Any], list[Any]]:
        """The number of calls, the inputs, the outputs."""
        from nncc.runtime.loader import TensorInfo

        size = 4096
        while True:
            text = self.zeros((size,), "uint8")
            needed = self._functions["nncc_facts"](text)
            if needed <= size:
                break
            size = needed
        tensors: dict[str, list[Any]] = {"input": [], "output": []}
        calls = 0
        for line in text.numpy().tobytes().split(b"\0")[0].decode().splitlines():
            word, *rest = line.split(" ")
            if word == "calls":
                calls = int(rest[0])
            else:
                nbytes, *shape = map(int, rest[1:])
                tensors[word].append(TensorInfo("", rest[0], tuple(shape), nbytes))
        return calls, tensors["input"], tensors["output"]

    def call(self, function: str, timeout: float, *args: Any) -> int:
        """What a function of the library returns; CandidateError where that says that it did not succeed."""
        status = int(self._functions[function](*args))
        if status >= 0:
            return status
        where = f"(on {self._device})"
        if status == HUNG:
            assert self._library is not None
            raise CandidateError(f"{never_ended(self._library, timeout).message} {where}")
        if status <= CRASHED:
            raise CandidateError(f"{self._library} crashed: {signal_name(CRASHED - status)} {where}")
        said = self.text.numpy().tobytes().split(b"\0")[0].decode(errors="replace")
        raise CandidateError(f"{self._library}: {said} {where}")

    def processor(self) -> str:
        try:
            return str(self._remote.get_function("target.llvm_get_system_cpu")())
        except Exception:
            if self._answers():
                return ""
            raise

    def gpu(self) -> Gpu:
        self.call("nncc_gpu", SLACK, self.text, SLACK)
        said = self.text.numpy().tobytes().split(b"\0")[0].decode(errors="replace")
        major, minor, name = said.split(" ", 2)
        return Gpu(name, int(major), int(minor))

    def _answers(self) -> bool:
        try:
            self._remote.get_function("tvm.rpc.server.workpath")("")
        except Exception:
            return False
        return True


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
