"""The runtimes that nncc is measured against, and nncc itself: each takes a model and gives a function that runs it.

Run as a program, this file is one contestant in a process of its own: it loads, compares its outputs with what they
should be, warms up, says ``ready``, and then for each line ``N`` on its standard input runs N times and prints the
seconds of each run as JSON. It needs numpy and the contestant's own package, so that a peer whose package does not go
with the others has a virtual environment of its own, whose Python `bench.py --python PEER=PATH` names.

    pip install '.[bench]' && pip install --no-deps pnnx
    python -m venv litert && litert/bin/pip install ai-edge-litert onnx2tf      # --python litert=litert/bin/python

pnnx, ncnn's converter, is a program that needs nothing of the 5 GB of torch that its package asks for. onnx2tf, which
converts for LiteRT, brings TensorFlow and holds numpy below 2. All peers that were tried can be had from PyPI so.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

TOLERANCE = 1e-2
"""Of the largest output. Rounding is below 1e-4, but the exp and erf of some peers are approximations, 3e-3 off."""
HALF_TOLERANCE = 3e-2
"""The same of products of halves: each is off by up to 2^-11 of itself, tens of layers multiply that by tens."""
QUANTIZED_TOLERANCE = 0.3
"""Of the root of the mean square of the outputs of a quantized model: single steps of its layers add up to as much, as
they do between ONNX Runtime with and without its optimizations."""


class Task(NamedTuple):
    """What a contestant is to run; of `folder` it does what it likes. `isa` is "" or the most that it may use."""

    model: Path
    inputs: dict[str, np.ndarray]
    threads: int
    isa: str
    folder: Path


class Loaded(NamedTuple):
    """`run` computes once; `outputs` tells what it computed, in whatever order."""

    run: Callable[[], object]
    outputs: Callable[[], list[np.ndarray]]


def nncc(task: Task) -> Loaded:
    """`task.model` is the compiled library; `run` gives the seconds, by nncc's own clock."""
    import nncc

    module = nncc.load(task.model, threads=task.threads)
    return Loaded(
        lambda: module.benchmark(task.inputs, repeat=1, warmup=0)[0],
        lambda: list(module.run(task.inputs).values()),
    )


def onnxruntime(task: Task) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(task.model), options, providers=["CPUExecutionProvider"])
    return Loaded(lambda: session.run(None, task.inputs), lambda: session.run(None, task.inputs))


def openvino(task: Task) -> Loaded:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": task.threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(task.model), "CPU", hints)
    request = compiled.create_infer_request()
    names = [compiled.input(i).get_any_name() for i in range(len(compiled.inputs))]
    tensors = [openvino.Tensor(task.inputs[name]) for name in names]
    for i, tensor in enumerate(tensors):
        request.set_input_tensor(i, tensor)
    return Loaded(request.infer, lambda: [tensor.data for tensor in request.output_tensors])


def mnn(task: Task) -> Loaded:
    import MNN

    converted = task.folder / "model.mnn"
    # Not MNN.tools.mnnconvert: for a logger that reports home it calls whatever `pip` is first in PATH, which then puts
    # protobuf below what onnx needs.
    program = "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"
    convert = [sys.executable, "-c", program, "-f", "ONNX", "--modelFile", str(task.model)]
    converter([*convert, "--MNNModel", str(converted), "--bizCode", "x"], task)
    interpreter = MNN.Interpreter(str(converted))
    session = interpreter.createSession({"numThread": task.threads, "precision": "high", "backend": "CPU"})

    def host(array: np.ndarray) -> object:
        kind, dtype = (
            (MNN.Halide_Type_Float, np.float32) if array.dtype.kind == "f" else (MNN.Halide_Type_Int, np.int32)
        )
        array = np.ascontiguousarray(array, dtype)
        return MNN.Tensor(array.shape, kind, array, MNN.Tensor_DimensionType_Caffe)

    def outputs() -> list[np.ndarray]:
        found = []
        for tensor in interpreter.getSessionOutputAll(session).values():
            found.append(np.zeros(tensor.getShape(), np.float32))
            copy = host(found[-1])
            tensor.copyToHostTensor(copy)
            found[-1] = np.array(copy.getData())
        return found

    for name, tensor in interpreter.getSessionInputAll(session).items():
        tensor.copyFrom(host(task.inputs[name]))
    return Loaded(lambda: interpreter.runSession(session), outputs)


def ncnn(task: Task) -> Loaded:
    import ncnn

    [pnnx] = importlib.util.find_spec("pnnx").submodule_search_locations
    shutil.copy(task.model, task.folder / "model.onnx")  # pnnx writes where its input is
    converter([str(Path(pnnx) / "pnnx"), "model.onnx", "fp16=0"], task)
    net = ncnn.Net()
    net.opt.num_threads = task.threads
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
        setattr(net.opt, f"use_{name}", False)
    for load, file in ((net.load_param, "model.ncnn.param"), (net.load_model, "model.ncnn.bin")):
        if load(str(task.folder / file)):
            raise ValueError(f"ncnn cannot load {file}")
    arrays = [array if array.dtype.kind == "f" else array.astype(np.int32) for array in task.inputs.values()]
    mats = [ncnn.Mat(np.ascontiguousarray(array), batch_index=0).clone() for array in arrays]

    def run() -> list[object]:
        with net.create_extractor() as extractor:
            for i, mat in enumerate(mats):
                extractor.input(f"in{i}", mat)
            results = [extractor.extract(name) for name in net.output_names()]
        if any(status for status, _ in results):
            raise ValueError("ncnn cannot run it")
        return [mat for _, mat in results]

    return Loaded(run, lambda: [np.array(mat) for mat in run()])


def tract(task: Task) -> Loaded:
    import tract

    if task.threads != 1:
        raise ValueError("tract's Python package runs on one thread")
    state = tract.Onnx().load(task.model).into_model().into_runnable().spawn_state()
    tensors = [tract.Tensor.from_numpy(array) for array in task.inputs.values()]
    return Loaded(lambda: state.run(tensors), lambda: [tensor.to_numpy() for tensor in state.run(tensors)])


def iree(task: Task) -> Loaded:
    from iree import compiler, runtime

    imported, compiled = task.folder / "model.mlir", task.folder / "model.vmfb"
    converter([sys.executable, "-m", "iree.compiler.tools.import_onnx", str(task.model), "-o", str(imported)], task)
    cpu = {"": "host", "avx2": "x86-64-v3"}[task.isa]
    words = [
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-opt-level=O3",
    ]
    words.append(f"--iree-llvmcpu-target-cpu={cpu}")
    compiler.compile_file(str(imported), output_file=str(compiled), extra_args=words)
    runtime.flags.parse_flags(f"--task_topology_max_group_count={task.threads}")
    config = runtime.Config("local-sync" if task.threads == 1 else "local-task")
    module = runtime.VmModule.mmap(config.vm_instance, str(compiled))
    context = runtime.SystemContext(vm_modules=[runtime.create_hal_module(config.vm_instance, config.device), module])
    [name] = [name for name in module.function_names if not name.startswith("__") and not name.endswith("$async")]
    function = context.modules[module.name][name]
    arrays = [runtime.asdevicearray(config.device, array) for array in task.inputs.values()]

    def outputs() -> list[np.ndarray]:
        found = function(*arrays)
        return [each.to_host() for each in (found if isinstance(found, (list, tuple)) else [found])]

    return Loaded(lambda: function(*arrays), outputs)


def litert(task: Task) -> Loaded:
    from ai_edge_litert.interpreter import Interpreter

    # onnx2tf compares with pictures that it fetches, unless they are where it is started.
    pictures = np.random.default_rng(0).random((20, 128, 128, 3), np.float32)
    np.save(task.folder / "calibration_image_sample_data_20x128x128x3_float32.npy", pictures)
    converter([sys.executable, "-m", "onnx2tf", "-i", str(task.model), "-o", "out", "-n"], task)
    [converted] = (task.folder / "out").glob("*_float32.tflite")
    interpreter = Interpreter(model_path=str(converted), num_threads=task.threads)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        array = next(array for name, array in task.inputs.items() if name in detail["name"])
        if tuple(detail["shape"]) != array.shape:
            array = np.moveaxis(array, 1, -1)  # channels last, as onnx2tf has it
        interpreter.set_tensor(detail["index"], array.astype(detail["dtype"]))

    def outputs() -> list[np.ndarray]:
        arrays = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
        return arrays + [np.moveaxis(array, -1, 1) for array in arrays if array.ndim > 2]

    return Loaded(interpreter.invoke, outputs)


def converter(command: list[str], task: Task) -> None:
    """Run a converter in the task's folder; ValueError with its last line."""
    done = subprocess.run(command, cwd=task.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1].strip()
        raise ValueError(f"the converter {Path(command[0]).name} ended with exit status {done.returncode}: {last}")


@dataclass(frozen=True)
class Contestant:
    """`package` is what to install, and whose version is told. `limits` has, for each instruction set that it can be
    held to, the environment that does it; empty where `load` does it."""

    load: Callable[[Task], Loaded]
    package: str
    limits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


CONTESTANTS: dict[str, Contestant] = {
    "nncc": Contestant(nncc, "nncc", {"avx2": {}}),
    "nncc-float": Contestant(nncc, "nncc", {"avx2": {}}),
    # No switch: MLAS asks the processor, and so do MNN, ncnn and LiteRT's XNNPACK.
    "onnxruntime": Contestant(onnxruntime, "onnxruntime"),
    # One variable for its own kernels, one for oneDNN's; its MLAS, for some products of matrices, has none.
    "openvino": Contestant(openvino, "openvino", {"avx2": {"OV_CPU_MAX_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}}),
    "mnn": Contestant(mnn, "MNN"),
    "ncnn": Contestant(ncnn, "ncnn"),
    "tract": Contestant(tract, "tract", {"avx2": {"TRACT_CPU_ISA": "-avx512f,-avx512vnni,-avx512fp16"}}),
    "iree": Contestant(iree, "iree-base-compiler", {"avx2": {}}),
    "litert": Contestant(litert, "ai-edge-litert"),
}


def check(found: list[np.ndarray], expected: list[np.ndarray], precision: str = "float32") -> None:
    """Each of `expected` is among `found`, whatever the order and the axes of length 1; else ValueError."""
    size = (lambda x: float(np.sqrt(np.mean(x**2)))) if precision == "int8" else (lambda x: float(np.abs(x).max()))
    tolerance = {"float32": TOLERANCE, "float16": HALF_TOLERANCE}.get(precision, QUANTIZED_TOLERANCE)
    for number, array in enumerate(expected):
        same = [each for each in found if each.size == array.size]
        errors = [size(each.reshape(-1).astype(np.float64) - array.reshape(-1)) for each in same]
        scale = size(array)
        if not any(error <= tolerance * scale for error in errors):
            detail = f"the nearest is {min(errors):.3g} away" if errors else "none has its size"
            raise ValueError(f"output {number}, with values up to {scale:.3g}, is not among its outputs: {detail}")


def main(name: str, model: str, inputs: str, expected: str, threads: str, isa: str, precision: str) -> None:
    def load(arrays: dict[str, np.ndarray], folder: Path) -> Loaded:
        return CONTESTANTS[name].load(Task(Path(model), arrays, int(threads), isa, folder))

    serve(name, load, Path(model).parent / f"of-{name}", inputs, expected, precision)


def serve(
    name: str,
    load: Callable[[dict[str, np.ndarray], Path], Loaded],
    folder: Path,
    inputs: str,
    expected: str,
    precision: str,
) -> None:
    """Load, check, warm up, say ``ready``, and answer each line ``N`` with the seconds of N runs.

    Without `expected`, an empty word, there is nothing to check.
    """
    # What libraries and converters print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    folder.mkdir(exist_ok=True)
    try:
        with np.load(inputs) as stored:
            arrays = {key: stored[key] for key in stored.files}
        loaded = load(arrays, folder)
        loaded.run()
        if expected:
            with np.load(expected) as stored:
                check(loaded.outputs(), [stored[key] for key in stored.files], precision)
        start = time.perf_counter()
        while time.perf_counter() - start < 0.5:
            loaded.run()
    except Exception as error:  # whatever a package may raise is one line of bench.py
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            result = loaded.run()
            times.append(result if name.startswith("nncc") else time.perf_counter() - start)
        print(json.dumps(times), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
