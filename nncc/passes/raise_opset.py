"""A model of an old opset becomes one of a newer opset, where a rewrite needs what the newer one allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.grids import opset
from nncc.passes.infer_shapes import infer_shapes
from nncc.passes.rewriting import quiet

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["raise_opset"]


def raise_opset(graph: onnx_ir.Model, version: int) -> str | None:
    """Convert the standard domain to `version` in place where it is lower; or say why that cannot be.

    Values and nodes held from before the call may no longer be part of the graph.
    """
    from onnxscript.version_converter import convert_version

    if opset(graph) >= version:
        return None
    trial = graph.clone()
    try:
        with quiet():
            convert_version(trial, version, fallback=True)
    except Exception as error:  # the converters of onnxscript and onnx raise whatever they like
        return f"opset {opset(graph)} cannot be raised to {version}: {error}"
    if opset(trial) < version:
        return f"opset {opset(graph)} cannot be raised to {version}"
    for value, before in zip(trial.graph.outputs, graph.graph.outputs, strict=True):
        value.type, value.shape = before.type, before.shape
    for value, before in zip(trial.graph.inputs, graph.graph.inputs, strict=True):
        value.type, value.shape = before.type, before.shape
    infer_shapes(trial)
    graph.graph = trial.graph
    return None
