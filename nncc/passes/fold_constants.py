"""op(c1, c2, ...) = c: an operator of constants is computed once, here. shape(x) of a static x is a constant."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.passes.explicit_defaults import RANDOM
from nncc.passes.rewriting import (
    Report,
    add_constant,
    attribute,
    constant,
    is_op,
    quiet,
    scalar,
    static_shape,
    substitute,
)

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["LARGEST_FOLD", "fold_constants"]

LARGEST_FOLD = 2**30
"""Bytes: a larger result stays an operator, so that a small file cannot ask for all memory."""

_GROWING = (
    "ConstantOfShape",
    "Expand",
    "Tile",
    "Range",
    "Pad",
    "Resize",
    "Upsample",
    "Gather",
    "OneHot",
    "EyeLike",
    "Concat",
)
_HINT = "an operator of constants is not valid: export the model again, or ask its author"
_KEPT = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Constant", *RANDOM)


def fold_constants(graph: onnx_ir.Model) -> Report:
    """Fold in place. Quantize and dequantize of constants stay: they carry the model's integer weights."""
    from onnx_ir.passes.common import LiftConstantsToInitializersPass
    from onnxscript.optimizer._constant_folding import FoldConstantsPass

    report = Report()
    spent = 0
    failed: set[onnx_ir.Node] = set()
    last: onnx_ir.Node | None = None

    def wanted(node: onnx_ir.Node) -> bool:
        nonlocal last
        last = node
        return node not in failed and affordable(node)

    def affordable(node: onnx_ir.Node) -> bool:
        nonlocal spent
        if is_op(node, *_KEPT) or node.domain not in ("", "ai.onnx"):
            return False
        stored = sum(v.const_value.nbytes for v in node.inputs if v is not None and v.const_value is not None)
        size = 0
        for out in node.outputs:
            shape = static_shape(out)
            if shape is None:
                if is_op(node, *_GROWING) and not is_op(node, "Concat", "Gather", "Range"):
                    report.skip(node, "the size of its result is not known before it is computed")
                    return False
                if is_op(node, "Range"):
                    size += _range_bytes(node)
                else:
                    size += 16 * stored
            else:
                size += prod(shape) * (out.dtype.bitwidth if out.dtype else 64) // 8
        if size > max(LARGEST_FOLD, stored) or spent + size > 4 * LARGEST_FOLD:
            report.skip(node, f"its result has {size:,} bytes, too many to compute before run time")
            return False
        spent += size
        return True

    nodes = sum(1 for _ in graph.graph)
    known = [(out, out.type, out.shape) for node in graph.graph for out in node.outputs]
    with quiet():
        lifted = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph).modified
        fold = FoldConstantsPass(
            shape_inference=True, input_size_limit=LARGEST_FOLD, output_size_limit=LARGEST_FOLD, should_fold=wanted
        )
        folded = False
        while True:
            try:
                folded |= fold(graph).modified
                break
            except Exception as error:  # whatever the evaluation of a node raises
                reason = " ".join(str(error.__cause__ or error).split())[:300]
                if last is None or last in failed:
                    raise ModelError(f"the model cannot be simplified: {error}: {reason}", _HINT) from error
                failed.add(last)
                report.skip(last, f"it cannot be computed: {reason}")
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    for out, type_, shape in known:  # its inference forgets the types of operators that it cannot infer
        if out.dtype is None or not out.dtype:
            out.type, out.shape = type_, out.shape or shape
    split = sum(_fold_split(graph, node) for node in tuple(graph.graph) if is_op(node, "Split"))
    if lifted or folded or split:
        report.rewrites = max(nodes - sum(1 for _ in graph.graph), int(folded), split)
    return report


def _range_bytes(node: onnx_ir.Node) -> int:
    start, limit, step = (scalar(value) for value in node.inputs[:3])
    if start is None or limit is None or not step:
        return 2**62
    return max(int((limit - start) / step) + 1, 0) * 8


def _fold_split(graph: onnx_ir.Model, node: onnx_ir.Node) -> int:
    """Parts of a constant are constants, which onnxscript does not do for several outputs; how many were made."""
    import numpy as np

    array = constant(node.inputs[0])
    if array is None or array.ndim == 0:
        return 0
    axis, count = int(attribute(node, "axis", 0)), len(node.outputs)
    if not -array.ndim <= axis < array.ndim:
        return 0
    given = constant(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] is not None else None
    if given is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        return 0
    sizes = attribute(node, "split") if given is None else given.reshape(-1).tolist()
    if sizes is None:
        part = -(-array.shape[axis] // count)
        sizes = [min(part, max(0, array.shape[axis] - part * n)) for n in range(count)]
    if len(sizes) != count or sum(sizes) != array.shape[axis] or min(sizes) < 0:
        return 0
    parts = np.split(array, np.cumsum(sizes)[:-1], axis)
    for out, part in zip(node.outputs, parts, strict=True):
        if not out.uses() and not out.is_graph_output():
            continue
        substitute(out, add_constant(graph.graph, part, str(out.name)))
    return count
