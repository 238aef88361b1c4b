"""The zoo on GPUs that are not here: ``pytest -m zoo tests/cuda/test_cuda_zoo.py``, and at its end a table.

Each model becomes a library for two architectures, in float32, in float16 and, quantized by ONNX Runtime's own tool, in
int8. The library is looked at, and runs through the fake driver, whose kernels are the same CUDA C++ as the cubin's.
"""

from __future__ import annotations

import json
import resource
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from compiled import Compiled, compile_net
from cubin import architecture, cubin_of
from fake_cuda import compiler, device_compiler, emulated, fake_gpu, run_python
from qdq import SAMPLES, quantize
from zoo_models import SHAPES, needs_zoo, shapes

import nncc
from nncc.errors import NnccError
from nncc.frontend.onnx import import_onnx
from nncc.frontend.proto import save
from nncc.verify import judge, sample_inputs

pytestmark = [
    *needs_zoo,
    pytest.mark.skipif(sys.platform != "linux" or compiler() is None, reason="the fake driver needs Linux and g++"),
    pytest.mark.skipif(not device_compiler(), reason="no compiler for CUDA: pip install 'nncc[cuda]'"),
]

RECURRENT = ("silero_vad_16k_sequence",)
MODELS = [name for name in SHAPES if name not in RECURRENT]
CODE_BYTES = 5 << 20
"""The contract's: what a library may have besides its weights."""
SECONDS = 360.0
"""The contract's 3 minutes on two cores, as time of processors: others may use them now."""
RUN = """
import sys, numpy, nncc
module = nncc.load(sys.argv[1])
numpy.savez(sys.argv[3], **module.run(dict(numpy.load(sys.argv[2]))))
"""


@pytest.fixture(scope="session")
def quantized(zoo, tmp_path_factory):
    """quantized(name): the model's file as ONNX Runtime's tool quantizes it, of static shapes."""
    folder = tmp_path_factory.mktemp("qdq")

    def path(name: str) -> Path:
        made = folder / f"{name}.qdq.onnx"
        if not made.exists():
            model = import_onnx(zoo(name), shape=shapes(name, zoo(name)))
            save(model, folder / f"{name}.onnx")
            quantize(folder / f"{name}.onnx", [sample_inputs(model, seed) for seed in range(1, SAMPLES + 1)], made)
        return made

    return path


def processor_seconds() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def run_library(compiled: Compiled, inputs: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """What the library gives on the fake driver."""
    kernels = emulated(compiled.library.with_suffix(".cu").read_text())
    np.savez(folder / "inputs.npz", **inputs)
    run_python(RUN, fake_gpu(kernels), compiled.library, folder / "inputs.npz", folder / "outputs.npz")
    with np.load(folder / "outputs.npz") as found:
        return dict(found)


def check_schedules(compiled: Compiled) -> Counter[str]:
    """Every kernel has loops of ours, and those without a template do next to none of the arithmetic; their kinds."""
    program = compiled.program
    kinds = Counter({call.kernel: 0 for call in program.calls if call.kernel})
    kinds.update(call.kernel for call in program.calls if call.kernel)
    words = {kernel: program.schedules[kernel].split()[0] for kernel in kinds}
    assert [kernel for kernel, word in words.items() if word == "dlight"] == []
    flops = {kernel: count * program.operations[kernel].total for kernel, count in kinds.items()}
    plain = sum(flops[kernel] for kernel, word in words.items() if word == "loops")
    assert plain < 0.02 * sum(flops.values()), {k: f for k, f in flops.items() if words[k] == "loops"}
    found: Counter[str] = Counter()
    for kernel, count in kinds.items():
        found[words[kernel]] += count
    return found


@pytest.mark.parametrize("target", ["cuda-sm80", "cuda-sm90"])
@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_machine_code_of_scheduled_kernels_and_agrees_with_onnx_runtime(
    zoo, quantized, tmp_path, name, precision, target, report
):
    path = quantized(name) if precision == "int8" else zoo(name)
    options = {"shape": {} if precision == "int8" else shapes(name, path), "dump_code": ("cu",), "name": "model"}
    before = processor_seconds()
    compiled = compile_net(path, tmp_path, target, **options, precision="float32" if precision == "int8" else precision)
    seconds = processor_seconds() - before
    assert seconds < SECONDS

    library = compiled.library.read_bytes()
    assert architecture(cubin_of(library)) == target.removeprefix("cuda-").replace("sm", "sm_")
    assert b'extern "C" __global__' not in library, "machine code, and no source"
    besides = len(library) - compiled.program.weights.nbytes
    assert besides < CODE_BYTES
    device = json.loads(compiled.artifact.json.read_text())["device"]
    launches = {kernel: each["launches"] for kernel, each in device["kernels"].items()}
    assert [k for k, each in launches.items() if any(one["spilled_bytes"] for one in each)] == []
    kinds = check_schedules(compiled)

    line = f"{name:34} {precision:8} {target}  compiled in {seconds:.0f} s, {besides / 2**20:.2f} MiB besides weights, "
    line += (
        f"{len(launches)} kernels of {max(one['registers'] for each in launches.values() for one in each)} registers"
    )
    inputs = compiled.sample()
    found = run_library(compiled, inputs, tmp_path)
    results = judge(
        compiled.model, inputs, compiled.expected(inputs), found, "float32" if precision == "int8" else precision
    )
    errors = ", ".join(f"{each.relative_error:.1e} (at most {each.tolerance:.1e})" for each in results)
    line += f", error {errors}"
    assert all(each.ok for each in results), "\n".join(map(str, results))
    if precision == "int8":
        native = compile_net(path, tmp_path / "native", shape={}).run(inputs)
        line += f", largest difference to the processor's {max(abs(native[n] - found[n]).max() for n in found):.1e}"
    report(f"{line}; {', '.join(f'{word} {count}' for word, count in kinds.most_common())}")


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_models_are_refused(zoo, tmp_path, name):
    with pytest.raises(NnccError) as error:
        nncc.compile(zoo(name), target="cuda-sm80", output=tmp_path, shape=SHAPES[name], verify=False)
    assert error.value.message == "the model has recurrent layers, which cannot be compiled for `cuda-sm80` yet"
    assert error.value.hint == "compile it for a processor: `nncc targets` lists targets"
