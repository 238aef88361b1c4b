"""Whole models for a GPU: compiled, linked and run through the driver's functions, with g++ in place of the GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from fake_cuda import compiler, device_compiler, emulated, fake_gpu, run_python
from onnx import TensorProto, helper

import nncc
from nncc.cli import cli
from nncc.frontend.onnx import import_onnx
from nncc.verify import reference, sample_inputs

pytestmark = [
    pytest.mark.skipif(not device_compiler(), reason="no compiler for CUDA on this machine"),
    pytest.mark.skipif(compiler() is None, reason="no C++ compiler on this machine"),
    pytest.mark.skipif(sys.platform != "linux", reason="the fake driver is for Linux"),
]

RUN = """
import sys, numpy, nncc
module = nncc.load(sys.argv[1])
numpy.savez(sys.argv[3], **module.run(dict(numpy.load(sys.argv[2]))))
"""


def residual_network(path: Path) -> Path:
    """Convolutions of odd sizes, one by groups, a residual, pools, a product, softmax."""
    random = np.random.default_rng(0)
    weights = {
        "w1": (20, 3, 3, 3),
        "w2": (20, 1, 5, 5),
        "w3": (20, 20, 1, 1),
        "b3": (20,),
        "w4": (24, 10, 3, 3),
        "f": (24, 10),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[2, 2, 2, 2], group=20),
        helper.make_node("Conv", ["c", "w3", "b3"], ["d"]),
        helper.make_node("Add", ["d", "b"], ["e"]),
        helper.make_node("MaxPool", ["e"], ["g"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Conv", ["g", "w4"], ["h"], group=2),
        helper.make_node("GlobalAveragePool", ["h"], ["i"]),
        helper.make_node("Flatten", ["i"], ["j"]),
        helper.make_node("MatMul", ["j", "f"], ["k"]),
        helper.make_node("Softmax", ["k"], ["y"]),
    ]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, shape, random.standard_normal(shape).astype(np.float32).ravel() / 4)
        for name, shape in weights.items()
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 31, 29))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 10))],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def compiled(model: Path, folder: Path, target: str) -> tuple[nncc.ir.Artifact, dict[str, str]]:
    """The library, and the environment of a process that can run it."""
    artifact = nncc.compile(model, target=target, output=folder, name="model", dump_code=("cu",), verify=False)
    return artifact, fake_gpu(emulated((folder / "model.cu").read_text()))


@pytest.mark.parametrize("target", ["cuda-sm80", "cuda-sm90"])
def test_a_network_agrees_with_onnx_runtime(tmp_path, target):
    model = residual_network(tmp_path / "net.onnx")
    artifact, environment = compiled(model, tmp_path / "out", target)
    inputs = sample_inputs(import_onnx(model))
    np.savez(tmp_path / "inputs.npz", **inputs)
    run_python(RUN, environment, artifact.library, tmp_path / "inputs.npz", tmp_path / "outputs.npz")
    expected, found = reference(model, inputs), np.load(tmp_path / "outputs.npz")
    assert list(found) == list(expected)
    np.testing.assert_allclose(found["y"], expected["y"], rtol=1e-5, atol=1e-6)


def test_the_library_holds_machine_code_and_needs_no_cuda_to_be_loaded(tmp_path):
    artifact, _ = compiled(residual_network(tmp_path / "net.onnx"), tmp_path / "out", "cuda-sm80")
    device = json.loads(artifact.json.read_text())["device"]
    assert device["architecture"] == "sm_80"
    data = artifact.library.read_bytes()
    cubin = data.find(b"\x7fELF", 4)
    assert cubin > 0 and data[cubin + 18 : cubin + 20] == b"\xbe\x00", "EM_CUDA, 190"
    assert b".target sm_80" in data and b"__global__" not in data
    needed = subprocess.run(["readelf", "-d", artifact.library], capture_output=True, text=True, check=True).stdout
    libraries = {line.split("[")[1].split("]")[0] for line in needed.splitlines() if "(NEEDED)" in line}
    assert libraries <= {"libc.so.6", "libdl.so.2", "libpthread.so.0", "libm.so.6", "ld-linux-x86-64.so.2"}


def test_no_kernel_spills(tmp_path):
    artifact, _ = compiled(residual_network(tmp_path / "net.onnx"), tmp_path / "out", "cuda-sm80")
    kernels = json.loads(artifact.json.read_text())["device"]["kernels"]
    assert kernels
    assert [name for name, each in kernels.items() if any(one["spilled_bytes"] for one in each["launches"])] == []


def test_the_description_has_an_estimate_of_each_kernel(tmp_path):
    artifact, _ = compiled(residual_network(tmp_path / "net.onnx"), tmp_path / "out", "cuda-sm80")
    facts = json.loads(artifact.json.read_text())
    kernels = facts["device"]["kernels"]
    assert set(kernels) == set(facts["calls"]) - {"copy"}
    for each in kernels.values():
        assert each["least_us"] > 0 and each["bound"] in ("memory", "arithmetic")
        assert all(0 < launch["occupancy"] <= 1 and launch["waves"] > 0 for launch in each["launches"])


def test_show_and_bench_tell_of_each_kernel(tmp_path):
    artifact, environment = compiled(residual_network(tmp_path / "net.onnx"), tmp_path / "out", "cuda-sm80")
    kernels = json.loads(artifact.json.read_text())["device"]["kernels"]
    shown = CliRunner().invoke(cli, ["show", str(artifact.library)]).stdout
    assert f"{len(kernels)} kernels, " in shown and all(f"  {name}\n" in shown for name in kernels)
    words = ["bench", str(artifact.library), "--profile", "--repeat", "1", "--json"]
    main = "import sys; from nncc.cli import cli; cli(sys.argv[1:])"
    rows = json.loads(run_python(main, environment, *words))["kernels"]
    assert {row["name"] for row in rows if row["roofline"] is not None} == set(kernels)
    assert all("waves" in row and "occupancy" in row for row in rows if row["name"] in kernels)
