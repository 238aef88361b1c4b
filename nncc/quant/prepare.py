"""The graph that statistics are taken of: batch norms folded, pads folded, float32, opset new enough, names unique."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.rewriting import is_op, quiet
from nncc.quant.widen import widen

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["OPSET", "prepare", "raised"]

OPSET = 17
"""What graphs of an older opset are raised to; DequantizeLinear along an axis came with 13."""

_PRETENDED = 96
"""The size that open dimensions are given while batch norms and pads are folded, which nothing else depends on."""


def prepare(graph: onnx_ir.Model, *, least_opset: int = 13) -> onnx_ir.Model:
    """The same function, with the operators that quantization wants. The given graph is not changed.

    An opset below `least_opset` is raised to `OPSET`. Open dimensions stay open. Raises ModelError if the graph is
    quantized already, or its opset cannot be raised.
    """
    from nncc.passes.drop_noops import drop_noops
    from nncc.passes.fold_constants import fold_constants
    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.remove_unused import remove_unused

    _refuse_quantized(graph)
    graph = raised(graph, least_opset, OPSET)
    main = graph.graph
    main.inputs[:] = [value for value in main.inputs if value.name not in main.initializers]
    graph.ir_version = max(graph.ir_version or 0, 8)
    infer_shapes(graph)
    fold_constants(graph)
    widen(graph)
    infer_shapes(graph)
    for _ in range(3):
        rewrites = fold_constants(graph).rewrites + drop_noops(graph).rewrites
        infer_shapes(graph)
        if not rewrites:
            break
    _fold_into_weights(graph)
    remove_unused(graph)
    _name(graph)
    return graph


def _refuse_quantized(graph: onnx_ir.Model) -> None:
    for node in graph.graph:
        if is_op(node, "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger"):
            raise ModelError(
                f"the model is quantized already: `{node.name or node.outputs[0].name}` is a {node.op_type}",
                "give the float model it was made of",
            )


def raised(graph: onnx_ir.Model, least: int, to: int) -> onnx_ir.Model:
    """A copy of the graph; if its opset is below `least`, in opset `to`. Raises ModelError if that fails."""
    import onnx
    import onnx_ir

    version = graph.opset_imports.get("", to)
    if version >= least:
        return graph.clone()
    try:
        proto = onnx.version_converter.convert_version(onnx_ir.to_proto(graph), to)
        return onnx_ir.from_proto(proto)
    except Exception as error:  # the converter raises what its C++ parts throw
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the model has opset {version}, and cannot be raised to {to}: {text}", f"export it again with opset {to}"
        ) from error


def _fold_into_weights(graph: onnx_ir.Model) -> None:
    """Batch norms, scales, shifts and pads go into the weights beside them.

    The passes want static shapes, to know which axis the channels are on; what they do holds for any size. So open
    dimensions are given a size for as long as they run.
    """
    import onnx_ir

    from nncc.passes.fold_affine import expand_batch_norm, fold_affine_after, fold_affine_before
    from nncc.passes.fold_pads import fold_pads
    from nncc.passes.infer_shapes import infer_shapes

    main = graph.graph
    declared = [(value, value.shape) for value in (*main.inputs, *main.outputs)]
    for value in main.inputs:
        if value.shape is not None:
            value.shape = onnx_ir.Shape(_pretended(value.shape))
    _forget_shapes(graph)
    with quiet():
        infer_shapes(graph)
    for pass_ in (fold_pads, fold_affine_after, fold_affine_before, expand_batch_norm):
        pass_(graph)
    for value, shape in declared:
        value.shape = shape
    _forget_shapes(graph)
    with quiet():
        infer_shapes(graph)
    for value, shape in declared:
        value.shape = shape


def _pretended(shape: onnx_ir.Shape) -> Sequence[int]:
    return [size if isinstance(size, int) else (2 if at == 0 else _PRETENDED) for at, size in enumerate(shape)]


def _forget_shapes(graph: onnx_ir.Model) -> None:
    for node in graph.graph:
        for value in node.outputs:
            value.shape = None


def _name(graph: onnx_ir.Model) -> None:
    """Every node gets a name, and none the name of another; a name that is taken gets a number."""
    taken: set[str] = set()
    for node in graph.graph:
        name = wanted = node.name or str(node.outputs[0].name)
        number = 1
        while name in taken:
            name = f"{wanted}_{number}"
            number += 1
        taken.add(name)
        node.name = name
