"""What a graph costs, in multiplications, bytes and predicted seconds, and how much of it units that go take along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from nncc.passes.products import product_of
from nncc.passes.rewriting import attribute, is_op

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies
    from nncc.layer_time import LayerTimes, Product

__all__ = ["Cost", "Part", "costs", "nbytes", "total"]


@dataclass(frozen=True)
class Part:
    """A number that shrinks with the channels of some axes."""

    amount: float
    factors: tuple[np.ndarray, ...] = ()
    """Units of each of the axes that it is a product of."""

    def left(self, keep: np.ndarray) -> float:
        """The number, where `keep` says which units stay."""
        return self.amount * prod(float(keep[units].mean()) for units in self.factors)


@dataclass(frozen=True)
class Cost:
    """What one layer, a product of the graph, costs."""

    name: str
    product: Product
    macs: Part
    moved: tuple[Part, ...]
    """Bytes of its weights, inputs and output, in float32."""
    batch: Part
    depth: Part
    columns: Part
    groups: Part
    """Sizes of the product, as they shrink."""

    def seconds(self, keep: np.ndarray, times: LayerTimes) -> float:
        """Predicted time on one core in float32, without the units that `keep` leaves out.

        Operators between layers are taken to be fused into them, and cost nothing.
        """
        batch, depth, columns, groups = (
            max(1, round(part.left(keep))) for part in (self.batch, self.depth, self.columns, self.groups)
        )
        left = replace(self.product, batch=batch, depth=depth, columns=columns, groups=groups)
        return times.seconds(left, sum(part.left(keep) for part in self.moved))


def costs(graph: onnx_ir.Model, found: Dependencies) -> tuple[Cost, ...]:
    """The layers of a prepared graph whose shapes are known, in its order."""
    cut = _cut_axes(found)
    return tuple(cost for at, node in enumerate(graph.graph) if (cost := _cost(node, found, cut, at)) is not None)


def nbytes(graph: onnx_ir.Model, found: Dependencies) -> tuple[Part, ...]:
    """Bytes of each initializer."""
    nodes = list(graph.graph)
    cut = {
        str(nodes[node].inputs[operand].name): axes  # type: ignore[union-attr]
        for (node, operand), axes in _cut_axes(found).items()
    }
    return tuple(
        Part(float(value.const_value.nbytes), tuple(cut.get(str(name), {}).values()))
        for name, value in graph.graph.initializers.items()
        if value.const_value is not None
    )


def total(parts: tuple[Part, ...], keep: np.ndarray) -> float:
    """The sum of what is left of them."""
    return sum(part.left(keep) for part in parts)


def _cut_axes(found: Dependencies) -> dict[tuple[int, int], dict[int, np.ndarray]]:
    """By node and operand, the axes along which a constant is cut."""
    axes: dict[tuple[int, int], dict[int, np.ndarray]] = {}
    for site in found.sites:
        axes.setdefault((site.node, site.operand), {})[site.axis] = site.units
    return axes


def _cost(
    node: onnx_ir.Node, found: Dependencies, cut: Mapping[tuple[int, int], Mapping[int, np.ndarray]], at: int
) -> Cost | None:
    if not is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return None
    shapes, axes = [], []
    for place, value in enumerate((*node.inputs, node.outputs[0])):
        shape = () if value is None else found.shapes.get(str(value.name))
        if shape is None:
            return None
        shapes.append(shape)
        of_constant = cut.get((at, place)) if place < len(node.inputs) else None
        axes.append(dict(of_constant or ({} if value is None else found.axes.get(str(value.name), {}))))
    moved = tuple(
        Part(4.0 * prod(shape), tuple(each.values())) for shape, each in zip(shapes, axes, strict=True) if shape
    )
    product = product_of(node, found.shapes)
    if product is None:
        return None
    if product.kind == "matmul":
        made = len(shapes[-1]) - 1
        read = 0 if is_op(node, "Gemm") and attribute(node, "transA", 0) else len(shapes[0]) - 1
    else:
        made = read = 1
    columns = [units for axis, units in axes[-1].items() if axis == made]
    batch = [units for axis, units in axes[-1].items() if axis != made]
    inner = [units for axis, units in axes[0].items() if axis == read]
    grouped = product.groups > 1  # by whole groups, whose size stays
    return Cost(
        str(node.name),
        product,
        Part(product.macs, (*batch, *columns, *(() if grouped else inner))),
        moved,
        batch=Part(product.batch, tuple(batch)),
        depth=Part(product.depth, () if grouped else tuple(inner)),
        columns=Part(product.columns, tuple(columns)),
        groups=Part(product.groups, tuple(columns) if grouped else ()),
    )
