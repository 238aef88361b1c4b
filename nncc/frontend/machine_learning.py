"""Operators of ai.onnx.ml on numbers, as definitions in terms of the standard's; trees are in `nncc.frontend.trees`.

Their source is ONNX's docs/Operators-ml.md; where that leaves something open, what ONNX Runtime computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nncc.errors import ModelError
from nncc.frontend.definitions import Definition, Text, number, sizes
from nncc.frontend.trees import tree_ensemble, tree_ensemble_classifier, tree_ensemble_regressor
from nncc.passes.rewriting import attribute, node_text

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir

__all__ = ["DEFINITIONS"]


def _numbers(node: onnx_ir.Node, name: str, dtype: str) -> np.ndarray | None:
    """An attribute that is a list of numbers; None where it is missing."""
    import numpy as np

    value = attribute(node, name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, (int, float)) for each in value):
        raise ModelError(f"{node_text(node)} has an attribute `{name}` that is no list of numbers")
    return np.array(value, dtype)


def _array_feature_extractor(node: onnx_ir.Node, opset: int) -> Definition:
    """The columns of X that Y names."""
    text = Text(opset)
    columns = text.new(f"Reshape (Y, {text.integers([-1])})")
    picked = f"Gather <axis = -1> (X, {columns})"
    text.let("Z", picked if len(sizes(node, 0)) > 1 else f"Reshape ({text.new(picked)}, {text.integers([1, -1])})")
    return text.definition("X, Y", "Z")


def _binarizer(node: onnx_ir.Node, opset: int) -> Definition:
    """1 where X > threshold, else 0"""
    text = Text(opset)
    above = text.new(f"Greater (X, {text.scalar(number(node, 'threshold', 0.0), 'X')})")
    text.let("Y", f"CastLike ({above}, X)")
    return text.definition("X", "Y")


def _scaler(node: onnx_ir.Node, opset: int) -> Definition:
    """(X - offset) * scale, of float32"""
    text = Text(opset)
    wide = text.new("Cast <to = 1> (X)")
    for name, operator in (("offset", "Sub"), ("scale", "Mul")):
        values = _numbers(node, name, "float32")
        if values is not None and values.size not in (1, sizes(node, 0)[-1]):
            raise ModelError(f"{node_text(node)} has {values.size} numbers in `{name}`, which do not fit its input")
        if values is not None:
            wide = text.new(f"{operator} ({wide}, {text.tensor(values)})")
    text.let("Y", f"Identity ({wide})")
    return text.definition("X", "Y")


def _normalizer(node: onnx_ir.Node, opset: int) -> Definition:
    """Rows divided by their maximum, the sum of their magnitudes, or their length; rows of which that is 0 are kept."""
    text = Text(opset)
    norm = str(attribute(node, "norm", "MAX"))
    if len(sizes(node, 0)) > 2 or norm not in ("MAX", "L1", "L2"):
        raise ModelError(
            f"{node_text(node)} normalizes {len(sizes(node, 0))} axes by `{norm}`, which cannot be compiled"
        )
    wide, axis = text.new("Cast <to = 1> (X)"), text.integers([-1])
    if norm == "MAX":
        reduce = "ReduceMax <axes = [-1]>" if opset < 18 else "ReduceMax"
        size = text.new(f"{reduce} ({wide})" if opset < 18 else f"{reduce} ({wide}, {axis})")
    else:
        size = text.new(f"ReduceSum ({text.new(f'Abs ({wide})' if norm == 'L1' else f'Mul ({wide}, {wide})')}, {axis})")
    if norm == "L2":
        size = text.new(f"Sqrt ({size})")
    nothing = text.new(f"Equal ({size}, {text.number(0.0)})")
    text.let("Y", f"Div ({wide}, {text.new(f'Where ({nothing}, {text.number(1.0)}, {size})')})")
    return text.definition("X", "Y")


def _imputer(node: onnx_ir.Node, opset: int) -> Definition:
    """What stands for a missing number replaced, by one number or by one for each column."""
    import numpy as np

    text = Text(opset)
    floats, integers = (
        _numbers(node, "imputed_value_floats", "float32"),
        _numbers(node, "imputed_value_int64s", "int64"),
    )
    values = floats if floats is not None else integers
    if values is None or values.size not in (1, sizes(node, 0)[-1]):
        raise ModelError(f"{node_text(node)} does not say by what it replaces numbers that are missing")
    missing = (
        number(node, "replaced_value_float", 0.0) if floats is not None else number(node, "replaced_value_int64", 0)
    )
    if np.isnan(missing):
        gone = text.new("IsNaN (X)")
    else:
        gone = text.new(f"Equal (X, {text.tensor(np.array(missing, values.dtype))})")
    text.let("Y", f"Where ({gone}, {text.tensor(values)}, X)")
    return text.definition("X", "Y")


def _one_hot_encoder(node: onnx_ir.Node, opset: int) -> Definition:
    """For each number which of the categories it is, as ones and zeros along a new axis."""
    text = Text(opset)
    categories = _numbers(node, "cats_int64s", "int64")
    if categories is None or not number(node, "zeros", 1):
        raise ModelError(f"{node_text(node)} has categories that are no integers, or fails for others")
    whole = text.new(f"Unsqueeze ({text.new('Cast <to = 7> (X)')}, {text.integers([-1])})")
    text.let("Y", f"Cast <to = 1> ({text.new(f'Equal ({whole}, {text.tensor(categories)})')})")
    return text.definition("X", "Y")


def _feature_vectorizer(node: onnx_ir.Node, opset: int) -> Definition:
    """Columns of several matrices side by side, of float32"""
    text = Text(opset)
    names = [f"X{at}" for at in range(len(node.inputs))]
    if any(len(sizes(node, at)) != 2 for at in range(len(names))):
        raise ModelError(f"{node_text(node)} has operands that are no matrices")
    wide = [text.new(f"Cast <to = 1> ({name})") for name in names]
    text.let("Y", f"Concat <axis = 1> ({', '.join(wide)})")
    return text.definition(", ".join(names), "Y")


def _linear_regressor(node: onnx_ir.Node, opset: int) -> Definition:
    """X coefficients' + intercepts. Transforms are refused: ONNX Runtime leaves them out, against the standard."""
    word = str(attribute(node, "post_transform", "NONE"))
    if word != "NONE":
        raise ModelError(f"{node_text(node)} transforms its scores by `{word}`, which cannot be compiled")
    text = Text(opset)
    text.let("Y", f"Identity ({_scores(text, node, int(number(node, 'targets', 1)))})")
    return text.definition("X", "Y")


def _linear_classifier(node: onnx_ir.Node, opset: int) -> Definition:
    """The label of the highest of X coefficients' + intercepts, and all of them"""
    labels = _numbers(node, "classlabels_ints", "int64")
    if labels is None:
        raise ModelError(f"{node_text(node)} has labels that are no integers, which cannot be compiled")
    if labels.size < 2:
        raise ModelError(f"{node_text(node)} has {labels.size} labels")
    text = Text(opset)
    scores = _scores(text, node, labels.size)
    best = text.new(f"ArgMax <axis = 1, keepdims = 0> ({scores})")
    text.let("Y", f"Gather ({text.tensor(labels)}, {best})")
    text.let("Z", _transformed(text, node, scores))
    return text.definition("X", "Y, Z")


def _scores(text: Text, node: onnx_ir.Node, count: int) -> str:
    """X coefficients' + intercepts, [rows, count]"""
    coefficients, intercepts = _numbers(node, "coefficients", "float32"), _numbers(node, "intercepts", "float32")
    shape = sizes(node, 0)
    columns = shape[-1] if len(shape) == 2 else -1
    fits = intercepts is None or intercepts.size == count
    if coefficients is None or coefficients.size != columns * count or not fits:
        given = [0 if each is None else each.size for each in (coefficients, intercepts)]
        raise ModelError(
            f"{node_text(node)} has {given[0]} coefficients and {given[1]} intercepts, which cannot be compiled for an "
            f"input of shape {list(shape)} and {count} results"
        )
    shift = "" if intercepts is None else f", {text.tensor(intercepts)}"
    weights = text.tensor(coefficients.reshape(count, columns))
    return text.new(f"Gemm <transB = 1> ({text.new('Cast <to = 1> (X)')}, {weights}{shift})")


def _transformed(text: Text, node: onnx_ir.Node, scores: str) -> str:
    """Scores as `post_transform` says."""
    word = str(attribute(node, "post_transform", "NONE"))
    operator = {"NONE": "Identity", "SOFTMAX": "Softmax <axis = -1>", "LOGISTIC": "Sigmoid"}.get(word)
    if operator is None:
        raise ModelError(f"{node_text(node)} transforms its scores by `{word}`, which cannot be compiled")
    return f"{operator} ({scores})"


def _label_encoder(node: onnx_ir.Node, opset: int) -> Definition:
    """Numbers for numbers, by a table; another for those that are not in it."""
    import numpy as np

    def table(what: str) -> Any:
        tensor = attribute(node, f"{what}_tensor")
        found = [tensor.numpy()] if tensor is not None and tensor.dtype.name != "STRING" else []
        for name, dtype in ((f"{what}_floats", "float32"), (f"{what}_int64s", "int64")):
            values = _numbers(node, name, dtype)
            found += [] if values is None else [values]
        return found[0].reshape(-1) if len(found) == 1 else None

    keys, values = table("keys"), table("values")
    if keys is None or values is None or keys.size != values.size or keys.size == 0:
        raise ModelError(f"{node_text(node)} has a table of something else than numbers, which cannot be compiled")
    default = attribute(node, "default_tensor")
    other = number(node, "default_float", -0.0) if values.dtype.kind == "f" else number(node, "default_int64", -1)
    other = default.numpy().reshape(-1)[0] if default is not None else other
    text = Text(opset)
    if keys.dtype.kind == "f" and np.isnan(keys).any():
        raise ModelError(f"{node_text(node)} has a table with the key NaN, which cannot be compiled")
    keys, first = np.unique(keys, return_index=True)
    same = text.new(f"Equal ({text.new(f'Unsqueeze (X, {text.integers([-1])})')}, {text.tensor(keys)})")
    hits = text.new(f"Cast <to = 6> ({same})")
    place = text.new(f"ArgMax <axis = -1, keepdims = 0> ({hits})")
    found = text.new(f"Cast <to = 9> ({text.new(f'ReduceSum <keepdims = 0> ({hits}, {text.integers([-1])})')})")
    picked = text.new(f"Gather ({text.tensor(values[first])}, {place})")
    text.let("Y", f"Where ({found}, {picked}, {text.tensor(np.array(other, values.dtype))})")
    return text.definition("X", "Y")


DEFINITIONS: dict[str, Callable[[onnx_ir.Node, int], Definition]] = {
    "ArrayFeatureExtractor": _array_feature_extractor,
    "Binarizer": _binarizer,
    "FeatureVectorizer": _feature_vectorizer,
    "Imputer": _imputer,
    "LabelEncoder": _label_encoder,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
    "Normalizer": _normalizer,
    "OneHotEncoder": _one_hot_encoder,
    "Scaler": _scaler,
    "TreeEnsemble": tree_ensemble,
    "TreeEnsembleClassifier": tree_ensemble_classifier,
    "TreeEnsembleRegressor": tree_ensemble_regressor,
}
"""By operator."""
