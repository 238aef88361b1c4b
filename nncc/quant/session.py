"""Models run by ONNX Runtime as what they say: Q and DQ nodes are computed in float32, not fused to int8 kernels.

On processors without VNNI ONNX Runtime's own int8 kernels saturate, so a score by them is another processor's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nncc.errors import ModelError, RunError

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Session", "open_graph"]


class Session:
    """A model, loaded once. One thread, so that results do not depend on the machine's load."""

    def __init__(self, model: Path | bytes, *, optimize: bool = True) -> None:
        """`model` is a file or its bytes; `optimize` lets ONNX Runtime fuse float operators. Raises ModelError."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what fails is in the exception, and so in our error
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
        self._name = "the model" if isinstance(model, bytes) else f"`{model}`"
        try:
            given = model if isinstance(model, bytes) else str(model)
            self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions have no common base but Exception
            text = " ".join(str(error).split())[:500]
            raise ModelError(f"ONNX Runtime cannot load {self._name}: {text}") from error
        self._inputs = {value.name for value in self._session.get_inputs()}

    @property
    def float_outputs(self) -> list[str]:
        """Names of the outputs that hold floats, in order."""
        return [v.name for v in self._session.get_outputs() if v.type in ("tensor(float)", "tensor(float16)")]

    @property
    def outputs(self) -> list[str]:
        """Names of all outputs, in order."""
        return [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
        """The outputs of these names; inputs that the model does not have are passed by. Raises RunError."""
        given = {name: array for name, array in inputs.items() if name in self._inputs}
        try:
            return self._session.run(list(names), given)
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise RunError(f"ONNX Runtime cannot run {self._name}: {text}") from error


def open_graph(graph: onnx_ir.Model, *, optimize: bool = True, more: Sequence[str] = ()) -> Session:
    """A Session of a graph in memory, with the inner values that `more` names as outputs too; one of 2 GiB and more
    goes through a temporary file."""
    import onnx_ir

    proto = onnx_ir.to_proto(graph)
    known = {value.name for value in proto.graph.output}
    for name in more:
        if name not in known:
            proto.graph.output.add().name = name
    weights = sum(v.const_value.nbytes for v in graph.graph.initializers.values() if v.const_value is not None)
    if weights < 2**31 - 2**26:
        return Session(proto.SerializeToString(), optimize=optimize)
    import onnx

    with tempfile.TemporaryDirectory(prefix="nncc-") as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(proto, path, save_as_external_data=True)
        return Session(path, optimize=optimize)
