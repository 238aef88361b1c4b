"""The other process: it loads a library, runs or times it, and answers in JSON; a crash of the library is its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nncc.errors import RunError

__all__ = ["answer", "never_ended", "python_program", "serve", "signal_name", "work"]

MOST_RUNS = 10_000
"""Timed inferences where only a time limit is given."""


def signal_name(number: int) -> str:
    """``SIGSEGV``, where the system has a name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def never_ended(path: Path, timeout: float) -> RunError:
    """The error of a library that was killed after `timeout`."""
    return RunError(f"{path} did not end within {timeout:g} s")


def python_program(module: str) -> tuple[list[str], dict[str, str]]:
    """The command that calls ``serve`` of a module of nncc in another Python, and its environment."""
    package = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    # `-c` puts the current folder first on the path, and what lies there is not ours to import.
    program = f"import sys; sys.path = [p for p in sys.path if p]; from {module} import serve; serve()"
    return [sys.executable, "-c", program], os.environ | {"PYTHONPATH": search}


def work(path: Path, order: Mapping[str, Any], timeout: float | None = None) -> dict[str, Any]:
    """Give `order`, of which ``task`` says what it is, to a new process, which imports the loader and numpy.

    Raises RunError where the library fails or crashes, or is killed after `timeout` seconds.
    """
    text = json.dumps({**order, "path": str(path)})
    command, environment = python_program("nncc.worker")
    try:
        done = subprocess.run(
            command,
            input=text,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise never_ended(path, error.timeout) from None
    if done.returncode < 0:
        name = signal_name(-done.returncode)
        raise RunError(f"{path} crashed: {name}", "please report this, with the model" if name != "SIGKILL" else None)
    if done.returncode:
        raise RunError(f"{path}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    found = json.loads(done.stdout)
    if "error" in found:
        raise RunError(found["error"], found["hint"])
    return found


def serve() -> None:
    """The other process: an order in JSON on stdin, the answer in JSON on stdout."""
    print(json.dumps(answer(json.load(sys.stdin))))


def answer(order: Mapping[str, Any]) -> dict[str, Any]:
    """Do `order` in this process; ``error`` and ``hint`` where the library cannot be loaded or fails."""
    tasks = {"run": _run_here, "bench": _bench_here, "calls": _calls_here, "rounds": _rounds_here}
    tasks |= {"simulate": _simulate_here, "cycles": _cycles_here, "gpu": _gpu_here}
    try:
        return tasks[order["task"]](order)
    except RunError as error:
        return {"error": error.message, "hint": error.hint}


def _given(module: Any, order: Mapping[str, Any]) -> dict[str, Any]:
    import numpy as np

    from nncc.runtime.sizes import at_sizes

    folder = Path(order["folder"])
    given = {}
    for number, tensor in enumerate(at_sizes(module.inputs, order.get("sizes", ()))):
        size = (folder / f"in{number}").stat().st_size
        if size != tensor.nbytes:
            raise RunError(f"input `{tensor.name}` has {size} bytes, expected {tensor.nbytes} for {tensor}")
        given[tensor.name] = np.fromfile(folder / f"in{number}", tensor.numpy_dtype).reshape(tensor.shape)
    return given


def _run_here(order: Mapping[str, Any]) -> dict[str, Any]:
    from nncc.runtime.loader import load

    with load(order["path"], order["threads"], order.get("device", "")) as module:
        made = list(module.run(_given(module, order)).values())
        for number, array in enumerate(made):
            array.tofile(Path(order["folder"]) / f"out{number}")
        return {
            "outputs": [
                [tensor.dtype, list(array.shape), array.nbytes]
                for tensor, array in zip(module.outputs, made, strict=True)
            ]
        }


def _bench_here(order: Mapping[str, Any]) -> dict[str, Any]:
    import ctypes

    from nncc.runtime.loader import load

    path = os.path.abspath(order["path"])
    before = _resident_bytes()
    start = time.perf_counter()
    ctypes.CDLL(path)  # load() below finds it loaded, and what it takes is to create the context
    loaded = time.perf_counter()
    module = load(path, order["threads"], order.get("device", ""))
    created = time.perf_counter()
    inputs = _given(module, order)
    once = module.benchmark(inputs, repeat=1, warmup=order["warmup"])[0]
    peak = _peak_bytes()  # no run after the first needs more, but the list of their times would
    seconds = module.benchmark(inputs, repeat=order["repeat"], warmup=0) if order["repeat"] else []
    while not order["repeat"] and (len(seconds) < 5 or sum(seconds) < order["seconds"]) and len(seconds) < MOST_RUNS:
        part = int(order["seconds"] / 10 / max(once, 1e-6))
        seconds += module.benchmark(inputs, repeat=max(1, min(part, MOST_RUNS - len(seconds))), warmup=0)
    calls: list[float] = []
    if order["profile"]:
        rounds = min(len(seconds), 200)
        each = [module.profile(inputs)[1].tolist() for _ in range(rounds)]
        calls = [sum(column) / rounds for column in zip(*each, strict=True)]
    return {
        "seconds": seconds,
        "load_seconds": loaded - start,
        "create_seconds": created - loaded,
        "peak_bytes": max(0, peak - before) if peak and before else 0,
        "call_seconds": calls,
    }


def _cycles_here(order: Mapping[str, Any]) -> dict[str, Any]:
    """The seconds of each call by the accelerator's clock, 0 for those of the host, on inputs of zeros."""
    import numpy as np

    from nncc.runtime.loader import load

    with load(order["path"], order["threads"], order["device"]) as module:
        _, seconds = module.profile({t.name: np.zeros(t.shape, t.numpy_dtype) for t in module.inputs})
        cycles = np.array(module.cycles())
        return {"seconds": np.where(cycles > 0, seconds, 0.0).tolist()}


def _simulate_here(order: Mapping[str, Any]) -> dict[str, Any]:
    """One inference on a simulated accelerator, whose cycles are always the same."""
    from nncc.runtime.loader import load

    with load(order["path"], order["threads"], order["device"]) as module:
        _, seconds = module.profile(_given(module, order))
        cycles = module.cycles()
        host = [0.0 if cycle else time for time, cycle in zip(seconds.tolist(), cycles, strict=True)]
        found = {"device": module.device, "counters": module.counters(), "cycles": cycles, "host_seconds": host}
        return found | {"seconds": sum(seconds.tolist()) - sum(host)}


def _rounds_here(order: Mapping[str, Any]) -> dict[str, Any]:
    """The seconds of each call in each round, in the file ``seconds`` of the folder, on made-up inputs."""
    import numpy as np

    from nncc.runtime.loader import load

    if hasattr(os, "sched_setaffinity") and order["threads"]:
        # The last cores: the first ones serve more interrupts.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-order["threads"] :])
    random = np.random.default_rng(order["seed"])
    with load(order["path"], order["threads"]) as module:
        inputs = {tensor.name: tensor.empty() for tensor in module.inputs}
        for array in inputs.values():
            if array.dtype == np.float32:
                random.standard_normal(out=array, dtype=np.float32)
            else:
                array.fill(0)
        found = module.profile_rounds(inputs, order["rounds"], order["seconds"], order["warmup"])
    found.tofile(Path(order["folder"]) / "seconds")
    return {"shape": found.shape}


def _gpu_here(order: Mapping[str, Any]) -> dict[str, Any]:
    """The GPU that libraries use here: its name and compute capability, or ``problem``."""
    from dataclasses import asdict

    from nncc.host import gpu

    ordinal = os.environ.get("NNCC_CUDA_DEVICE", "")
    found = gpu(int(ordinal) if ordinal.isdecimal() else 0)
    return {"problem": found} if isinstance(found, str) else asdict(found)


def _calls_here(order: Mapping[str, Any]) -> dict[str, Any]:
    """The time of each call in all rounds that fit in the given seconds, and the outputs of the last."""
    from nncc.runtime.loader import load

    with load(order["path"], order["threads"]) as module:
        inputs = _given(module, order)
        module.run(inputs)
        end = time.perf_counter() + order["seconds"]
        rounds: list[list[float]] = []
        while not rounds or (time.perf_counter() < end and len(rounds) < MOST_RUNS):
            outputs, seconds = module.profile(inputs)
            rounds.append(seconds.tolist())
        return {"call_seconds": rounds, "outputs": {name: array.tolist() for name, array in outputs.items()}}


def _resident_bytes() -> int:
    """What this process has in memory now, after which its peak is counted anew; 0 where only Linux could tell."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_bytes() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
