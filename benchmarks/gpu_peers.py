"""What `gpu.py` measures on a GPU, each in a process of its own: nncc, ONNX Runtime, TensorRT through it, and torch.

Inputs and outputs lie in the GPU's memory; a run is one inference, waited for. ONNX Runtime and TensorRT compute the
model's file. torch computes the same architecture with weights of its own (`torch` in `models.toml`), replayed as a
CUDA graph.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from peers import Loaded, serve


def nncc(library: Path, inputs: Mapping[str, np.ndarray], folder: Path) -> Loaded:
    """The compiled library, on memory of torch's where torch is installed, else on that of the processor."""
    from nncc.runtime.loader import load

    module = load(library)
    torch = _torch_with_gpu()
    if torch is None:
        return Loaded(
            lambda: module.benchmark(inputs, repeat=1, warmup=0)[0], lambda: list(module.run(inputs).values())
        )
    arrays = {name: torch.from_numpy(np.ascontiguousarray(array)).cuda() for name, array in inputs.items()}
    outputs = {t.name: torch.empty(t.shape, dtype=getattr(torch, t.dtype), device="cuda") for t in module.outputs}
    torch.cuda.synchronize()

    def found() -> list[np.ndarray]:
        module.run(arrays, outputs)
        return [outputs[tensor.name].cpu().numpy() for tensor in module.outputs]

    # `benchmark` checks the arrays once, and then calls the library: what a caller in C pays.
    return Loaded(lambda: module.benchmark(arrays, repeat=1, warmup=0, outputs=outputs)[0], found)


def _torch_with_gpu() -> Any:
    """torch, or None where it is not installed or sees no GPU."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def _session(provider: str, options: Mapping[str, Any]) -> Callable[[Path, Mapping[str, np.ndarray], Path], Loaded]:
    def load(model: Path, inputs: Mapping[str, np.ndarray], folder: Path) -> Loaded:
        import onnxruntime

        if provider not in onnxruntime.get_available_providers():
            raise ValueError(f"this ONNX Runtime has no {provider}")
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        session = onnxruntime.InferenceSession(str(model), settings, providers=[(provider, dict(options))])
        if session.get_providers()[0] != provider:
            raise ValueError(f"ONNX Runtime falls back from {provider}")
        binding = session.io_binding()
        for name, array in inputs.items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), "cuda", 0)
            binding.bind_ortvalue_input(name, value)
        for output in session.get_outputs():
            binding.bind_output(output.name, "cuda")

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        def found() -> list[np.ndarray]:
            run()
            return [value.numpy() for value in binding.get_outputs()]

        return Loaded(run, found)

    return load


def _torch(tf32: bool = False, half: bool = False) -> Callable[[Path, Mapping[str, np.ndarray], Path], Loaded]:
    def load(model: Path, inputs: Mapping[str, np.ndarray], folder: Path) -> Loaded:
        torch = _torch_with_gpu()
        if torch is None:
            raise ValueError("there is no torch that sees a GPU")
        where = json.loads((folder.parent / "made.json").read_text())["torch"]
        if where is None:
            raise ValueError("models.toml names no torch module for it")
        module, _, name = where.partition(":")
        torch.manual_seed(0)
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True
        found = importlib.import_module(module)
        network = (found.create_model(name) if module == "timm" else getattr(found, name)()).eval().cuda()
        [array] = inputs.values()
        given = torch.from_numpy(np.ascontiguousarray(array)).cuda()
        if half:
            network, given = network.half(), given.half()
        with torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    network(given)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = network(given)

        def run() -> None:
            graph.replay()
            torch.cuda.synchronize()

        return Loaded(run, lambda: [result.cpu().numpy()])

    return load


Load = Callable[[Path, Mapping[str, np.ndarray], Path], Loaded]
_TENSORRT = {"trt_cuda_graph_enable": "1"}
CONTESTANTS: dict[str, dict[str, Load]] = {
    "float32": {
        "nncc": nncc,
        "onnxruntime": _session("CUDAExecutionProvider", {"use_tf32": "0"}),
        "onnxruntime-tf32": _session("CUDAExecutionProvider", {"use_tf32": "1"}),
        "tensorrt": _session("TensorrtExecutionProvider", _TENSORRT),
        "torch": _torch(),
        "torch-tf32": _torch(tf32=True),
    },
    "float16": {
        "nncc": nncc,
        "tensorrt": _session("TensorrtExecutionProvider", _TENSORRT | {"trt_fp16_enable": "1"}),
        "torch": _torch(half=True),
    },
    "int8": {
        "nncc": nncc,
        "onnxruntime": _session("CUDAExecutionProvider", {"use_tf32": "0"}),
        "tensorrt": _session("TensorrtExecutionProvider", _TENSORRT | {"trt_int8_enable": "1"}),
    },
}
"""By precision and name, how each loads a model: the library for nncc, the ONNX file for the others."""


def main(name: str, model: str, inputs: str, expected: str) -> None:
    precision = json.loads((Path(model).parent / "made.json").read_text())["precision"]

    def load(arrays: dict[str, np.ndarray], folder: Path) -> Loaded:
        return CONTESTANTS[precision][name](Path(model), arrays, folder)

    # Nothing is compared of torch, whose weights are its own, and where weights are made up.
    known = "" if name.startswith("torch") or not Path(expected).exists() else expected
    serve(name, load, Path(model).parent / f"of-{name}", inputs, known, precision)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    main(*sys.argv[1:])
