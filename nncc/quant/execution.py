"""Running a graph over samples with ONNX Runtime, one sample in memory at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import ModelError, RunError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir
    import onnxruntime

__all__ = ["run"]

_LARGEST_IN_MEMORY = 2**31 - 2**26
"""Bytes of weights: a protobuf holds less than 2 GiB."""


def _session(graph: onnx_ir.Model, names: Sequence[str], optimized: bool) -> onnxruntime.InferenceSession:
    import onnx_ir
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    weights = sum(v.const_value.nbytes for v in graph.graph.initializers.values() if v.const_value is not None)
    proto = onnx_ir.to_proto(graph)
    known = {value.name for value in proto.graph.output}
    for name in names:
        if name not in known:
            proto.graph.output.add().name = name
    if weights < _LARGEST_IN_MEMORY:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path, save_as_external_data=True)
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(
    graph: onnx_ir.Model, names: Sequence[str], samples: Sequence[Mapping[str, np.ndarray]], *, optimized: bool = True
) -> Iterator[tuple[np.ndarray, ...]]:
    """The values of these names, inner ones too, for each sample.

    Not `optimized`, a QDQ graph is computed as its definition says, in float32; optimized, ONNX Runtime's integer
    kernels saturate on processors without VNNI. Raises ModelError where it cannot run the graph, RunError where it
    cannot run a sample; both with its words.
    """
    inputs = {str(value.name) for value in graph.graph.inputs}
    made = [name for name in names if name not in inputs]
    try:
        session = _session(graph, made, optimized)
    except Exception as error:  # its exceptions have no common base but Exception
        text = " ".join(str(error).split())[:500]
        raise ModelError(
            f"ONNX Runtime cannot load the model: {text}", "quantizing needs it, to run the model"
        ) from error
    for number, sample in enumerate(samples):
        try:
            results = dict(zip(made, session.run(made, dict(sample)) if made else [], strict=True))
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise RunError(
                f"calibration sample {number} cannot be run: {text}", "its arrays must fit the inputs of the model"
            ) from error
        yield tuple(results[name] if name in results else sample[name] for name in names)
