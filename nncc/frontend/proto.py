"""A model as ONNX again: as a protobuf, and as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nncc.ir import Model

if TYPE_CHECKING:
    import onnx

__all__ = ["save", "to_proto"]


def to_proto(model: Model) -> onnx.ModelProto:
    """The model as a protobuf, weights inside (in memory it may pass 2 GiB; serialized it may not)."""
    import onnx_ir

    return onnx_ir.to_proto(model.graph)


def save(model: Model, path: str | Path) -> None:
    """Write the model as an ONNX file; weights of 2 GiB and more go to a file beside it."""
    import onnx_ir

    path = Path(path)
    weights = sum(v.const_value.nbytes for v in model.graph.graph.initializers.values() if v.const_value is not None)
    external = f"{path.name}.data" if weights > 2**31 - 2**26 else None
    onnx_ir.save(model.graph, path, external_data=external)
