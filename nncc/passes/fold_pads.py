"""conv(pad(x, p), pads=q) = conv(x, pads=p+q) for zeros around the spatial axes; so for an average that counts them.

Before that, ``auto_pad`` is spelled out as pads: SAME adds max((ceil(n/s)-1)*s + k - n, 0) along an axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.rewriting import Report, attribute, constant, is_op, operand, scalar, static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["explicit_pads", "fold_pads"]


def _set(node: onnx_ir.Node, **attributes) -> None:
    import onnx_ir

    for name, value in attributes.items():
        node.attributes[name] = (
            onnx_ir.AttrInt64s(name, value) if isinstance(value, list) else onnx_ir.AttrInt64(name, value)
        )


def explicit_pads(graph: onnx_ir.Model) -> Report:
    """Replace ``auto_pad`` of Conv, ConvInteger, MaxPool and AveragePool by pads, in place."""
    report = Report()
    for node in graph.graph:
        if not is_op(node, "Conv", "ConvInteger", "MaxPool", "AveragePool") or "auto_pad" not in node.attributes:
            continue
        mode, shape = attribute(node, "auto_pad"), static_shape(node.inputs[0])
        if mode not in ("NOTSET", "VALID"):
            if shape is None:
                report.skip(node, "its padding depends on a shape that is not static")
                continue
            weight = static_shape(node.inputs[1]) if is_op(node, "Conv", "ConvInteger") else None
            kernel = attribute(node, "kernel_shape") or (list(weight[2:]) if weight else None)
            if kernel is None:
                report.skip(node, "its kernel's size is not known")
                continue
            ones = [1] * len(kernel)
            strides, dilations = attribute(node, "strides", ones), attribute(node, "dilations", ones)
            if any(d != 1 for d in dilations):
                report.skip(node, "it is dilated, where implementations of automatic padding disagree")
                continue
            totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(shape[2:], kernel, strides, strict=True)]
            small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
            _set(node, pads=[*small, *large] if mode == "SAME_UPPER" else [*large, *small])
            if attribute(node, "ceil_mode", 0):
                _set(node, ceil_mode=0)
        elif mode == "VALID":
            node.attributes.pop("pads", None)
        node.attributes.pop("auto_pad")
        report.rewrites += 1
    return report


def _pads(pad: onnx_ir.Node, rank: int) -> list[int] | str:
    """The amounts of a Pad, begins then ends of all axes; or why they are no zeros around the spatial axes."""
    if attribute(pad, "mode", "constant") != "constant":
        return f"it pads by {attribute(pad, 'mode')}, not by a constant"
    amounts = attribute(pad, "pads")
    if amounts is None:
        array = constant(pad.inputs[1]) if len(pad.inputs) > 1 else None
        if array is None:
            return "its amounts are not constant"
        amounts = [int(n) for n in array]
    filler = pad.inputs[2] if len(pad.inputs) > 2 else None
    if (scalar(filler) if filler is not None else attribute(pad, "value", 0.0)) != 0:
        return "it pads with something other than zero"
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        axes = constant(pad.inputs[3])
        if axes is None:
            return "its axes are not constant"
        full = [0] * (2 * rank)
        for at, axis in enumerate(int(a) % rank for a in axes):
            full[axis], full[rank + axis] = amounts[at], amounts[len(axes) + at]
        amounts = full
    if len(amounts) != 2 * rank:
        return "its amounts do not fit its input"
    if any(n < 0 for n in amounts):
        return "it crops"
    if any(amounts[at] for at in (0, 1, rank, rank + 1)):
        return "it pads the batch or the channels"
    return amounts


def fold_pads(graph: onnx_ir.Model) -> Report:
    """Fold a Pad into the Conv or AveragePool that reads it. The Pad stays for its other readers, if any."""
    report = Report()
    for node in graph.graph:
        if not is_op(node, "Conv", "AveragePool"):
            continue
        pad = operand(node).producer()
        shape = static_shape(node.inputs[0])
        if not is_op(pad, "Pad") or pad.graph is not node.graph or shape is None:
            continue
        rank = len(shape)
        amounts = _pads(pad, rank)
        if isinstance(amounts, str):
            report.skip(pad, amounts)
            continue
        if attribute(node, "auto_pad", "NOTSET") != "NOTSET":
            report.skip(node, "its own padding is automatic")
            continue
        own = attribute(node, "pads", [0] * (2 * (rank - 2)))
        if is_op(node, "AveragePool"):
            if any(own) and not attribute(node, "count_include_pad", 0):
                report.skip(node, "it counts the zeros of the Pad, but not its own")
                continue
            if attribute(node, "ceil_mode", 0):
                report.skip(node, "it rounds its size up, past zeros that may not be counted")
                continue
            kernel = attribute(node, "kernel_shape")
            spatial = [a + b for a, b in zip(own, [*amounts[2:rank], *amounts[rank + 2 :]], strict=True)]
            if any(p >= k for p, k in zip(spatial, [*kernel, *kernel], strict=True)):
                report.skip(node, "the padding is as large as its window")
                continue
            _set(node, count_include_pad=1)
        _set(node, pads=[a + b for a, b in zip(own, [*amounts[2:rank], *amounts[rank + 2 :]], strict=True)])
        node.replace_input_with(0, pad.inputs[0])
        report.rewrites += 1
    return report
