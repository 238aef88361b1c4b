"""Where weights may become zero while shapes stay, as groups: a layer is one.

Its units are the blocks of one row of blocks, of which all rows keep as many, as kernels like it; or the weights of one
output, on average. What zeros save follows from how many units stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from nncc.compress.cost import Cost, Part, costs, nbytes
from nncc.compress.groups import Dependencies, Group
from nncc.compress.linear import MOST_COLUMNS, Linear, linear
from nncc.compress.parts import Analysis
from nncc.compress.surgeon import Block
from nncc.kernels.skipping import WORD, best_lists
from nncc.passes.rewriting import attribute, constant, is_op

if TYPE_CHECKING:
    import onnx_ir

    from nncc.layer_time import LayerTimes, Product
    from nncc.target import Hardware

    Shapes = Mapping[str, tuple[int, ...]]

__all__ = ["block_groups", "weight_groups", "window"]

_LEVELS = 64
"""At so many counts of units a layer may stop, at most."""
_LEAST_BLOCKS = 4
"""Blocks in one row of blocks; of fewer, there is nothing to choose from."""
_LEAST_WEIGHTS = 1024
"""Of a layer of which single weights go."""


_NOTHING = Part(0.0)


@dataclass(frozen=True)
class _Sparse(Cost):
    """A layer whose kernel skips blocks of zeros where that is predicted to be faster."""

    block: Block

    def seconds(self, keep: np.ndarray, times: LayerTimes) -> float:
        whole, hardware = np.ones(len(keep), bool), times.hardware
        dense = super().seconds(whole, times)
        (units,) = self.macs.factors
        count = int(keep[units].sum())
        relative = _skipping(self.product, self.block, count, hardware) if count < len(units) else None
        if relative is None:
            return dense
        seconds = relative * 2e-9 * self.macs.amount / (hardware.peak_gflops or 1.0)
        return min(dense, max(seconds, times.moving(sum(part.left(keep) for part in self.moved))))


@lru_cache(maxsize=4096)
def _skipping(product: Product, block: Block, count: int, hardware: Hardware) -> float | None:
    """The time of a kernel that skips zeros, as a multiple of that of a dense one at the peak, where `count` blocks of
    each row of blocks are left. None where no kernel skips them: it does a vector of outputs by four inputs."""
    lanes, places = max(4, hardware.vector_bits // 32), prod(product.window)
    matrix = product.kind == "matmul"
    if block.inputs % WORD or block.outputs % lanes or (matrix and (product.depth % WORD or product.columns % lanes)):
        return None
    row = np.arange(block.count(product.depth * places, places)) < count
    rows = [np.roll(row, number * count) for number in range(-(-product.columns // block.outputs))]
    window = product.window or (1, 1)
    blocks = np.stack(rows).reshape(len(rows), -1, *window).repeat(block.outputs, 0).repeat(block.inputs, 1)
    kernel = blocks[: product.columns, : product.depth]
    if matrix:
        steps = product.batch
    else:
        plain = places == 1 and set(product.strides) == {1}
        steps = prod(product.image) if plain else product.image[-1]
    lists = best_lists(kernel, lanes, steps, hardware)
    return None if lists is None else lists.cost


@dataclass(frozen=True)
class _Stored(Part):
    """Bytes of a constant that is stored without its zeros: of those left, and of an index that says where they are."""

    index: Part = _NOTHING

    def left(self, keep: np.ndarray) -> float:
        return min(self.amount, super().left(keep) + self.index.left(keep))


def block_groups(graph: onnx_ir.Model, shapes: Shapes, block: Block) -> Analysis:
    """Blocks of one row of blocks. Multiplications by them are skipped, and so they are what counts."""
    found = _groups(graph, shapes, lambda node, inputs, outputs: _blocks(node, inputs, outputs, block))
    units = {group.name: group.units for group in found.prunable()}
    layers = []
    for cost in costs(graph, found):
        if cost.name in units:
            first, weight, *others = cost.moved
            along = (units[cost.name],)
            moved = (first, replace(weight, factors=along), *others)
            macs = replace(cost.macs, factors=along)
            if cost.product.kind == "matmul" or len(cost.product.window) == 2:
                facts = {field.name: getattr(cost, field.name) for field in fields(cost)}
                cost = _Sparse(**facts | {"macs": macs, "moved": moved}, block=block)
            else:  # it is computed as it was
                cost = replace(cost, macs=macs)
        layers.append(cost)
    place = 4.0 / (block.outputs * block.inputs)

    def stored(size: int, along: np.ndarray) -> Part:
        return _Stored(4.0 * size, (along,), Part(place * size, (along,)))

    return Analysis(found, tuple(layers), _stored(graph, found, stored), tuple(cost.macs for cost in layers))


def weight_groups(graph: onnx_ir.Model, shapes: Shapes) -> Analysis:
    """Weights of one output, on average. They are what counts: no multiplication is skipped."""
    found = _groups(graph, shapes, _weights)
    units = {group.name: group.units for group in found.prunable()}
    counted = []
    for node in graph.graph:
        weight = constant(node.inputs[1]) if _is_layer(node) else None
        if weight is not None:
            along = units.get(str(node.name))
            counted.append(Part(float(weight.size), () if along is None else (along,)))

    def stored(size: int, along: np.ndarray) -> Part:
        return _Stored(4.0 * size, (along,), Part(size / 8))

    return Analysis(found, costs(graph, found), _stored(graph, found, stored), tuple(counted))


def window(node: onnx_ir.Node) -> int:
    """Places of a layer's window."""
    weight = constant(node.inputs[1])
    return prod(weight.shape[2:]) if is_op(node, "Conv") and weight is not None else 1


def _is_layer(node: onnx_ir.Node) -> bool:
    return is_op(node, "Conv", "ConvTranspose", "Gemm", "MatMul") and constant(node.inputs[1]) is not None


def _groups(
    graph: onnx_ir.Model, shapes: Shapes, judged: Callable[[onnx_ir.Node, int, int], tuple[int, str]]
) -> Dependencies:
    """Each product with constant weights as a group of as many units as `judged` says, or with a reason."""
    groups: list[Group] = []
    count = 0
    for node in graph.graph:
        if not _is_layer(node):
            continue
        layer = linear(node)
        size, why = 1, _unfit(node, layer)
        if layer is not None and not why:
            size, why = judged(node, *layer.matrix.shape)
        units = np.arange(count, count + size)
        count += size
        groups.append(Group(str(node.name), (str(node.name),), units, 1, (units,), why, _step(size)))
    return Dependencies(tuple(groups), (), {}, count, shapes)


def _unfit(node: onnx_ir.Node, layer: Linear | None) -> str:
    """Why nothing can be said of what a layer's weights do; empty where it can."""
    weight, value = constant(node.inputs[1]), node.inputs[1]
    assert weight is not None and value is not None
    if is_op(node, "Conv") and int(attribute(node, "group", 1)) > 1:
        return "it is a depthwise convolution" if weight.shape[1] == 1 else "it is a grouped convolution"
    others = sorted(str(user.name) for user, _ in value.uses() if user is not node)
    if others:
        return f"weights `{value.name}` are shared with `{others[0]}`"
    if layer is not None:
        return ""
    columns = prod(weight.shape[1:]) if is_op(node, "Conv") else max(weight.shape, default=0)
    if columns > MOST_COLUMNS:
        return f"its outputs sum {columns} products; statistics of more than {MOST_COLUMNS} take too much memory"
    return f"a {node.op_type} of this form is not understood"


def _blocks(node: onnx_ir.Node, inputs: int, outputs: int, block: Block) -> tuple[int, str]:
    places = window(node)
    channels, count = inputs // places, block.count(inputs, places)
    if channels < 2 * block.inputs or count < _LEAST_BLOCKS:
        return count, f"it reads {channels} channel{'' if channels == 1 else 's'} only"
    return count, f"it has {outputs} outputs only" if outputs < block.outputs else ""


def _weights(node: onnx_ir.Node, inputs: int, outputs: int) -> tuple[int, str]:
    return inputs, f"it has {inputs * outputs} weights only" if inputs * outputs < _LEAST_WEIGHTS else ""


def _step(count: int) -> int:
    """By how many units a layer goes on: an even number, since kernels unroll two blocks, where there are enough."""
    return 1 if count < 16 else 2 * -(-count // (2 * _LEVELS))


def _stored(graph: onnx_ir.Model, found: Dependencies, stored: Callable[[int, np.ndarray], Part]) -> tuple[Part, ...]:
    """Bytes of each initializer, those of the weights of groups as `stored` says."""
    nodes = {str(node.name): node for node in graph.graph}
    units = {nodes[group.name].inputs[1]: group.units for group in found.prunable()}
    values = [value for value in graph.graph.initializers.values() if value.const_value is not None]
    return tuple(
        stored(value.const_value.size, units[value]) if value in units and value.const_value is not None else part
        for value, part in zip(values, nbytes(graph, found), strict=True)
    )
