"""x / 2^k = x * 2^-k and x - c = x + (-c): one spelling for arithmetic with a float constant, where exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, add_constant, constant, insert_before, is_op, substitute

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["canonical_arithmetic"]


def _reciprocal(array: np.ndarray) -> np.ndarray | None:
    """1 / array where every element is a power of two whose reciprocal is a normal number; else None."""
    import numpy as np

    wide = array.astype(np.float64)
    if not np.isfinite(wide).all() or not wide.all() or not (np.abs(np.frexp(wide)[0]) == 0.5).all():
        return None
    with np.errstate(over="ignore", under="ignore"):
        inverse = (1.0 / wide).astype(array.dtype)
    smallest = np.finfo(array.dtype).smallest_normal
    return inverse if np.isfinite(inverse).all() and (np.abs(inverse) >= smallest).all() else None


def canonical_arithmetic(graph: onnx_ir.Model) -> Report:
    """Rewrite in place; the constant operand is the second of Sub and Div."""
    report = Report()
    for node in tuple(graph.graph):
        if not is_op(node, "Sub", "Div"):
            continue
        array = constant(node.inputs[1])
        if array is None or array.dtype.name not in ("float16", "float32", "float64"):
            continue
        op, other = ("Add", -array) if is_op(node, "Sub") else ("Mul", _reciprocal(array))
        if other is None:
            report.skip(node, "its divisor is not a power of two: a product would round differently")
            continue
        out = node.outputs[0]
        value = add_constant(graph.graph, other, f"{out.name}/constant")
        substitute(out, insert_before(node, op, [node.inputs[0], value], name=node.name or str(out.name), like=out))
        report.rewrites += 1
    return report
