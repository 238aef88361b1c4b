"""The model zoo, whole, where it lies beside the project: ``pytest -m zoo``."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from compiled import compile_net
from zoo_models import IMAGE, SHAPES, needs_zoo, shapes

import nncc
from nncc.config import Config
from nncc.emulation import emulator
from nncc.errors import TargetError
from nncc.pipeline import plan, run
from nncc.resources import schedules_folder
from nncc.target import resolve
from nncc.toml import tomllib
from nncc.verify import compare

pytestmark = needs_zoo

OPEN = {
    "minilm_l6": ("S", (16, 512), (16, 77, 512)),
    "PP-OCRv6_rec_small": ("W", (32, 640), (32, 320, 600)),
}
"""Models of open size: its name, its range, and sizes that are tried."""

SHIPPED = sorted((schedules_folder() / "records").glob("*/about.toml"))
TOLERANCE = 5e-5
"""Rounding of float32: 4e-6 an operator, over up to 80 of them, of which errors mostly cancel."""
AMPLIFIED = {
    # Its input is noise, on which the Softmax of its attention amplifies what rounding does before; 3e-5 measured.
    "PP-OCRv6_rec_small": 2e-4,
}

BOARD = (
    "resnet18",
    "mobilenet_v2",
    "efficientnet_lite0",
    "PP-OCRv6_rec_small",
    "tiny_kws_dscnn",
    "vit_tiny_patch16_224",
)
TINY = ("tiny_kws_dscnn", "tiny_ic_resnet8", "fmnist_dsnet")


def check(name: str, path: Path, folder: Path, target: str, report) -> None:
    compiled = compile_net(path, folder, target, shape=shapes(name, path))
    inputs = compiled.sample()
    found = compare(
        compiled.expected(inputs), compiled.run(inputs, threads=2), tolerance=AMPLIFIED.get(name, TOLERANCE)
    )
    code = compiled.library.stat().st_size - compiled.program.weights.nbytes
    errors = ", ".join(f"{each.name} {each.relative_error:.1e}" for each in found)
    report(f"{target:8} {name:34} {errors}; {code // 1024} KiB besides weights")
    assert all(each.ok for each in found), "\n".join(map(str, found))
    assert code <= 2**20
    compiled.library.unlink()


@pytest.mark.parametrize("name", SHAPES)
def test_a_model_on_this_machine(zoo, tmp_path, name, report):
    check(name, zoo(name), tmp_path, "native", report)


@pytest.mark.parametrize(
    ("target", "name"),
    [*(("arm64", name) for name in BOARD), *((target, name) for target in ("armv7", "riscv64") for name in TINY)],
)
def test_a_model_on_an_emulated_board(zoo, tmp_path, target, name, report):
    try:
        emulator(resolve(target))
    except TargetError as error:
        pytest.skip(f"{error} ({error.hint})")
    check(name, zoo(name), tmp_path, target, report)


@pytest.mark.parametrize(
    "about", sorted((schedules_folder() / "records").glob("*/about.toml")), ids=lambda p: p.parent.name
)
def test_the_shipped_records_are_found_by_the_models_that_they_were_made_for(zoo, monkeypatch, about):
    """A change of lowering that loses them is to tune again."""
    for run_ in tomllib.loads(about.read_text(encoding="utf-8"))["runs"]:
        name, threads = run_["model"], run_["threads"]
        monkeypatch.setattr("nncc.tuning.known._typical", lambda folder, run_=run_: run_["machine"])
        job = plan(
            zoo(name),
            Config(target=about.parent.name, shape=SHAPES[name], threads=threads, until="schedule", verify=False),
        )
        kernels = [decision for decision in run(job).decisions if decision.kind == "kernel"]
        hits = sum(each.tuned for each in kernels)
        assert hits >= run_["kernels"] > 0, f"{name}, {threads} threads: {hits} of {len(kernels)}"


@pytest.mark.parametrize("name", OPEN)
def test_a_model_of_open_size_at_its_sizes(zoo, tmp_path, name):
    dim, bounds, sizes = OPEN[name]
    path = zoo(name)
    session = onnxruntime.InferenceSession(str(path))
    open_shapes = {each.name: (1, dim) if len(each.shape) == 2 else (1, 3, 48, dim) for each in session.get_inputs()}
    made = nncc.compile(path, output=tmp_path, shape=open_shapes, range={dim: bounds}, verify=False)
    library = nncc.load(made.library, threads=2)
    random = np.random.default_rng(0)
    for size in sizes:
        inputs: dict[str, np.ndarray] = {}
        for each in session.get_inputs():
            shape = tuple(size if d == dim else d for d in open_shapes[each.name])
            if each.type == "tensor(int64)":
                inputs[each.name] = random.integers(0, 1000, shape) if "ids" in each.name else np.ones(shape, np.int64)
            else:
                inputs[each.name] = random.standard_normal(shape, np.float32)
            if each.name == "token_type_ids":
                inputs[each.name] = np.zeros(shape, np.int64)
        expected = dict(zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True))
        for output, value in library.run(inputs).items():
            error = abs(value - expected[output]).max() / abs(expected[output]).max()
            assert value.shape == expected[output].shape and error <= AMPLIFIED.get(name, TOLERANCE), (size, error)


LOAD = """
import ctypes, sys, time
start = time.perf_counter()
library = ctypes.CDLL(sys.argv[1])
context = ctypes.c_void_p()
library.nncc_create.argtypes = [ctypes.c_void_p, ctypes.c_int]
assert library.nncc_create(ctypes.byref(context), 2) == 0
print(time.perf_counter() - start)
"""


def test_resnet50_is_loaded_and_ready_in_5_ms(zoo, tmp_path):
    """The contract's figure: median of 21 processes, since others use this machine too."""
    compiled = compile_net(zoo("resnet50"), tmp_path, shape=IMAGE)
    command = [sys.executable, "-c", LOAD, str(compiled.library)]
    seconds = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(21)]
    assert statistics.median(seconds) < 5e-3, np.sort(seconds)
