"""Ensembles of decision trees as gathers: all trees of all rows go down one level at a time.

    go = X[row, feature[at]] <= split[at];   at = yes[at] where go, else no[at];   Y = sum over trees of weights[at]

`at` is [rows, trees]; a leaf goes to itself, so that trees of any depth end together. Sources: ONNX's
docs/Operators-ml.md and, for classifiers of two classes, ONNX Runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, number, sizes
from nncc.frontend.forest import Forest, forest_of_leaves, forest_of_nodes
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["tree_ensemble", "tree_ensemble_classifier", "tree_ensemble_regressor"]

_OPERATORS = {"LEQ": "LessOrEqual", "LT": "Less", "GTE": "GreaterOrEqual", "GT": "Greater", "EQ": "Equal"}
"""By kind of node; NEQ is the opposite of the last."""
_AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
_TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC")


def tree_ensemble(node: onnx_ir.Node, opset: int) -> Definition:
    """Of opset 5: regression, in the type of X."""
    text = Text(opset)
    forest = forest_of_leaves(node, _columns(node))
    scores = _scores(text, node, forest, _AGGREGATES[_choice(node, "aggregate_function", 1, len(_AGGREGATES))])
    text.let("Y", _transformed(node, scores, _TRANSFORMS[_choice(node, "post_transform", 0, len(_TRANSFORMS))]))
    return text.definition("X", "Y")


def tree_ensemble_regressor(node: onnx_ir.Node, opset: int) -> Definition:
    """Up to opset 3: regression, of float32"""
    text = Text(opset)
    forest = forest_of_nodes(node, "target", _columns(node), int(number(node, "n_targets", 1)))
    scores = _scores(text, node, forest, str(attribute(node, "aggregate_function", "SUM")))
    transformed = _transformed(node, scores, str(attribute(node, "post_transform", "NONE")))
    text.let("Y", f"Cast <to = 1> ({text.new(transformed)})")
    return text.definition("X", "Y")


def tree_ensemble_classifier(node: onnx_ir.Node, opset: int) -> Definition:
    """Up to opset 3: the label of the highest score, and all scores, of float32.

    Where leaves of two classes vote for one alone, its score s becomes 1 - s and s, or -s and s where votes may be
    negative, or of the logistic function.
    """
    import numpy as np

    labels = attribute(node, "classlabels_int64s")
    if not isinstance(labels, list) or len(labels) < 2:
        raise ModelError(f"{node_text(node)} has labels that are no integers, or one alone, which cannot be compiled")
    text = Text(opset)
    transform = str(attribute(node, "post_transform", "NONE"))
    forest = forest_of_nodes(node, "class", _columns(node), len(labels))
    voted = sorted({int(each) for each in attribute(node, "class_ids", [])})
    scores = text.new(f"Cast <to = 1> ({_scores(text, node, forest, 'SUM')})")
    names = text.tensor(np.array(labels, np.int64))
    if len(labels) > 2 or len(voted) > 1:
        text.let("Y", f"Gather ({names}, {text.new(f'ArgMax <axis = 1, keepdims = 0> ({scores})')})")
        text.let("Z", _transformed(node, scores, transform))
        return text.definition("X", "Y, Z")
    score = text.slice(scores, 1, voted[0], voted[0] + 1)
    shares = transform == "NONE" and forest.weights.min() >= 0
    border = text.number(0.5 if shares else 0.0)
    second = text.new(f"Cast <to = 7> ({text.new(f'Greater ({score}, {border})')})")
    text.let("Y", f"Gather ({names}, {text.new(f'Reshape ({second}, {text.integers([-1])})')})")
    if transform == "NONE":
        other = text.new(f"Sub ({text.number(1.0)}, {score})" if shares else f"Neg ({score})")
    elif transform == "LOGISTIC":
        other = text.new(f"Sigmoid ({text.new(f'Neg ({score})')})")
        score = text.new(f"Sigmoid ({score})")
    else:
        raise ModelError(
            f"{node_text(node)} transforms the score of one class by `{transform}`, which cannot be compiled"
        )
    text.let("Z", f"Concat <axis = 1> ({other}, {score})")
    return text.definition("X", "Y, Z")


def _columns(node: onnx_ir.Node) -> int:
    shape = sizes(node, 0)
    if len(shape) != 2:
        raise ModelError(f"{node_text(node)} has an input of shape {list(shape)}, where a matrix is meant")
    return shape[1]


def _choice(node: onnx_ir.Node, name: str, default: int, count: int) -> int:
    value = int(number(node, name, default))
    if not 0 <= value < count:
        raise ModelError(f"{node_text(node)} has the attribute `{name}` = {value}, which cannot be compiled")
    return value


def _scores(text: Text, node: onnx_ir.Node, forest: Forest, aggregate: str) -> str:
    """[rows, targets], of float32, or of float64 where X is."""
    import numpy as np
    import onnx_ir

    value = node.inputs[0]
    double = value is not None and value.dtype == onnx_ir.DataType.DOUBLE
    real: Any = np.float64 if double else np.float32
    data = "X" if double else text.new("Cast <to = 1> (X)")
    axis = text.integers([1])
    at = text.new(f"Expand ({text.tensor(forest.roots.reshape(1, -1))}, {text.integers([sizes(node, 0)[0], 1])})")

    def table(array: np.ndarray, type_: Any = np.int64) -> str:
        return text.tensor(np.ascontiguousarray(array, type_))

    feature, split = table(forest.feature), table(forest.split, real)
    yes, no = table(forest.yes), table(forest.no)
    kinds = sorted({str(kind) for kind in forest.kind[forest.yes != np.arange(len(forest.yes))]})
    masks = {kind: table(forest.kind == kind, bool) for kind in kinds[1:]}
    unknown = table(forest.tracks, bool) if forest.tracks.any() else ""
    for _ in range(forest.depth):
        value_of = text.new(f"GatherElements <axis = 1> ({data}, {text.new(f'Gather ({feature}, {at})')})")
        border = text.new(f"Gather ({split}, {at})")
        go = ""
        for kind in kinds:
            told = text.new(f"{_OPERATORS.get(kind, 'Equal')} ({value_of}, {border})")
            told = text.new(f"Not ({told})") if kind == "NEQ" else told
            if go:  # no Where: ONNX Runtime has none of booleans
                here = text.new(f"Gather ({masks[kind]}, {at})")
                others = text.new(f"And ({go}, {text.new(f'Not ({here})')})")
                told = text.new(f"Or ({others}, {text.new(f'And ({told}, {here})')})")
            go = told
        if unknown:
            missing = text.new(f"And ({text.new(f'IsNaN ({value_of})')}, {text.new(f'Gather ({unknown}, {at})')})")
            go = text.new(f"Or ({go}, {missing})")
        at = text.new(f"Where ({go}, {text.new(f'Gather ({yes}, {at})')}, {text.new(f'Gather ({no}, {at})')})")
    votes = text.new(f"Gather ({table(forest.weights, real)}, {at})")
    if aggregate in ("SUM", "AVERAGE"):
        total = text.new(f"ReduceSum <keepdims = 0> ({votes}, {axis})")
        if aggregate == "AVERAGE":
            total = text.new(f"Div ({total}, {text.tensor(np.array(len(forest.roots), real))})")
    elif aggregate in ("MIN", "MAX") and forest.weights.shape[1] == 1:
        reduce = f"Reduce{aggregate.capitalize()} <keepdims = 0"
        total = text.new(f"{reduce}> ({votes}, {axis})" if text.opset >= 18 else f"{reduce}, axes = [1]> ({votes})")
    else:
        raise ModelError(f"{node_text(node)} aggregates its trees by `{aggregate}`, which cannot be compiled")
    base = attribute(node, "base_values")
    if base is None and (tensor := attribute(node, "base_values_as_tensor")) is not None:
        base = tensor.numpy().reshape(-1).tolist()
    if not base:
        return total
    if len(base) not in (1, forest.weights.shape[1]):
        raise ModelError(f"{node_text(node)} has {len(base)} base values for {forest.weights.shape[1]} results")
    return text.new(f"Add ({total}, {text.tensor(np.array(base, real))})")


def _transformed(node: onnx_ir.Node, scores: str, word: str) -> str:
    operator = {"NONE": "Identity", "SOFTMAX": "Softmax <axis = -1>", "LOGISTIC": "Sigmoid"}.get(word)
    if operator is None:
        raise ModelError(f"{node_text(node)} transforms its scores by `{word}`, which cannot be compiled")
    return f"{operator} ({scores})"
