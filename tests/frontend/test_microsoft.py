"""Operators of com.microsoft compute what ONNX Runtime, which they are made for, computes."""

from __future__ import annotations

import onnx
import pytest
from compiled import ROUNDING, agrees
from onnx import TensorProto, helper

from nncc.errors import ModelError
from nncc.frontend.microsoft import DEFINITIONS, MICROSOFT
from nncc.frontend.onnx import import_onnx

CASES = {
    "Gelu": ("Gelu", [(2, 8)], {}),
    "QuickGelu": ("QuickGelu", [(2, 8)], {"alpha": 1.5}),
    "FusedMatMul": ("FusedMatMul", [(2, 8, 3), (2, 5, 8)], {"transA": 1, "transB": 1, "alpha": 0.5}),
    "FusedMatMul of matrices": ("FusedMatMul", [(3, 8), (8, 5)], {}),
    "FusedConv": ("FusedConv", [(1, 3, 8, 8), (4, 3, 3, 3), (4,)], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    "FusedConv with a sum": (
        "FusedConv",
        [(1, 3, 8, 8), (4, 3, 3, 3), (4,), (1, 4, 6, 6)],
        {"activation": "LeakyRelu", "activation_params": [0.2]},
    ),
    "FusedGemm": ("FusedGemm", [(3, 8), (5, 8), (5,)], {"transB": 1, "activation": "Tanh"}),
}


def _model(op, shapes, attributes):
    values = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    node = helper.make_node(op, [v.name for v in values], ["y"], name="node", domain=MICROSOFT, **attributes)
    output = onnx.ValueInfoProto()
    output.name = "y"
    output.type.tensor_type.elem_type = TensorProto.FLOAT
    graph = helper.make_graph([node], "g", values, [output])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("case", CASES)
def test_they_agree(tmp_path, case):
    op, shapes, attributes = CASES[case]
    agrees(_model(op, shapes, attributes), tmp_path, tolerance=10 * ROUNDING)


def test_every_definition_has_a_case():
    assert {op for op, _, _ in CASES.values()} == set(DEFINITIONS)


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "message"),
    [
        (
            "FusedMatMul",
            [(2, 3, 4), (2, 4, 5)],
            {"transBatchA": 1},
            "FusedMatMul `node` transposes batches, which cannot be compiled",
        ),
        (
            "FusedGemm",
            [(3, 8), (8, 5)],
            {"activation": "Clip"},
            "FusedGemm `node` has the activation `Clip`, which cannot be compiled",
        ),
        (
            "FusedMatMul",
            [(8,), (8, 5)],
            {"transA": 1},
            "FusedMatMul `node` transposes an operand whose rank is not known, or less than 2",
        ),
    ],
)
def test_forms_without_a_definition_are_refused(tmp_path, op, shapes, attributes, message):
    onnx.save(_model(op, shapes, attributes), tmp_path / "net.onnx")
    with pytest.raises(ModelError) as caught:
        import_onnx(tmp_path / "net.onnx")
    assert str(caught.value) == message
