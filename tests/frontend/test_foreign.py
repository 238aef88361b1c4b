"""Operators of ai.onnx.ml and of optimizers are replaced by what computes the same as ONNX Runtime, or as numpy."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from compiled import ROUNDING, compile_net
from foreign_nodes import close, expected_of, inputs_of
from onnx import helper

from nncc.errors import ModelError
from nncc.frontend.foreign import DEFINITIONS
from nncc.frontend.onnx import import_onnx
from nncc.verify import reference

ML = "ai.onnx.ml"
RANDOM = np.random.default_rng(5)
ROWS, COLUMNS = 40, 6
DATA = RANDOM.standard_normal((ROWS, COLUMNS)).astype(np.float32)
GAPS = np.where(RANDOM.random((ROWS, COLUMNS)) < 0.2, np.float32(np.nan), DATA)
WHOLE = RANDOM.integers(0, 5, (ROWS, COLUMNS))


def forest(what, targets, trees=7, depth=4, modes=("BRANCH_LEQ",), tracks=False, positive=False):
    """Random trees, some of whose leaves are higher than others."""
    random = np.random.default_rng(len(modes) + targets)
    nodes = {
        name: [] for name in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
    }
    votes = {name: [] for name in ("treeids", "nodeids", "ids", "weights")}

    def grow(tree, level):
        number = len([each for each in nodes["treeids"] if each == tree])
        at = len(nodes["treeids"])
        leaf = level == depth or (level > 1 and random.random() < 0.3)
        row = (tree, number, int(random.integers(COLUMNS)), "LEAF" if leaf else str(random.choice(modes)),
               float(np.round(random.standard_normal(), 1)), 0, 0)  # fmt: skip
        for name, value in zip(nodes, row, strict=True):
            nodes[name].append(value)
        if leaf:
            weight = float(np.float32(random.random() if positive else random.standard_normal()))
            for name, value in zip(votes, (tree, number, int(random.integers(targets)), weight), strict=True):
                votes[name].append(value)
        else:
            nodes["truenodeids"][at], nodes["falsenodeids"][at] = grow(tree, level + 1), grow(tree, level + 1)
        return number

    for tree in range(trees):
        grow(tree, 0)
    attributes = {f"nodes_{name}": values for name, values in nodes.items()}
    if tracks:
        attributes["nodes_missing_value_tracks_true"] = random.integers(0, 2, len(nodes["treeids"])).tolist()
    return attributes | {f"{what}_{name}": values for name, values in votes.items()}


CLASSES = {"classlabels_int64s": [3, 5, 9]}
PAIR = {"classlabels_int64s": [3, 5]}
LINEAR = {
    "coefficients": RANDOM.standard_normal(3 * COLUMNS).tolist(), "intercepts": RANDOM.standard_normal(3).tolist(),
}  # fmt: skip
CASES = {
    "ArrayFeatureExtractor": ("ArrayFeatureExtractor", [DATA, np.array([[4, 0, 4]])], {}),
    "ArrayFeatureExtractor of a row": ("ArrayFeatureExtractor", [DATA[0], np.array([[4, 0]])], {}),
    "Binarizer": ("Binarizer", [DATA], {"threshold": 0.25}),
    "FeatureVectorizer": ("FeatureVectorizer", [DATA, DATA[:, :2]], {"inputdimensions": [COLUMNS, 2]}),
    "Imputer": ("Imputer", [GAPS], {"imputed_value_floats": [7.0], "replaced_value_float": float("nan")}),
    "Imputer of integers": (
        "Imputer",
        [WHOLE],
        {"imputed_value_int64s": [7, 8, 9, 10, 11, 12], "replaced_value_int64": 3},
    ),
    "LabelEncoder": ("LabelEncoder", [WHOLE], {"keys_int64s": [3, 1, 2], "values_int64s": [30, 10, 20]}),
    "LabelEncoder of reals": (
        "LabelEncoder",
        [WHOLE.astype(np.float32)],
        {"keys_floats": [3.0, 1.0], "values_floats": [0.5, 0.25], "default_float": 9.0},
    ),
    "LinearClassifier": (
        "LinearClassifier",
        [DATA],
        {"classlabels_ints": [7, 8, 9], "post_transform": "SOFTMAX", **LINEAR},
    ),
    "LinearRegressor": ("LinearRegressor", [DATA], {"targets": 3, **LINEAR}),
    "LinearRegressor without intercepts": (
        "LinearRegressor",
        [DATA],
        {"coefficients": LINEAR["coefficients"][:COLUMNS], "post_transform": "NONE"},
    ),
    "Normalizer by the maximum": ("Normalizer", [np.abs(DATA)], {"norm": "MAX"}),
    "Normalizer by the sum": ("Normalizer", [np.vstack([DATA, DATA[:1] * 0])], {"norm": "L1"}),
    "Normalizer by the length": ("Normalizer", [np.vstack([DATA, DATA[:1] * 0])], {"norm": "L2"}),
    "OneHotEncoder": ("OneHotEncoder", [WHOLE], {"cats_int64s": [4, 0, 2]}),
    "Scaler": ("Scaler", [DATA], {"offset": DATA[0].tolist(), "scale": DATA[1].tolist()}),
    "Scaler of integers": ("Scaler", [WHOLE], {"offset": [1.0], "scale": [2.5]}),
    "TreeEnsembleRegressor": (
        "TreeEnsembleRegressor",
        [DATA],
        {"n_targets": 2, "base_values": [0.5, -1.0], **forest("target", 2)},
    ),
    "TreeEnsembleRegressor of the mean": (
        "TreeEnsembleRegressor",
        [DATA],
        {"n_targets": 1, "aggregate_function": "AVERAGE", **forest("target", 1)},
    ),
    "TreeEnsembleRegressor of the maximum": (
        "TreeEnsembleRegressor",
        [DATA],
        {"n_targets": 1, "aggregate_function": "MAX", **forest("target", 1)},
    ),
    "TreeEnsembleRegressor in all modes": (
        "TreeEnsembleRegressor",
        [np.round(DATA, 1)],
        {
            "n_targets": 1,
            **forest("target", 1, modes=[f"BRANCH_{m}" for m in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")]),
        },
    ),
    "TreeEnsembleRegressor with gaps": (
        "TreeEnsembleRegressor",
        [GAPS],
        {"n_targets": 1, **forest("target", 1, modes=("BRANCH_LT",), tracks=True)},
    ),
    "TreeEnsembleClassifier": (
        "TreeEnsembleClassifier",
        [DATA],
        {"post_transform": "SOFTMAX", **CLASSES, **forest("class", 3)},
    ),
    "TreeEnsembleClassifier by shares": (
        "TreeEnsembleClassifier",
        [DATA],
        {**PAIR, **forest("class", 1, trees=1, positive=True)},
    ),
    "TreeEnsembleClassifier by votes": ("TreeEnsembleClassifier", [DATA], {**PAIR, **forest("class", 1)}),
    "TreeEnsembleClassifier, logistic": (
        "TreeEnsembleClassifier",
        [DATA],
        {"post_transform": "LOGISTIC", **PAIR, **forest("class", 1)},
    ),
}


def _model(op, arrays, attributes, domain=ML, outputs=None, version=3):
    names = [f"x{at}" for at in range(len(arrays))]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
    ]
    outputs = outputs or (["y", "z"] if op.endswith("Classifier") else ["y"])
    same = op in ("ArrayFeatureExtractor", "Binarizer", "Imputer", "LabelEncoder") or domain != ML
    kinds = [
        arrays[0].dtype if same else np.int64 if len(outputs) == 2 and name == "y" else np.float32 for name in outputs
    ]
    results = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)
        for name, kind in zip(outputs, kinds, strict=True)
    ]
    node = helper.make_node(op, names, outputs, name="node", domain=domain, **attributes)
    graph = helper.make_graph([node], "g", values, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, version)], ir_version=8)


@pytest.mark.parametrize("case", CASES)
def test_definitions_are_what_onnx_runtime_computes(tmp_path, case):
    op, arrays, attributes = CASES[case]
    model = _model(op, arrays, attributes)
    onnx.save(model, tmp_path / "net.onnx")
    imported = import_onnx(tmp_path / "net.onnx")
    close(reference(imported, inputs_of(arrays)).values(), expected_of(model, arrays), ROUNDING)


def test_two_classes_that_both_get_votes_are_told_by_the_higher_score(tmp_path):
    """As the standard says. ONNX Runtime answers 1 where the second score is positive, whatever the labels are."""
    model = _model("TreeEnsembleClassifier", [DATA], {**PAIR, **forest("class", 2)})
    onnx.save(model, tmp_path / "net.onnx")
    labels, scores = reference(import_onnx(tmp_path / "net.onnx"), inputs_of([DATA])).values()
    close([scores], expected_of(model, [DATA])[1:], ROUNDING)
    assert labels.tolist() == np.array([3, 5])[scores.argmax(axis=1)].tolist()


def test_every_definition_has_a_case():
    assert {op for op, _, _ in CASES.values()} == set(DEFINITIONS[ML]) - {"TreeEnsemble"}  # has conformance cases


@pytest.mark.parametrize("op", ["TreeEnsembleClassifier", "TreeEnsembleRegressor in all modes"])
def test_forests_compile(tmp_path, op):
    op, arrays, attributes = CASES[op]
    model = _model(op, arrays, attributes)
    onnx.save(model, tmp_path / "net.onnx")
    found = compile_net(tmp_path / "net.onnx", tmp_path).run(inputs_of(arrays))
    close(found.values(), expected_of(model, arrays), ROUNDING)


def _changed(case, **attributes):
    op, arrays, given = CASES[case]
    return op, arrays, given | attributes


_COUNT = len(forest("target", 1)["nodes_treeids"])
_LEAVES = len(forest("target", 1)["target_treeids"])
_MEAN = "TreeEnsembleRegressor of the mean"
REFUSED = [
    (
        *_changed("Normalizer by the sum", norm="L3"),
        "Normalizer `node` normalizes 2 axes by `L3`, which cannot be compiled",
    ),
    (*_changed("Scaler", scale=[1.0, 2.0]), "Scaler `node` has 2 numbers in `scale`, which do not fit its input"),
    (
        *_changed("Imputer", imputed_value_floats=[1.0, 2.0]),
        "Imputer `node` does not say by what it replaces numbers that are missing",
    ),
    (
        *_changed("OneHotEncoder", zeros=0),
        "OneHotEncoder `node` has categories that are no integers, or fails for others",
    ),
    (
        *_changed("LinearRegressor", targets=2),
        "LinearRegressor `node` has 18 coefficients and 3 intercepts, which cannot be compiled for an input of shape "
        "[40, 6] and 2 results",
    ),
    (
        *_changed("LinearRegressor", post_transform="LOGISTIC"),
        "LinearRegressor `node` transforms its scores by `LOGISTIC`, which cannot be compiled",
    ),
    (
        *_changed("LinearClassifier", post_transform="PROBIT"),
        "LinearClassifier `node` transforms its scores by `PROBIT`, which cannot be compiled",
    ),
    (
        "LinearClassifier",
        [DATA],
        {"classlabels_strings": ["a", "b", "c"], **LINEAR},
        "LinearClassifier `node` has labels that are no integers, which cannot be compiled",
    ),
    (
        *_changed("LabelEncoder", values_int64s=[1]),
        "LabelEncoder `node` has a table of something else than numbers, which cannot be compiled",
    ),
    (
        *_changed(_MEAN, nodes_truenodeids=[0] * _COUNT),
        "TreeEnsembleRegressor `node` has a tree with a way of over 128 nodes, or one without end",
    ),
    (
        *_changed(_MEAN, nodes_truenodeids=[99] * _COUNT),
        "TreeEnsembleRegressor `node` has a tree in which a node follows that does not exist",
    ),
    (
        *_changed(_MEAN, nodes_featureids=[7] * _COUNT),
        "TreeEnsembleRegressor `node` has a tree that asks for a column that its 6 columns do not have",
    ),
    (
        *_changed(_MEAN, nodes_modes=["BRANCH_ODD"] * _COUNT),
        "TreeEnsembleRegressor `node` has nodes of the mode `ODD`, which does not exist",
    ),
    (
        *_changed(_MEAN, nodes_values=[1.0]),
        "TreeEnsembleRegressor `node` has trees whose `nodes_values` is missing, or has not one element for each node",
    ),
    (
        *_changed(_MEAN, target_ids=[3] * _LEAVES),
        "TreeEnsembleRegressor `node` has a vote of node {} of tree 0, which does not exist".format(
            forest("target", 1)["target_nodeids"][0]
        ),
    ),
    (
        *_changed(_MEAN, n_targets=2**40),
        f"TreeEnsembleRegressor `node` has 1099511627776 results for {_COUNT} nodes, which cannot be compiled",
    ),
    (
        *_changed("TreeEnsembleRegressor", aggregate_function="MIN"),
        "TreeEnsembleRegressor `node` aggregates its trees by `MIN`, which cannot be compiled",
    ),
    (
        *_changed("TreeEnsembleRegressor", base_values=[1.0, 2.0, 3.0]),
        "TreeEnsembleRegressor `node` has 3 base values for 2 results",
    ),
    (
        *_changed("TreeEnsembleClassifier by votes", post_transform="SOFTMAX"),
        "TreeEnsembleClassifier `node` transforms the score of one class by `SOFTMAX`, which cannot be compiled",
    ),
]


@pytest.mark.parametrize(("op", "arrays", "attributes", "message"), REFUSED)
def test_forms_without_a_definition_are_refused(tmp_path, op, arrays, attributes, message):
    onnx.save(_model(op, arrays, attributes), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        import_onnx(tmp_path / "net.onnx")
    assert str(caught.value) == message


NGRAMS = {
    "mode": "TFIDF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1,
    "ngram_counts": [0, 2], "ngram_indexes": [0, 2, 1, 3], "pool_int64s": [2, 3, 1, 2, 4, 4],
}  # fmt: skip


def test_short_sequences_are_counted_with_gaps_and_without(tmp_path):
    """x[p] = g[0] and x[p + 1] = g[1], or x[p + 2] = g[1]."""
    model = _model("TfIdfVectorizer", [WHOLE], NGRAMS | {"weights": [1.0, 2.0, 0.5, 3.0]}, "", ["y"], 9)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "net.onnx")
    found = reference(import_onnx(tmp_path / "net.onnx"), inputs_of([WHOLE]))["y"]

    def pairs(a, b):
        return sum(((WHOLE[:, :-s] == a) & (WHOLE[:, s:] == b)).sum(axis=1) for s in (1, 2))

    counts = [(WHOLE == 2).sum(axis=1), 2.0 * pairs(1, 2), 0.5 * (WHOLE == 3).sum(axis=1), 3.0 * pairs(4, 4)]
    np.testing.assert_array_equal(found, np.stack(counts, axis=1).astype(np.float32))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"pool_int64s": [2, 3, 1]},
            "TfIdfVectorizer `node` has sequences that do not fit its `ngram_counts` and `ngram_indexes`",
        ),
        (
            {"ngram_indexes": [0, 2, 1, 2**40]},
            "TfIdfVectorizer `node` has 4 sequences for 1099511627777 results, and gaps of up to 1: too many",
        ),
        ({"weights": [1.0]}, "TfIdfVectorizer `node` has 1 weights for 4 results"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(tmp_path, attributes, message):
    model = _model("TfIdfVectorizer", [WHOLE], NGRAMS | attributes, "", ["y"], 9)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        import_onnx(tmp_path / "net.onnx")
    assert str(caught.value) == message


def test_maps_are_refused_with_what_to_do_instead(tmp_path):
    model = _model("ZipMap", [DATA], {"classlabels_int64s": list(range(COLUMNS))})
    kind = helper.make_map_type_proto(onnx.TensorProto.INT64, helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, []))
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(kind))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        import_onnx(tmp_path / "net.onnx")
    assert str(caught.value) == "output `y` is made of maps, which are no tensors"
    assert caught.value.hint == "export the model with tensors instead: with skl2onnx, `options={'zipmap': False}`"


TRAINING = "ai.onnx.preview.training"


@pytest.mark.parametrize(
    ("op", "count", "attributes", "message"),
    [
        ("Adam", 7, {}, "Adam `node` has 7 operands, which are not R, T and 4 groups"),
        ("Momentum", 5, {"mode": "other"}, "Momentum `node` has the mode `other`, which cannot be compiled"),
    ],
)
def test_steps_of_optimizers_that_are_none_are_refused(tmp_path, op, count, attributes, message):
    arrays = [np.float32(0.1), np.int64(3), *([DATA] * (count - 2))]
    needed = {"alpha": 0.9, "beta": 0.9, "norm_coefficient": 0.0} if op == "Momentum" else {}
    model = _model(op, arrays, needed | attributes, TRAINING, ["a", "b"], 1)
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        import_onnx(tmp_path / "net.onnx")
    assert str(caught.value) == message
