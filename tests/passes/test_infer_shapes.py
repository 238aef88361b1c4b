"""Shapes are inferred with what vectors contain, and without where these are too long."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from nncc.passes.infer_shapes import infer_shapes
from nncc.passes.rewriting import static_shape


@pytest.mark.parametrize(("doublings", "known"), [(3, True), (36, False)])
def test_contents_of_vectors_that_may_be_long_are_no_sizes_though_their_length_is_not_known(doublings, known):
    """onnx makes a dimension of each element of a vector that it learns the length of as it goes: of 2^36, for ever."""
    body = "s = Shape (x) e = Slice (s, zero, one) c0 = Slice (w, zero, e) "
    body += " ".join(f"c{n + 1} = Concat <axis: int = 0> (c{n}, c{n})" for n in range(doublings))
    body += f" z = ConstantOfShape (c{doublings}) y = Size (z)"
    text = f'<ir_version: 8, opset_import: ["" : 17]> g (float[1,3] x) => (int64 y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for name, values in {"w": [1] * 8, "zero": [0], "one": [1]}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), name))
    graph = onnx_ir.from_proto(model)
    infer_shapes(graph)
    (made,) = (node for node in graph.graph if node.op_type == "ConstantOfShape")
    assert static_shape(made.outputs[0]) == ((1,) * 2**doublings if known else None)


@pytest.mark.parametrize("operator", ["Cast <to: int = 1> (v)", "Mul (v, v)", "Size (v)"])
def test_vectors_of_floats_are_as_long_as_others_for_onnx(monkeypatch, operator):
    """It would make 2^33 dimensions of one that it never asks for the contents of."""
    passes = []
    original = ShapeInferencePass.call
    monkeypatch.setattr(
        ShapeInferencePass, "call", lambda self, model: (passes.append(self.data_prop), original(self, model))[1]
    )
    text = (
        '<ir_version: 8, opset_import: ["" : 17]> g (float[8589934592] v, float[N] x) => (float[N] y) '
        f"{{ w = {operator} f = Cast <to: int = 1> (w) s = ReduceSum <keepdims: int = 0> (f) y = Add (x, s) }}"
    )
    infer_shapes(onnx_ir.from_proto(onnx.parser.parse_model(text)))
    assert passes == [False]
