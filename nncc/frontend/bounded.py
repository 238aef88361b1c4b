"""Operators whose output's shape depends on the data: the largest shapes of their outputs, and which axis is open."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

from nncc.errors import ModelError
from nncc.ir import Extent, Model, Quotient
from nncc.passes.rewriting import static_shape

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["SELECTING", "bound_outputs", "refuse_used"]

SELECTING = ("Compress", "NonMaxSuppression", "NonZero", "Unique")


def bound_outputs(graph: onnx_ir.Model) -> Mapping[str, tuple[Extent, ...]]:
    """Give the outputs of these operators their largest shapes, in place; by output, its sizes, of which one is open.

    Its open dimension has the name of the operator's first output. Operators whose outputs others use are left alone.
    Raises ModelError where inputs do not go together.
    """
    import onnx_ir

    found: dict[str, tuple[Extent, ...]] = {}
    for node in graph.graph:
        if node.op_type not in SELECTING or node.domain not in ("", "ai.onnx"):
            continue
        if any(value.uses() for value in node.outputs):
            continue  # of constants, as exporters make shapes; what is left of it is refused by `refuse_used`
        shapes = [static_shape(value) if value is not None else None for value in node.inputs]
        if any(shape is None for shape, value in zip(shapes, node.inputs, strict=True) if value is not None):
            continue
        open_dim = Extent(0, ((1, (Quotient(str(node.outputs[0].name)),)),))
        for value, (shape, axis) in zip(node.outputs, _largest(node, shapes), strict=False):
            if not value.name:
                continue
            value.shape = onnx_ir.Shape(shape)
            if axis is not None:
                found[value.name] = tuple(open_dim if at == axis else Extent(size) for at, size in enumerate(shape))
    return found


def refuse_used(model: Model) -> None:
    """Raise ModelError where an operator uses what another has selected: how much it is, is not known there."""
    known = {spec.name for spec in model.outputs if spec.extents}
    for node in model.graph.graph:
        if node.op_type not in SELECTING or node.domain not in ("", "ai.onnx"):
            continue
        used = any(value.uses() for value in node.outputs)
        if used or not any(value.name in known for value in node.outputs):
            raise ModelError(
                f"{node.op_type} `{node.name or node.outputs[0].name}` selects as many elements as the data say, "
                "which can be compiled for outputs of the model only",
                "cut the model behind it, and make what it selects an output",
            )


def _largest(node: onnx_ir.Node, shapes: list[tuple[int, ...] | None]) -> list[tuple[tuple[int, ...], int | None]]:
    """The largest shape of each output, and its open axis."""
    x = shapes[0] or ()
    given = node.attributes.get("axis")
    line = given is None
    axis = 0 if given is None else int(given.value)
    if not line and not -len(x) <= axis < len(x):
        raise ModelError(f"{node.op_type} `{node.name}`: its axis is {axis}, and its input has {len(x)} axes")
    axis = axis % len(x) if not line else 0
    if node.op_type == "NonZero":
        return [((len(x), prod(x)), 1)]
    if node.op_type == "NonMaxSuppression":
        scores = shapes[1] or ()
        if len(x) != 3 or len(scores) != 3 or x[2] != 4 or x[0] != scores[0] or x[1] != scores[2]:
            raise ModelError(f"NonMaxSuppression `{node.name}`: boxes of {x} do not go with scores of {scores}")
        return [((prod(scores), 3), 0)]
    n = prod(x) if line else x[axis]
    if node.op_type == "Compress":
        condition = shapes[1] or ()
        if len(condition) != 1:
            raise ModelError(f"Compress `{node.name}`: its condition has {len(condition)} axes, not one")
        n = min(n, condition[0])
    whole = ((n,) if line else (*x[:axis], n, *x[axis + 1 :]), axis)
    return [whole] if node.op_type == "Compress" else [whole, ((n,), 0), ((n,), None), ((n,), 0)]
