"""Dependency groups: which channels of an ONNX graph stand and fall together, and where each of them is stored.

Every axis of a tensor that carries channels has an array of units, one for each position along it. A unit is what can
be removed: all positions with its number, in all tensors and initializers, go at once. A convolution makes new units;
an addition of two tensors unites theirs; a concatenation puts two arrays behind each other, a Flatten repeats each unit
for every pixel. What a rule does not understand fixes the units that it meets, with a reason. DepGraph (Fang et al.
2023, arXiv:2301.12900) does this by layers; here it is done by single channels, which needs no offsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

from nncc.passes.rewriting import is_op

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Dependencies", "Flow", "Group", "Site", "dependencies"]

Kind = Literal["makes", "reads", "along"]


@dataclass(frozen=True)
class Site:
    """An axis of a constant operand that is cut with its channels."""

    node: int
    """Place of the node in the graph."""
    operand: int
    axis: int
    units: np.ndarray
    """One for each position along the axis."""
    kind: Kind
    """Weights that make the channels, weights that read them, or values that go along with them: a bias, a depthwise
    convolution's weights."""


@dataclass(frozen=True)
class Group:
    """Units of which each may be removed without the others, but which share tensors and so are ranked together."""

    name: str
    """The node that makes its channels first."""
    makers: tuple[str, ...]
    """Nodes that make its channels: all but one add to the same tensors."""
    units: np.ndarray
    width: int
    """Channels that a unit stands for, where they are made: 1; more in grouped convolutions and attention heads."""
    spans: tuple[np.ndarray, ...]
    """Sets of units that are all of some axis: each must keep one."""
    reason: str = ""
    """Why it cannot be pruned; empty where it can."""
    step: int = 1
    """By how many units it goes on at least."""


@dataclass(frozen=True)
class Dependencies:
    """All that a cut must know of a graph."""

    groups: tuple[Group, ...]
    """In the order of the graph."""
    sites: tuple[Site, ...]
    axes: Mapping[str, Mapping[int, np.ndarray]]
    """By value and axis, the units along it; an axis without is never cut."""
    count: int
    """Units are numbered below it."""
    shapes: Mapping[str, tuple[int, ...]]
    """Of values, as they are for the first sample."""

    def prunable(self) -> tuple[Group, ...]:
        """The groups without a reason against it."""
        return tuple(group for group in self.groups if not group.reason)

    def prunable_sites(self, kind: Kind) -> list[Site]:
        """The sites of this kind with a unit of a prunable group."""
        free = {unit for group in self.prunable() for unit in group.units.tolist()}
        return [site for site in self.sites if site.kind == kind and not free.isdisjoint(site.units.tolist())]


class Flow:
    """The graph while channels are followed through it; what the rules of `nncc.compress.rules` read and write."""

    def __init__(self, graph: onnx_ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.opset = graph.opset_imports.get("", 1)
        self.nodes = list(graph.graph)
        self.places = {id(node): at for at, node in enumerate(self.nodes)}
        self.axes: dict[str, dict[int, np.ndarray]] = {}
        self.sites: list[Site] = []
        self.reasons: dict[int, str] = {}
        """By unit, as it was numbered first, why it stays."""
        self._parents: list[int] = []
        self._batches: list[tuple[int, int, str]] = []
        """Numbers that were made together: first, behind the last, and by which node ("" for none)."""

    def fresh(self, size: int, maker: str) -> np.ndarray:
        """New units, made by the node of that name."""
        import numpy as np

        first = len(self._parents)
        self._parents.extend(range(first, first + size))
        self._batches.append((first, first + size, maker))
        return np.arange(first, first + size)

    def fixed(self, size: int, why: str) -> np.ndarray:
        """New units that always stay: positions of a tensor that carries no channels, beside ones that do."""
        units = self.fresh(size, "")
        self.freeze(units, why)
        return units

    def root(self, unit: int) -> int:
        """The number that stands for all that `unit` was united with."""
        while self._parents[unit] != unit:
            self._parents[unit] = self._parents[self._parents[unit]]
            unit = self._parents[unit]
        return unit

    def unite(self, left: np.ndarray, right: np.ndarray) -> None:
        """Position by position, the units are removed together from now on."""
        for a, b in zip(left.reshape(-1).tolist(), right.reshape(-1).tolist(), strict=True):
            first, second = sorted((self.root(a), self.root(b)))
            self._parents[second] = first

    def freeze(self, units: np.ndarray, why: str) -> None:
        """These units stay; the first reason is kept."""
        for unit in units.reshape(-1).tolist():
            self.reasons.setdefault(self.root(unit), why)

    def together(self, node: onnx_ir.Node, units: Sequence[np.ndarray | None]) -> np.ndarray | None:
        """Units of axes that must stay of one length: united; where one of them carries none, the others stay."""
        found = [each for each in units if each is not None]
        for each in found[1:]:
            self.unite(found[0], each)
        if found and len(found) < len(units):
            self.freeze(found[0], f"`{node.name}` combines them with values that are no channels")
        return found[0] if found else None

    def freeze_value(self, value: onnx_ir.Value | None, why: str) -> None:
        """All channels of a tensor stay."""
        for units in self.of(value).values():
            self.freeze(units, why)

    def of(self, value: onnx_ir.Value | None) -> dict[int, np.ndarray]:
        """The axes of a tensor that carry channels."""
        return {} if value is None else self.axes.get(str(value.name), {})

    def stay(self, node: onnx_ir.Node, why: str) -> None:
        """All channels that the node reads stay."""
        for value in node.inputs:
            self.freeze_value(value, why)

    def put(self, value: onnx_ir.Value, axis: int, units: np.ndarray) -> None:
        """The axis carries these units. One position alone is no channel that could be removed."""
        if len(units) > 1:
            self.axes.setdefault(str(value.name), {})[axis] = units
        else:
            self.freeze(units, "it is a single channel")

    def shape(self, value: onnx_ir.Value | None) -> tuple[int, ...] | None:
        """Of a tensor or constant, for the first sample; None where it is not known."""
        return None if value is None else self.shapes.get(str(value.name))

    def site(self, node: onnx_ir.Node, operand: int, axis: int, units: np.ndarray, kind: Kind = "along") -> None:
        """A constant operand is cut along `axis` with these units; large ones that others use too stay as they are."""
        value = node.inputs[operand]
        assert value is not None
        shape = self.shape(value)
        if kind != "along" or (shape is not None and len(shape) > 1 and max(shape) != prod(shape)):
            others = {str(user.name) for user, _ in value.uses() if user is not node}
            if others:
                self.freeze(units, f"weights `{value.name}` are shared with `{min(others)}`")
        self.sites.append(Site(self.places[id(node)], operand, axis, units, kind))

    def finish(self) -> Dependencies:
        """Units numbered anew, without gaps, and grouped."""
        import numpy as np

        roots = np.array([self.root(unit) for unit in range(len(self._parents))], np.int64)
        _, numbers = np.unique(roots, return_inverse=True)
        count = int(numbers.max()) + 1 if numbers.size else 0
        reasons: dict[int, str] = {}
        for unit in sorted(self.reasons):
            reasons.setdefault(int(numbers[unit]), self.reasons[unit])
        axes = {name: {at: numbers[units] for at, units in each.items()} for name, each in self.axes.items()}
        sites = tuple(Site(s.node, s.operand, s.axis, numbers[s.units], s.kind) for s in self.sites)
        groups = _groups([(numbers[a:b], maker) for a, b, maker in self._batches], axes, reasons)
        return Dependencies(groups, sites, axes, count, self.shapes)


def _groups(
    batches: list[tuple[np.ndarray, str]],
    axes: Mapping[str, Mapping[int, np.ndarray]],
    reasons: Mapping[int, str],
) -> tuple[Group, ...]:
    """Batches that share units are one group; a group of which one unit must stay does not change at all."""
    import numpy as np

    group_of: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    for at, (units, _) in enumerate(batches):
        met = sorted({group_of[unit] for unit in units.tolist() if unit in group_of})
        home = met[0] if met else at
        members.setdefault(home, []).append(at)
        for other in met[1:]:
            members[home] += members.pop(other)
        for each in members[home]:
            group_of.update(dict.fromkeys(batches[each][0].tolist(), home))
    spans: dict[int, dict[bytes, np.ndarray]] = {home: {} for home in members}
    for along in axes.values():
        for units in along.values():
            homes: dict[int, list[int]] = {}
            for unit in np.unique(units).tolist():
                homes.setdefault(group_of[unit], []).append(unit)
            for home, inside in homes.items():
                array = np.array(inside)
                spans[home][array.tobytes()] = array
    found = []
    for home in sorted(members, key=lambda home: min(members[home])):
        made = [batches[at] for at in sorted(members[home])]
        makers = tuple(maker for _, maker in made if maker)
        if not makers:
            continue
        own = np.unique(np.concatenate([units for units, _ in made]))
        width = max(len(units) // len(np.unique(units)) for units, maker in made if maker)
        why = next((reasons[unit] for unit in own.tolist() if unit in reasons), "")
        if not why and len(own) < 2:
            why = "it is a single unit"
        found.append(Group(makers[0], makers, own, width, tuple(spans[home].values()), why))
    return tuple(found)


def dependencies(graph: onnx_ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> Dependencies:
    """The channels of a prepared graph, in which nodes have names of their own.

    `shapes` are those of its values and constants for some input. Sizes of batch and images may differ in other
    inputs, those of channels may not.
    """
    from nncc.compress.rules import RULES, unknown

    flow = Flow(graph, shapes)
    for node in flow.nodes:
        rule = RULES.get(node.op_type, unknown) if is_op(node, node.op_type) else unknown
        rule(flow, node)
    for value in graph.graph.outputs:
        flow.freeze_value(value, f"`{value.name}` is an output of the model")
    own = set(flow.places)
    for value in [out for node in flow.nodes for out in node.outputs]:
        if any(id(user) not in own for user, _ in value.uses()):
            flow.freeze_value(value, f"`{value.name}` is read inside of control flow")
    return flow.finish()
