"""Candidate libraries that behave in many ways, and what the tests of all runners claim."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled import ROUNDING, Compiled, Net

from nncc.errors import NnccError
from nncc.resources import runtime_folder
from nncc.tuning.runners import Order

BEHAVIOURS = ("well", "crash", "hang", "fail", "slow")
"""The numbers of BEHAVIOUR in candidate.c."""
SAID = "ValueError: this tile has no elements"
"""What the kernel that fails says."""


def build_candidate(folder: Path, behaviour: str, *flags: str, cc: str = "cc") -> Path:
    """The library of candidate.c whose second kernel behaves so, with every warning an error; built once."""
    if shutil.which(cc) is None:
        pytest.skip(f"{cc} is not installed")
    output = folder / f"{behaviour}{len(flags)}-{Path(cc).name}-{os.getpid()}.so"
    if not output.exists():
        strict = ("-std=c11", "-O1", "-g0", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-shared", "-fPIC")
        number = f"-DBEHAVIOUR={BEHAVIOURS.index(behaviour)}"
        source = Path(__file__).parent / "candidate.c"
        command = [cc, *strict, *flags, number, f"-I{runtime_folder()}", source, "-o", output, "-pthread"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return output


def small_net() -> Net:
    net = Net()
    x = net.input(1, 8, 12, 12, name="x")
    net.output(net.op("Softmax", net.op("Relu", net.conv(x, 8, 16, (3, 3)))), net.input(3, dtype=np.int64, name="n"))
    net.outputs[-1] = net.op("Identity", net.outputs[-1])
    return net


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


def wait_until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.05)
