"""The scale and zero point of every quantized activation, from what calibration saw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from nncc.errors import InternalError
from nncc.passes.rewriting import is_op
from nncc.quant.affine import Affine, affine_of_range
from nncc.quant.observers import observed_range
from nncc.quant.operators import data_inputs
from nncc.quant.plan import Plan, source

if TYPE_CHECKING:
    from nncc.quant.calibrate import Statistics
    from nncc.quant.recipe import Recipe

__all__ = ["choose_scales"]

_SHARED = 1.25
"""How much wider than an input's own range a range that it shares with others may be: a third of a bit."""

Range = tuple[float, float]


def choose_scales(plan: Plan, statistics: Statistics, recipe: Recipe) -> dict[str, Affine]:
    """For each value of `plan`, by its name. What is moved keeps its scale; so does what is concatenated, where all
    inputs can have one scale at little cost."""
    ranges: dict[str, Range] = {}
    for value in plan.values:
        head = plan.heads[str(value.name)]
        if head == value.name:
            seen = statistics.observations.get(str(source(value).name))
            if seen is None:
                raise InternalError(f"there are no statistics of `{value.name}`", "collect them of the same graph")
            ranges[head] = observed_range(seen, recipe)
    shared = _share(plan, ranges)
    return {name: affine_of_range(*ranges[_end(shared, head)], recipe) for name, head in plan.heads.items()}


def _end(shared: Mapping[str, str], name: str) -> str:
    while shared.get(name, name) != name:
        name = shared[name]
    return name


def _share(plan: Plan, ranges: dict[str, Range]) -> dict[str, str]:
    """For each Concat whose inputs can share a range, let them, and its output; `ranges` is widened in place."""
    shared: dict[str, str] = {}
    for node in plan.nodes:
        if not is_op(node, "Concat"):
            continue
        names = [str(value.name) for value in (*data_inputs(node), node.outputs[0])]
        if not all(name in plan.heads for name in names):
            continue
        heads = list(dict.fromkeys(_end(shared, plan.heads[name]) for name in names))
        union = min(ranges[h][0] for h in heads), max(ranges[h][1] for h in heads)
        if all(union[1] - union[0] <= _SHARED * (ranges[h][1] - ranges[h][0]) for h in heads):
            shared |= dict.fromkeys(heads[1:], heads[0])
            ranges[heads[0]] = union
    return shared
