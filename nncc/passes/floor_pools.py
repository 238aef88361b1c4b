"""A pool that rounds up has no window that begins behind the image; written so that every tool knows.

pool(x, after=a, ceil_mode=1) = pool(x, after=a', ceil_mode=0)      where ceil((n + b + a - r) / s) s >= n + b

Before opset 22 onnx infers one window more; ONNX Runtime and torch leave it out in every opset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.bodies import subgraphs
from nncc.passes.rewriting import Report, attribute, is_op, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["floor_pools"]


def floor_pools(graph: onnx_ir.Model) -> Report:
    """Rewrite such pools in place, and forget the shapes of what is computed from them: infer again, and call again.

    Shapes have to be known; a pool behind one that was rewritten waits for the next call.
    """
    import onnx_ir

    report = Report()
    stale: set[onnx_ir.Value] = set()
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph.graph):
        if any(value in stale for value in node.inputs) or (stale and any(subgraphs(node))):
            for value in node.outputs:
                if node.domain in ("", "ai.onnx"):
                    value.shape = None
                stale.add(value)
        elif is_op(node, "MaxPool", "AveragePool", "LpPool") and attribute(node, "ceil_mode", 0):
            if (ends := _ends(node, report)) is None:
                continue
            after, sizes = ends
            before = _ints(node, "pads", [0] * 2 * len(after))[: len(after)]
            del node.attributes["ceil_mode"]
            node.attributes.pop("auto_pad", None)
            node.attributes["pads"] = onnx_ir.AttrInt64s("pads", [*before, *after])
            for value in node.outputs:
                value.shape = onnx_ir.Shape(sizes)
                stale.add(value)
            report.rewrites += 1
    return report


def _ints(node: onnx_ir.Node, name: str, default: list[int]) -> list[int]:
    return [int(number) for number in attribute(node, name, default)]


def _ends(node: onnx_ir.Node, report: Report) -> tuple[list[int], list[int]] | None:
    """The padding behind each axis with which sizes may be rounded down, and the shape of the result; None where no
    window is left out, or attributes are no pool's, which others tell."""
    shape = static_shape(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    rank = len(shape or ()) - 2
    kernel = _ints(node, "kernel_shape", [])
    strides, dilations = _ints(node, "strides", [1] * rank), _ints(node, "dilations", [1] * rank)
    pads = _ints(node, "pads", [0] * 2 * rank)
    if (
        shape is None
        or rank < 1
        or not len(kernel) == len(strides) == len(dilations) == len(pads) // 2 == rank
        or min([*kernel, *strides, *dilations]) < 1
        or attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    ):
        return None
    after, sizes, dropped, beyond = [], [], False, False
    for n, k, s, d, b, a in zip(shape[2:], kernel, strides, dilations, pads[:rank], pads[rank:], strict=True):
        reach = (k - 1) * d + 1
        around = n + b + a - reach
        if around < 0:
            return None
        last = -(-around // s)
        if last * s >= n + b:
            dropped = True
            after.append(a if around % s else a - 1)
            sizes.append(last)
        else:
            after.append(max(a, last * s + reach - n - b))
            sizes.append(last + 1)
            beyond = beyond or after[-1] > a
    if not dropped:
        return None
    if beyond and attribute(node, "count_include_pad", 0):
        report.skip(node, "its average counts the padding, but not what is beyond it")
        return None
    return after, [*shape[:2], *sizes]
