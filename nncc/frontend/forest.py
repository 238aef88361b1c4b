"""Decision trees as tables, one row a node, from the attributes of ai.onnx.ml's operators, which are checked here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["Forest", "forest_of_leaves", "forest_of_nodes"]

MOST_DEPTH = 128
"""Levels: each becomes some operators."""
MOST_VOTES = 2**24
"""Numbers in the table of what leaves say, nodes times targets."""

_KINDS = ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ", "MEMBER")


@dataclass(frozen=True)
class Forest:
    """Trees that share tables of N nodes. A leaf goes to itself whatever it is asked."""

    feature: np.ndarray
    """int64[N]: which column of the data a node looks at."""
    kind: np.ndarray
    """str[N]: LEQ, LT, GTE, GT, EQ, NEQ: how it compares."""
    split: np.ndarray
    """float64[N]: with what."""
    yes: np.ndarray
    """int64[N]: the node that follows where the comparison holds."""
    no: np.ndarray
    tracks: np.ndarray
    """bool[N]: whether NaN counts as if it held."""
    weights: np.ndarray
    """float64[N, targets]: what leaves add; zeros elsewhere."""
    roots: np.ndarray
    """int64[trees]"""
    depth: int
    """Of the deepest tree, in steps from its root to a leaf."""


def _list(node: onnx_ir.Node, name: str, count: int | None = None, default: Any = None) -> list[Any]:
    """An attribute that is a list, or a tensor, of `count` elements."""
    value = attribute(node, name)
    if value is None and (tensor := attribute(node, f"{name}_as_tensor")) is not None:
        value = tensor
    if value is not None and hasattr(value, "numpy"):
        value = value.numpy().reshape(-1).tolist()
    if not value and default is not None and count is not None:
        return [default] * count
    if not isinstance(value, list) or not value or (count is not None and len(value) != count):
        raise ModelError(f"{node_text(node)} has trees whose `{name}` is missing, or has not one element for each node")
    return value


def forest_of_nodes(node: onnx_ir.Node, what: str, columns: int, targets: int) -> Forest:
    """The trees of TreeEnsembleRegressor (`what` is "target") and TreeEnsembleClassifier ("class")."""
    import numpy as np

    trees = _list(node, "nodes_treeids")
    count = len(trees)
    numbers = _list(node, "nodes_nodeids", count)
    places = {pair: at for at, pair in enumerate(zip(trees, numbers, strict=True))}
    modes = [str(mode).removeprefix("BRANCH_") for mode in _list(node, "nodes_modes", count)]
    leaves = [mode == "LEAF" for mode in modes]

    def follow(name: str) -> list[int]:
        following = _list(node, name, count)
        return [
            at if leaf else places.get((tree, to), -1)
            for at, (leaf, tree, to) in enumerate(zip(leaves, trees, following, strict=True))
        ]

    if not 0 < targets <= MOST_VOTES // count:
        raise ModelError(f"{node_text(node)} has {targets} results for {count} nodes, which cannot be compiled")
    weights = np.zeros((count, targets))
    voters = _list(node, f"{what}_nodeids")
    voting = [_list(node, f"{what}_{name}", len(voters)) for name in ("treeids", "ids", "weights")]
    for tree, number, target, weight in zip(voting[0], voters, *voting[1:], strict=True):
        at = places.get((tree, number), -1)
        if at < 0 or not 0 <= target < targets:
            raise ModelError(f"{node_text(node)} has a vote of node {number} of tree {tree}, which does not exist")
        weights[at, target] += weight
    first: dict[int, int] = {}
    for at, tree in enumerate(trees):
        first.setdefault(tree, at)
    tracks = _list(node, "nodes_missing_value_tracks_true", count, 0)
    features, splits = _list(node, "nodes_featureids", count), _list(node, "nodes_values", count)
    yes, no = follow("nodes_truenodeids"), follow("nodes_falsenodeids")
    rows = [list(row) for row in zip(features, modes, splits, yes, no, tracks, strict=True)]
    for row, leaf in zip(rows, leaves, strict=True):
        if leaf:
            row[:2] = [0, "LEQ"]
    return _forest(node, rows, weights, list(first.values()), columns)


def forest_of_leaves(node: onnx_ir.Node, columns: int) -> Forest:
    """The trees of TreeEnsemble, whose leaves are listed apart, and whose nodes may ask for membership in a set:
    nodes that ask for one number after the other."""
    import numpy as np

    kinds = _list(node, "nodes_modes")
    count = len(kinds)
    targets = int(attribute(node, "n_targets", 1))
    names, votes = _list(node, "leaf_targetids"), _list(node, "leaf_weights")
    sets = _sets(node)
    tracks = _list(node, "nodes_missing_value_tracks_true", count, 0)
    features, splits = _list(node, "nodes_featureids", count), _list(node, "nodes_splits", count)
    ways = [
        [
            count + to if leaf else to
            for to, leaf in zip(
                _list(node, f"nodes_{w}nodeids", count), _list(node, f"nodes_{w}leafs", count), strict=True
            )
        ]
        for w in ("true", "false")
    ]
    if len(names) != len(votes) or not 0 < targets <= MOST_VOTES // (count + len(names) + sum(map(len, sets))):
        raise ModelError(f"{node_text(node)} has {len(names)} leaves, {len(votes)} weights and {targets} results")
    if any(not 0 <= target < targets for target in names) or any(not 0 <= kind < len(_KINDS) for kind in kinds):
        raise ModelError(f"{node_text(node)} has leaves or nodes of a kind that does not exist")
    rows: list[list[Any]] = [
        [features[at], _KINDS[kinds[at]], splits[at], ways[0][at], ways[1][at], tracks[at]] for at in range(count)
    ]
    rows += [[0, "LEQ", 0.0, at, at, 0] for at in range(count, count + len(names))]
    members = [at for at in range(count) if rows[at][1] == "MEMBER"]
    if len(members) != len(sets) or not all(sets):
        raise ModelError(f"{node_text(node)} has {len(members)} nodes that ask for a set, and {len(sets)} sets")
    for at, values in zip(members, sets, strict=True):
        feature, _, _, yes, no, tracked = rows[at]
        chain = [at, *range(len(rows), len(rows) + len(values) - 1)]
        rows += [[]] * (len(values) - 1)
        for place, value, following in zip(chain, values, [*chain[1:], no], strict=True):
            rows[place] = [feature, "EQ", value, yes, following, tracked]
    weights = np.zeros((len(rows), targets))
    for at, (target, vote) in enumerate(zip(names, votes, strict=True)):
        weights[count + at, target] = vote
    return _forest(node, rows, weights, _list(node, "tree_roots"), columns)


def _sets(node: onnx_ir.Node) -> list[list[float]]:
    """The sets in `membership_values`, each of which ends in a NaN."""
    import math

    found: list[list[float]] = [[]]
    tensor = attribute(node, "membership_values")
    for value in [] if tensor is None else tensor.numpy().reshape(-1).tolist():
        if math.isnan(value):
            found.append([])
        else:
            found[-1].append(value)
    return found[:-1] if not found[-1] else found


def _forest(node: onnx_ir.Node, rows: list[list[Any]], weights: np.ndarray, roots: list[int], columns: int) -> Forest:
    """Tables of rows (feature, kind, split, yes, no, tracks) whose places and columns all exist."""
    import numpy as np

    feature, kind, split, yes, no, tracks = zip(*rows, strict=True)
    unknown = sorted(set(kind) - set(_KINDS[:-1]))
    if unknown:
        raise ModelError(f"{node_text(node)} has nodes of the mode `{unknown[0]}`, which does not exist")
    if any(not 0 <= at < len(rows) for at in (*yes, *no, *roots)):
        raise ModelError(f"{node_text(node)} has a tree in which a node follows that does not exist")
    if any(not 0 <= column < columns for column in feature):
        raise ModelError(f"{node_text(node)} has a tree that asks for a column that its {columns} columns do not have")
    return Forest(
        np.array(feature, np.int64),
        np.array(kind),
        np.array(split, np.float64),
        np.array(yes, np.int64),
        np.array(no, np.int64),
        np.array(tracks, bool),
        weights,
        np.array(roots, np.int64),
        _depth(node, np.array(yes), np.array(no), np.array(roots)),
    )


def _depth(node: onnx_ir.Node, yes: np.ndarray, no: np.ndarray, roots: np.ndarray) -> int:
    """How many steps it takes until all are at leaves. Raises ModelError where some never are, or not soon."""
    import numpy as np

    inner = (yes != np.arange(len(yes))) | (no != np.arange(len(no)))
    level = np.unique(roots)
    for depth in range(MOST_DEPTH + 1):
        level = level[inner[level]]
        if not level.size:
            return depth
        level = np.unique(np.concatenate([yes[level], no[level]]))
    raise ModelError(f"{node_text(node)} has a tree with a way of over {MOST_DEPTH} nodes, or one without end")
