"""Per-channel scales and shifts (batch norms, Mul, Add, Sub, Div by constants) move into the weights beside them.

bn(conv(x, W) + b) = conv(x, W*s) + (b*s + t)         s = gamma/sqrt(var+eps), t = beta - mean*s
conv(x*s + t, W) + b = conv(x, W*s) + (b + sum(W*t))  only where the convolution pads nothing, or t = 0
bn(x) = x*s + t                                       what remains of a batch norm
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nncc.passes.affine import Affine, Linear, affine_of, batch_norm, linear_of
from nncc.passes.rewriting import (
    Report,
    add_constant,
    insert_before,
    is_op,
    only_use,
    operand,
    static_shape,
    substitute,
)

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["expand_batch_norm", "fold_affine_after", "fold_affine_before"]


def _rounded(graph: onnx_ir.Graph, entries, like: onnx_ir.Value, shape: tuple[int, ...], name: str) -> onnx_ir.Value:
    import numpy as np

    assert like.dtype is not None
    return add_constant(graph, np.asarray(entries).astype(like.dtype.numpy()).reshape(shape), name)


def fold_affine_after(graph: onnx_ir.Model) -> Report:
    """Fold the chain of affine maps that follows a linear operator, and only follows it, into its weights and bias.

    A MatMul has no bias: the shifts of its chain become one Add.
    """
    report = Report()
    for node in tuple(graph.graph):
        if node.graph is None or (linear := linear_of(node)) is None:
            continue
        chain: list[onnx_ir.Node] = []
        total: Affine | None = None
        value = node.outputs[0]
        while (user := only_use(value)) is not None and user.graph is node.graph:
            found = affine_of(user, value, 1 if is_op(user, "BatchNormalization") else _axis(linear))
            if found is None:
                break
            if isinstance(linear, str):
                report.skip(node, linear)
                break
            if isinstance(found, str):
                report.skip(user, found)
                break
            if is_op(user, "BatchNormalization") and linear.axis != 1:
                report.skip(user, "its channels are not the columns of the MatMul before it")
                break
            total = found if total is None else total.then(found)
            chain.append(user)
            value = user.outputs[0]
        if total is None or isinstance(linear, str):
            continue
        weight, bias = linear.after(total)
        if linear.takes_bias:
            if why := linear.store(weight, bias):
                report.skip(node, why)
                continue
            substitute(value, node.outputs[0])
        else:
            if len(chain) == 1 and is_op(chain[0], "Add", "Sub"):
                continue
            if why := linear.store(weight, None):
                report.skip(node, why)
                continue
            new, last = node.outputs[0], chain[-1]
            if bias is not None:
                shift = _rounded(graph.graph, bias, new, (-1,), f"{new.name}/bias")
                new = insert_before(last, "Add", [new, shift], name=last.name or str(value.name), like=value)
            substitute(value, new)
        _remove(chain)
        report.rewrites += len(chain)
    return report


def _axis(linear: Linear | str) -> int:
    return 1 if isinstance(linear, str) else linear.axis


def _remove(chain: list[onnx_ir.Node]) -> None:
    for node in reversed(chain):
        if node.graph is not None and not any(out.uses() or out.is_graph_output() for out in node.outputs):
            node.graph.remove(node, safe=True)


def _before(node: onnx_ir.Node) -> tuple[onnx_ir.Node, onnx_ir.Value, Affine | str] | None:
    """The operator that makes the first operand of `node`, what it reads, and the map it applies; None if no map."""
    value = operand(node)
    producer, shape = value.producer(), static_shape(value)
    if producer is None or producer.graph is not node.graph or shape is None:
        return None
    axis = len(shape) - 1 if is_op(node, "MatMul") else 1
    for source in producer.inputs:
        if source is not None and (found := affine_of(producer, source, axis)) is not None:
            return producer, source, found
    return None


def _absorb(linear: Linear | str, found: Affine | str, shared: bool) -> str | None:
    """Put the map `found` into `linear`, which reads its result; or say why not."""
    if isinstance(linear, str) or isinstance(found, str):
        return linear if isinstance(linear, str) else str(found)
    if shared:
        return "its result is read by other operators too"
    folded = linear.before(found)
    if isinstance(folded, str):
        return folded
    if folded[1] is not None and not linear.takes_bias:
        return "a MatMul has no bias for the shift before it"
    return linear.store(*folded)


def fold_affine_before(graph: onnx_ir.Model) -> Report:
    """Fold the affine maps before a linear operator into it, where that operator is their only reader."""
    report = Report()
    for node in tuple(graph.graph):
        while (linear := linear_of(node)) is not None and (before := _before(node)) is not None:
            producer, source, found = before
            if why := _absorb(linear, found, only_use(producer.outputs[0]) is not node):
                report.skip(producer, f"before `{node.name or node.outputs[0].name}`: {why}")
                break
            node.replace_input_with(0, source)
            _remove([producer])
            report.rewrites += 1
    return report


def expand_batch_norm(graph: onnx_ir.Model) -> Report:
    """Write a batch norm that stands alone as Mul and Add with constants of shape [C, 1, 1, ...]."""
    report = Report()
    for node in tuple(graph.graph):
        if not is_op(node, "BatchNormalization"):
            continue
        source, out = operand(node), node.outputs[0]
        found, shape = batch_norm(node), static_shape(source)
        if isinstance(found, str) or shape is None:
            report.skip(node, found if isinstance(found, str) else "its shape is not static")
            continue
        name = node.name or str(out.name)
        column = (-1,) + (1,) * (len(shape) - 2)
        scale = _rounded(graph.graph, found.scale, source, column, f"{name}/scale")
        scaled = insert_before(node, "Mul", [source, scale], name=f"{name}/scale", like=out)
        shift = _rounded(graph.graph, found.shift, source, column, f"{name}/shift")
        substitute(out, insert_before(node, "Add", [scaled, shift], name=name, like=out))
        report.rewrites += 1
    return report
