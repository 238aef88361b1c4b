"""The runtimes that nncc is measured against, and nncc itself: each loads a model and gives a function that runs it.

Run as a program, this file is one contestant in a process of its own: it loads, warms up, says ``ready``, and then for
each line ``N`` on its standard input runs N times and prints the seconds of each run as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Inputs = dict[str, np.ndarray]


def nncc(model: Path, inputs: Inputs, threads: int) -> Callable[[], object]:
    """`model` is the compiled library."""
    import nncc

    module = nncc.load(model, threads=threads)
    module.run(inputs)
    return lambda: module.benchmark(inputs, repeat=1, warmup=0)


def onnxruntime(model: Path, inputs: Inputs, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, inputs)


def openvino(model: Path, inputs: Inputs, threads: int) -> Callable[[], object]:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(model), "CPU", hints)
    request = compiled.create_infer_request()
    names = [compiled.input(i).get_any_name() for i in range(len(compiled.inputs))]
    tensors = [openvino.Tensor(inputs[name]) for name in names]
    for i, tensor in enumerate(tensors):
        request.set_input_tensor(i, tensor)
    return request.infer


def mnn(model: Path, inputs: Inputs, threads: int) -> Callable[[], object]:
    import subprocess

    import MNN

    converted = Path(tempfile.mkdtemp(prefix="nncc-bench-")) / "model.mnn"
    command = [sys.executable, "-m", "MNN.tools.mnnconvert", "-f", "ONNX", "--modelFile", str(model)]
    subprocess.run([*command, "--MNNModel", str(converted), "--bizCode", "x"], check=True, capture_output=True)
    interpreter = MNN.Interpreter(str(converted))
    session = interpreter.createSession({"numThread": threads, "precision": "high", "backend": "CPU"})
    for name, tensor in interpreter.getSessionInputAll(session).items():
        array = np.ascontiguousarray(inputs[name])
        kind = MNN.Halide_Type_Float if array.dtype == np.float32 else MNN.Halide_Type_Int
        array = array.astype(np.float32 if array.dtype == np.float32 else np.int32)
        tensor.copyFrom(MNN.Tensor(array.shape, kind, array, MNN.Tensor_DimensionType_Caffe))
    return lambda: interpreter.runSession(session)


CONTESTANTS: dict[str, Callable[[Path, Inputs, int], Callable[[], object]]] = {
    "nncc": nncc,
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "mnn": mnn,
}
"""By name; the package to install has the same one."""


def main(name: str, model: str, inputs: str, threads: str) -> None:
    with np.load(inputs) as stored:
        arrays = {key: stored[key] for key in stored.files}
    run = CONTESTANTS[name](Path(model), arrays, int(threads))
    start = time.perf_counter()
    while time.perf_counter() - start < 0.5:
        run()
    print("ready", flush=True)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            result = run()
            times.append(result[0] if name == "nncc" else time.perf_counter() - start)
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
