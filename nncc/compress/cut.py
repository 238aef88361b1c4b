"""Channels removed from a graph: weights, attributes and shapes without them, the opset as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nncc.compress.adjust import ADJUST, Cutting
from nncc.compress.linear import set_constant
from nncc.passes.rewriting import constant, is_op, quiet

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

    from nncc.compress.groups import Dependencies, Group

__all__ = ["chosen", "cut", "kept_counts", "ranked"]


def cut(graph: onnx_ir.Model, found: Dependencies, keep: np.ndarray) -> onnx_ir.Model:
    """A copy of `graph`, of which `found` are the dependencies, without the units that `keep` (bool) leaves out.

    Names stay. Raises InternalError if onnx's checker rejects the result.
    """
    import numpy as np

    from nncc.passes.infer_shapes import infer_shapes
    from nncc.passes.remove_unused import remove_unused
    from nncc.passes.simplify import check_graph

    result = graph.clone()
    nodes = list(result.graph)
    cutting = Cutting(result.graph, found, keep)
    for node in nodes:
        if node.op_type in ADJUST and is_op(node, node.op_type):
            ADJUST[node.op_type](cutting, node)
    axes: dict[tuple[int, int], dict[int, np.ndarray]] = {}
    for site in found.sites:
        mask = keep[site.units]
        if not mask.all():
            axes.setdefault((site.node, site.operand), {})[site.axis] = mask
    for (at, operand), masks in axes.items():
        array = constant(nodes[at].inputs[operand])
        assert array is not None
        for axis, mask in masks.items():
            array = np.compress(mask, array, axis)
        set_constant(nodes[at], operand, np.ascontiguousarray(array))
    for node in nodes:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    remove_unused(result)
    with quiet():
        infer_shapes(result)
    check_graph(result, "prune")
    return result


def kept_counts(group: Group, multiple: int, least: int = 1) -> list[int]:
    """How many units may be left of a group, from most to fewest: all, then multiples of its step and of `multiple`
    channels, down to `least` channels."""
    from math import gcd

    step = group.step * max(1, multiple // gcd(multiple, group.width * group.step))
    whole = len(group.units)
    fewest = max(1, -(-least // group.width))
    return [whole, *range((whole - 1) // step * step, fewest - 1, -step)]


def ranked(group: Group, importance: np.ndarray) -> tuple[np.ndarray, int]:
    """The units of a group in the order in which they stay, and how many of them, the first ones, do in any case: the
    most important unit of every axis. Of equals, the first ones stay."""
    import numpy as np

    order = group.units[np.argsort(-importance[group.units], kind="stable")]
    first = dict.fromkeys(int(span[np.argmax(importance[span])]) for span in group.spans)
    return np.array([*first, *(unit for unit in order.tolist() if unit not in first)]), len(first)


def chosen(groups: tuple[Group, ...], counts: Mapping[str, int], importance: np.ndarray, total: int) -> np.ndarray:
    """Which of `total` units stay (bool): of each group named in `counts` so many, the first ones of `ranked`."""
    import numpy as np

    keep = np.ones(total, bool)
    for group in groups:
        count = counts.get(group.name, len(group.units))
        if count >= len(group.units):
            continue
        order, least = ranked(group, importance)
        keep[group.units] = False
        keep[order[: max(count, least)]] = True
    return keep
