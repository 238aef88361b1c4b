"""Operators of com.microsoft are replaced by what computes the same as ONNX Runtime's own kernels for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from compiled import compile_net
from foreign_nodes import close, expected_of, inputs_of
from onnx import helper

from nncc.errors import ModelError
from nncc.frontend.microsoft import DEFINITIONS, MICROSOFT
from nncc.frontend.onnx import import_onnx
from nncc.verify import reference

RANDOM = np.random.default_rng(9)
F, I = np.float32, np.int32  # noqa: E741
B, S, H, N = 2, 6, 24, 3
"""Batches, tokens, elements of a token, heads."""
TOLERANCE = 1e-5
"""Relative to the largest: float32 sums of a few dozen numbers in two orders, through a softmax of small scores."""


def real(*shape, dtype=F):
    return RANDOM.standard_normal(shape).astype(dtype)


def whole(high, *shape, low=0):
    return RANDOM.integers(low, high, shape).astype(I)


def integers(dtype, *shape):
    info = np.iinfo(dtype)
    return RANDOM.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def single(value, dtype=F):
    return np.array(value, dtype)


def _mask(*shape):
    """Ones, and zeros at the end of each row of another length."""
    mask = np.ones(shape, I)
    for at, row in enumerate(mask.reshape(-1, shape[-1])):
        row[shape[-1] - at % 3 :] = 0
    return mask


TABLE = real(16, 4), real(16, 4)
MASKED, WEIGHTS = real(B, S, H), (real(H, 3 * H), real(3 * H))
KEYS = real(B, 5, H), real(B, 5, 2 * H)
PAST = real(2, B, N, 4, H // N)
LSTM = [
    real(S, 1, 5),
    *(integers(np.int8, 1, n, 4 * 7) for n in (5, 7)),
    real(1, 8 * 7),
    *[None] * 4,
    *(single([value], dtype) for value, dtype in ((0.01, F), (0, np.int8), (0.005, F), (0, np.int8))),
]
"""Steps of 5 numbers into 7, weights, and their scales and zero points."""
ROWS = integers(np.uint8, B, S, H), integers(np.int8, H, 3 * H)
TABLES = [integers(np.uint8, *shape) for shape in ((30, H), (9, H), (2, H), (H,), (H,))]
"""Words, positions, segments, and what is normalized to, as integers."""
STEPS = [single(value) for value in (0.01, 0.02, 0.03, 0.01, 0.005)]
ZEROS = [single(value, np.uint8) for value in (100, 120, 130, 7, 250)]
CASES: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "BiasGelu": ("BiasGelu", [real(2, 8), real(8)], {}),
    "Gelu": ("Gelu", [real(2, 8)], {}),
    "FastGelu": ("FastGelu", [real(2, 8)], {}),
    "FastGelu of a bias": ("FastGelu", [real(2, 8), real(8)], {}),
    "QuickGelu": ("QuickGelu", [real(2, 8)], {"alpha": 1.5}),
    "FusedMatMul": ("FusedMatMul", [real(2, 8, 3), real(2, 5, 8)], {"transA": 1, "transB": 1, "alpha": 0.5}),
    "FusedMatMul of matrices": ("FusedMatMul", [real(3, 8), real(8, 5)], {}),
    "FusedConv": (
        "FusedConv",
        [real(1, 3, 8, 8), real(4, 3, 3, 3), real(4)],
        {"activation": "Relu", "pads": [1, 1, 1, 1]},
    ),
    "FusedConv with a sum": (
        "FusedConv",
        [real(1, 3, 8, 8), real(4, 3, 3, 3), real(4), real(1, 4, 6, 6)],
        {"activation": "LeakyRelu", "activation_params": [0.2]},
    ),
    "FusedGemm": ("FusedGemm", [real(3, 8), real(5, 8), real(5)], {"transB": 1, "activation": "Tanh"}),
    "LayerNormalization": ("LayerNormalization", [real(B, S, H), real(H), real(H)], {"domain": ""}),
    "SimplifiedLayerNormalization": ("SimplifiedLayerNormalization", [real(B, S, H), real(H)], {"domain": ""}),
    "SkipLayerNormalization": ("SkipLayerNormalization", [real(B, S, H), real(B, S, H), real(H), real(H)], {}),
    "SkipLayerNormalization and the sum": (
        "SkipLayerNormalization",
        [real(B, S, H), real(S, H), real(H), None, real(H)],
        {"epsilon": 0.1, "outputs": ["y", "", "", "sum"]},
    ),
    "SkipSimplifiedLayerNormalization": (
        "SkipSimplifiedLayerNormalization",
        [real(B, S, H), real(B, S, H), real(H), real(H)],
        {"outputs": ["y", "", "", "sum"]},
    ),
    "SkipSimplifiedLayerNormalization of halves": (
        "SkipSimplifiedLayerNormalization",
        [real(B, S, H, dtype=np.float16), real(B, S, H, dtype=np.float16), real(H, dtype=np.float16)],
        {"tolerance": 2.0**-9},  # a step of float16 or two: ours is rounded before it is scaled
    ),
    "EmbedLayerNormalization": (
        "EmbedLayerNormalization",
        [whole(30, B, S), whole(2, B, S), real(30, H), real(9, H), real(2, H), real(H), real(H), _mask(B, S)],
        {"outputs": ["y", "lengths", "sum"], "epsilon": 1e-12},
    ),
    "EmbedLayerNormalization by positions": (
        "EmbedLayerNormalization",
        [whole(30, B, S), None, real(30, H), real(9, H), None, real(H), real(H), None, whole(9, B, S)],
        {"outputs": ["y", "lengths"]},
    ),
    "RotaryEmbedding": ("RotaryEmbedding", [real(B, S, H), whole(16, B, S).astype(np.int64), *TABLE], {}),
    "RotaryEmbedding of neighbours": (
        "RotaryEmbedding",
        [real(B, N, S, 8), np.array([3], np.int64), *TABLE],
        {"interleaved": 1},
    ),
    "RotaryEmbedding of a part": (
        "RotaryEmbedding",
        [real(B, S, 3 * 12), whole(16, B, S).astype(np.int64), *TABLE],
        {"rotary_embedding_dim": 8, "num_heads": 3},
    ),
    "Attention": ("Attention", [MASKED, *WEIGHTS], {"num_heads": N}),
    "Attention by a mask": ("Attention", [MASKED, *WEIGHTS, _mask(B, S)], {"num_heads": N, "scale": 0.3}),
    "Attention by masks of rows": ("Attention", [MASKED, *WEIGHTS, _mask(B, S, S)], {"num_heads": N}),
    "Attention by lengths": ("Attention", [MASKED, *WEIGHTS, np.array([4, 6], I)], {"num_heads": N}),
    "Attention by ends and starts": ("Attention", [MASKED, *WEIGHTS, np.array([4, 6, 1, 0], I)], {"num_heads": N}),
    "Attention of what came before": ("Attention", [MASKED, *WEIGHTS], {"num_heads": N, "unidirectional": 1}),
    "Attention of what came before, masked": (
        "Attention",
        [MASKED, *WEIGHTS, np.array([[0, 1, 1, 1, 0, 0], [1] * 6], I)],
        {"num_heads": N, "unidirectional": 1},
    ),
    "Attention with a cache": (
        "Attention",
        [MASKED, *WEIGHTS, None, PAST],
        {"num_heads": N, "unidirectional": 1, "outputs": ["y", "present"]},
    ),
    "Attention with a bias": (
        "Attention",
        [MASKED, real(H, 2 * H + 48), None, _mask(B, S), None, real(1, N, S, S)],
        {"num_heads": N, "qkv_hidden_sizes": [H, H, 48]},
    ),
    "MultiHeadAttention": ("MultiHeadAttention", [real(B, S, H), *KEYS, real(4 * H)], {"num_heads": N}),
    "MultiHeadAttention by a mask": (
        "MultiHeadAttention",
        [real(B, S, H), *KEYS, None, _mask(B, 5), real(B, 1, S, 5)],
        {"num_heads": N},
    ),
    "MultiHeadAttention by lengths": (
        "MultiHeadAttention",
        [real(B, S, H), *KEYS, None, np.array([2, 5], I)],
        {"num_heads": N},
    ),
    "MultiHeadAttention with a cache": (
        "MultiHeadAttention",
        [real(B, S, H), real(B, S, H), real(B, S, H), None, None, None, PAST[0], PAST[1]],
        {"num_heads": N, "unidirectional": 1, "outputs": ["y", "keys", "values"]},
    ),
    "MultiHeadAttention of heads": (
        "MultiHeadAttention",
        [real(B, S, H), real(B, N, 5, 8), real(B, N, 5, 8)],
        {"num_heads": N},
    ),
    "GroupQueryAttention": (
        "GroupQueryAttention",
        [real(B, S, 32), real(B, S, 16), real(B, S, 16), None, None, np.array([S - 1] * B, I), np.array(S, I)],
        {"num_heads": 4, "kv_num_heads": 2, "outputs": ["y", "keys", "values"]},
    ),
    "GroupQueryAttention of turned heads": (
        "GroupQueryAttention",
        [real(B, S, 128), None, None, None, None, np.array([S - 1] * B, I), np.array(S, I), real(16, 8), real(16, 8)],
        {"num_heads": 4, "kv_num_heads": 2, "do_rotary": 1, "outputs": ["y", "keys", "values"]},
    ),
    "DynamicQuantizeLSTM": ("DynamicQuantizeLSTM", LSTM, {"hidden_size": 7, "outputs": ["y", "h", "c"]}),
    "DynamicQuantizeLSTM both ways, with scales of columns and a state": (
        "DynamicQuantizeLSTM",
        [
            real(S, 1, 5),
            *(integers(np.int8, 2, n, 4 * 7) for n in (5, 7)),
            None,
            None,
            *real(2, 2, 1, 7),
            None,
            np.abs(real(2, 28)) / 50,
            np.zeros((2, 28), np.int8),
            np.abs(real(2, 28)) / 50,
            np.zeros((2, 28), np.int8),
        ],
        {"hidden_size": 7, "direction": "bidirectional", "outputs": ["y", "h", "c"]},
    ),
    "DynamicQuantizeLSTM backwards, of bytes without a sign": (
        "DynamicQuantizeLSTM",
        [
            real(S, 1, 5),
            *(integers(np.uint8, 1, n, 4 * 7) for n in (5, 7)),
            real(1, 8 * 7),
            *[None] * 4,
            single([0.01]),
            single([128], np.uint8),
            single([0.005]),
            single([117], np.uint8),
        ],
        {"hidden_size": 7, "direction": "reverse", "outputs": ["y", "h", ""]},
    ),
    "MatMulInteger16": (
        "MatMulInteger16",
        [integers(np.int16, 2, 3, 9), integers(np.int16, 9, 5) // 16],
        {"result": I},
    ),
    "NhwcMaxPool": (
        "NhwcMaxPool",
        [integers(np.uint8, 2, 7, 6, 4)],
        {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]},
    ),
    "NhwcMaxPool of an axis, of int8": (
        "NhwcMaxPool",
        [integers(np.int8, 1, 9, 3)],
        {"kernel_shape": [3], "auto_pad": "SAME_UPPER", "dilations": [2]},
    ),
    "QAttention": (
        "QAttention",
        [*ROWS, real(3 * H), single(0.02), single(0.01), None, single(120, np.uint8), single(3, np.int8)],
        {"num_heads": N, "result": F},
    ),
    "QAttention with scales of columns and a mask": (
        "QAttention",
        [
            *ROWS,
            real(3 * H),
            single([0.02]),
            np.abs(real(3 * H)) / 50 + F(0.01),
            _mask(B, S),
            single([120], np.uint8),
            integers(np.int8, 3 * H) // 16,
        ],
        {"num_heads": N, "unidirectional": 1, "result": F},
    ),
    "QAttention without zero points, with a cache": (
        "QAttention",
        [*ROWS, real(3 * H), single(0.02), single([0.01]), np.array([4, 6], I), None, None, PAST],
        {"num_heads": N, "outputs": ["y", "present"], "result": F},
    ),
    "QEmbedLayerNormalization": (
        "QEmbedLayerNormalization",
        [whole(30, B, S), whole(2, B, S), *TABLES, _mask(B, S), *STEPS, *ZEROS],
        {"outputs": ["y", "lengths"], "epsilon": 1e-12},
    ),
    "QEmbedLayerNormalization without segments": (
        "QEmbedLayerNormalization",
        [
            whole(30, B, S),
            None,
            *TABLES[:2],
            None,
            *TABLES[3:],
            None,
            *STEPS[:2],
            None,
            *STEPS[3:],
            *ZEROS[:2],
            None,
            *ZEROS[3:],
        ],
        {"outputs": ["y", "lengths"], "epsilon": 0.1},
    ),
    "GroupQueryAttention in a window": (
        "GroupQueryAttention",
        [real(B, S, 16), real(B, S, 16), real(B, S, 16), None, None, np.array([S - 1] * B, I), np.array(S, I)],
        {"num_heads": 2, "kv_num_heads": 2, "local_window_size": 3, "softcap": 2.0, "outputs": ["y", "keys", "values"]},
    ),
}


def _model(op, arrays, attributes, opset=14):
    attributes = dict(attributes)
    domain, outputs = attributes.pop("domain", MICROSOFT), attributes.pop("outputs", ["y"])
    attributes.pop("tolerance", None)
    result = attributes.pop("result", F if arrays[0].dtype == I else arrays[0].dtype)
    names = ["" if array is None else f"x{at}" for at, array in enumerate(arrays)]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, arrays, strict=True)
        if name
    ]
    node = helper.make_node(op, names, outputs, name="node", domain=domain, **attributes)
    results = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(I if name == "lengths" else result)), None
        )
        for name in outputs
        if name
    ]
    graph = helper.make_graph([node], "g", values, results)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("case", CASES)
def test_definitions_are_what_onnx_runtime_computes(tmp_path, case):
    op, arrays, attributes = CASES[case]
    model = _model(op, arrays, attributes)
    onnx.save(model, tmp_path / "net.onnx")
    imported = import_onnx(tmp_path / "net.onnx")
    assert all(node.domain in ("", "ai.onnx") for node in imported.graph.graph)
    found = reference(imported, inputs_of(arrays))
    close(found.values(), expected_of(model, arrays), attributes.get("tolerance", TOLERANCE))


def test_every_definition_has_a_case():
    assert {op for op, _, _ in CASES.values()} == set(DEFINITIONS)


REFUSED = [
    (
        "FusedMatMul",
        [real(2, 3, 4), real(2, 4, 5)],
        {"transBatchA": 1},
        "FusedMatMul `node` transposes batches, which cannot be compiled\nhint: export it without fusions",
    ),
    (
        "FusedGemm",
        [real(3, 8), real(8, 5)],
        {"activation": "Clip"},
        "FusedGemm `node` has the activation `Clip`, which cannot be compiled",
    ),
    ("FusedMatMul", [real(8), real(8, 5)], {"transA": 1}, "FusedMatMul `node` transposes an operand of 1 axes"),
    (
        "SimplifiedLayerNormalization",
        [real(B, S, H), real(S, H)],
        {"axis": 1},
        "SimplifiedLayerNormalization `node` is over the axes from 1 on, and not the last one alone",
    ),
    (
        "SkipSimplifiedLayerNormalization",
        [real(B, S, H), real(B, S, H), real(H)],
        {"outputs": ["y", "mean"]},
        "SkipSimplifiedLayerNormalization `node` gives statistics for training, which cannot be compiled",
    ),
    (
        "RotaryEmbedding",
        [real(B, S, H), np.zeros((B, S), np.int64), *TABLE],
        {"scale": 2.0},
        "RotaryEmbedding `node` has a scale or packed batches, which cannot be compiled",
    ),
    (
        "RotaryEmbedding",
        [real(B, S, 12), np.zeros((B, S), np.int64), *TABLE],
        {},
        "RotaryEmbedding `node` has heads that do not fit: 12 elements, 8 each",
    ),
    (
        "Attention",
        [MASKED, *WEIGHTS],
        {"num_heads": 5},
        "Attention `node` has 72 columns of weights, which do not fit 5 heads",
    ),
    (
        "Attention",
        [MASKED, *WEIGHTS],
        {},
        "Attention `node` does not say how many heads it has: `num_heads` is missing",
    ),
    (
        "Attention",
        [MASKED, *WEIGHTS],
        {"num_heads": N, "do_rotary": 1},
        "Attention `node` has the attribute `do_rotary`, which cannot be compiled",
    ),
    (
        "Attention",
        [MASKED, *WEIGHTS, _mask(B, 1, S, S)],
        {"num_heads": N},
        "Attention `node` has a mask of shape [2, 1, 6, 6], which cannot be compiled\n"
        "hint: a mask of [2, 6] or [2, 6, 6], or lengths [2], can",
    ),
    (
        "Attention",
        [real(B, S), *WEIGHTS],
        {"num_heads": N},
        "Attention `node` has an operand 0 of shape [2, 6], which cannot be compiled",
    ),
    (
        "MultiHeadAttention",
        [real(B, S, N, 3, 8)],
        {"num_heads": N},
        "MultiHeadAttention `node` has its Q, K and V packed in one operand, which cannot be compiled",
    ),
    (
        "MultiHeadAttention",
        [real(B, S, H), *KEYS],
        {"num_heads": N, "outputs": ["y", "", "", "scores"]},
        "MultiHeadAttention `node` has its scores as an output, which cannot be compiled",
    ),
    (
        "MultiHeadAttention",
        [real(B, S, H), real(B, S, 12), real(B, S, 12)],
        {"num_heads": N},
        "MultiHeadAttention `node` has Q, K and V of (24, 12, 12) elements, which do not fit 3 heads",
    ),
    (
        "GroupQueryAttention",
        [real(B, S, 32), real(B, S, 16), real(B, S, 16), real(B, 2, 3, 8), real(B, 2, 3, 8), whole(3, B), whole(3)],
        {"num_heads": 4, "kv_num_heads": 2},
        "GroupQueryAttention `node` has the operand `past_key`, which cannot be compiled",
    ),
    (
        "GroupQueryAttention",
        [real(B, S, 32), real(B, S, 24), real(B, S, 24), None, None, whole(3, B), whole(3)],
        {"num_heads": 4, "kv_num_heads": 3},
        "GroupQueryAttention `node` has 32 elements, which do not fit 4 and 3 heads",
    ),
    (
        "QAttention",
        [*ROWS, real(3 * H), single(0.02), real(5)],
        {"num_heads": N, "result": F},
        "QAttention `node` has scales or zero points that fit no axis of `weight`",
    ),
    *(
        ("DynamicQuantizeLSTM", LSTM[:4] + operands + LSTM[8:], {"hidden_size": 7, **attributes}, message)
        for operands, attributes, message in (
            (
                [np.array([6], I), None, None, None],
                {},
                "DynamicQuantizeLSTM `node` has the operand `sequence_lens`, which cannot be compiled",
            ),
            (
                [None] * 4,
                {"clip": 2.0},
                "DynamicQuantizeLSTM `node` has the attribute `clip`, which cannot be compiled",
            ),
            (
                [None] * 4,
                {"activations": ["Relu", "Tanh", "Tanh"]},
                "DynamicQuantizeLSTM `node` has activations Relu, Tanh, Tanh, which cannot be compiled",
            ),
            (
                [None] * 4,
                {"direction": "bidirectional"},
                "DynamicQuantizeLSTM `node` has weights that do not fit its direction, or each other",
            ),
        )
    ),
    (
        "QEmbedLayerNormalization",
        [whole(30, B, S), None, *TABLES[:2], None, *TABLES[3:], None, real(H), None, None, *STEPS[3:]],
        {"outputs": ["y", "lengths"]},
        "QEmbedLayerNormalization `node` has scales or zero points that fit no axis of `word`",
    ),
]


@pytest.mark.parametrize(("op", "arrays", "attributes", "message"), REFUSED)
def test_forms_without_a_definition_are_refused(tmp_path, op, arrays, attributes, message):
    onnx.save(_model(op, arrays, attributes), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        import_onnx(tmp_path / "net.onnx")
    assert "\nhint: ".join(filter(None, (str(caught.value), caught.value.hint))) == message


def test_operators_on_integers_before_a_definition_give_it_shapes(tmp_path):
    blocks, scales = RANDOM.integers(0, 256, (H, 2, 8)).astype(np.uint8), real(H, 2)
    nodes = [
        helper.make_node(
            "MatMulNBits", ["x0", "blocks", "scales"], ["q"], domain=MICROSOFT, K=32, N=H, bits=4, block_size=16
        ),
        helper.make_node("MultiHeadAttention", ["q", "x1", "x2"], ["y"], domain=MICROSOFT, num_heads=N),
    ]
    arrays = [real(B, S, 32), *(real(B, 5, H) for _ in range(2))]
    model = _model("Identity", arrays, {})
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name, array in (("blocks", blocks), ("scales", scales)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "net.onnx")
    found = reference(import_onnx(tmp_path / "net.onnx"), inputs_of(arrays))
    close(found.values(), expected_of(model, arrays), TOLERANCE)


def test_what_no_operator_before_it_gives_a_shape_is_refused(tmp_path):
    arrays = [real(2, 8, 3), real(2, 8, 5)]
    model = _model("FusedMatMul", arrays, {"transA": 1})
    model.graph.node.insert(0, helper.make_node("Unheard", ["x0"], ["z"], domain=MICROSOFT))
    model.graph.node[1].input[0] = "z"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        import_onnx(tmp_path / "net.onnx")
    assert str(caught.value) == "FusedMatMul `node` has an operand 0 whose shape is not known"


def test_normalization_that_only_onnx_runtime_knows_may_keep_its_weights_in_another_file(tmp_path):
    model = _model("SimplifiedLayerNormalization", [real(B, S, H)], {"domain": ""})
    model.graph.node[0].input.append("scale")
    model.graph.initializer.append(onnx.numpy_helper.from_array(real(H), "scale"))
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, size_threshold=0)
    assert "LayerNormalization" not in {node.op_type for node in import_onnx(tmp_path / "net.onnx").graph.graph}


def _encoder(folder, opset=14):
    """A layer of BERT as ONNX Runtime's optimizer fuses it: shapes behind each of its operators are known to no one."""
    width, inner = 48, 96
    weights = {
        "qkv": real(width, 3 * width) / 7, "qkv_bias": real(3 * width), "out": real(width, width) / 7,
        "gamma": real(width), "beta": real(width), "up": real(width, inner) / 7, "up_bias": real(inner),
        "down": real(inner, width) / 10, "down_bias": real(width),
    }  # fmt: skip

    def microsoft(op, inputs, outputs, **attributes):
        return helper.make_node(op, inputs, outputs, name=outputs[0], domain=MICROSOFT, **attributes)

    nodes = [
        microsoft("Attention", ["x", "qkv", "qkv_bias", "mask"], ["mixed"], num_heads=3),
        helper.make_node("MatMul", ["mixed", "out"], ["projected"]),
        microsoft("SkipLayerNormalization", ["projected", "x", "gamma", "beta"], ["middle"], epsilon=1e-5),
        microsoft("FusedMatMul", ["middle", "up"], ["wide"], alpha=0.5),
        microsoft("BiasGelu", ["wide", "up_bias"], ["bent"]),
        helper.make_node("MatMul", ["bent", "down"], ["narrow"]),
        microsoft("SkipLayerNormalization", ["narrow", "middle", "gamma", "beta", "down_bias"], ["last"]),
        microsoft("Attention", ["last", "qkv", "qkv_bias", "mask"], ["y"], num_heads=3, unidirectional=1),
    ]
    values = [
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (B, 8, width)),
        helper.make_tensor_value_info("mask", onnx.TensorProto.INT32, (B, 8)),
    ]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (B, 8, width))
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", values, [output], constants)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "net.onnx")
    return model, [real(B, 8, width), _mask(B, 8)]


def test_recurrent_layers_on_integers_compile(tmp_path):
    model = _model("DynamicQuantizeLSTM", LSTM, {"hidden_size": 7, "outputs": ["y", "h", "c"]})
    onnx.save(model, tmp_path / "net.onnx")
    found = compile_net(tmp_path / "net.onnx", tmp_path).run(inputs_of(LSTM))
    close(found.values(), expected_of(model, LSTM), TOLERANCE)


def test_a_fused_transformer_reaches_the_fused_kernels(tmp_path):
    model, arrays = _encoder(tmp_path)
    inputs = dict(zip(("x", "mask"), arrays, strict=True))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    compiled = compile_net(tmp_path / "net.onnx", tmp_path)
    close(compiled.run(inputs).values(), session.run(None, inputs), TOLERANCE)
    origins = [origin.split()[0] for origin in compiled.kernels.schedules.values()]
    assert origins.count("attention") == 2
    assert origins.count("layer_norm") == 2


def test_opsets_are_raised_for_definitions(tmp_path):
    _encoder(tmp_path, opset=12)
    assert import_onnx(tmp_path / "net.onnx").graph.opset_imports[""] == 17
