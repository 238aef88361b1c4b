"""The prepared graph computes the same: opsets are raised, float16 widened, names made unique."""

from __future__ import annotations

import numpy as np
import onnx_ir
from small_models import ops, parse, quantized, small_cnn, weights

from nncc.quant.execution import run
from nncc.quant.quantize import prepare


def test_a_batch_norm_folds_with_an_open_batch():
    graph = small_cnn()
    x = {"x": np.random.default_rng(0).normal(0, 1, (3, 3, 9, 10)).astype(np.float32)}
    ((before,),) = run(graph, ["y"], [x])
    ((after,),) = run(prepare(graph), ["y"], [x])
    # Folding rounds each weight once more, 2^-24 of it.
    assert np.allclose(before, after, rtol=1e-4, atol=1e-5)
    assert "BatchNormalization" in ops(graph) and "BatchNormalization" not in ops(prepare(graph))


def test_an_old_opset_is_raised():
    graph = parse(
        "g (float[1,4,6,6] x) => (float[1,3] y) { c = Conv (x, A) y = ReduceMean <axes = [2,3], keepdims = 0> (c) }",
        {"A": weights(3, 4, 1, 1)},
        opset=11,
    )
    assert prepare(graph).opset_imports[""] == 17
    assert graph.opset_imports[""] == 11


def test_a_float16_model_is_quantized_and_keeps_the_types_of_its_interface():
    graph = parse(
        "g (float16[1,4,6,6] x) => (float16[1,3,6,6] y) { c = Conv (x, A) y = Relu (c) }",
        {"A": weights(3, 4, 1, 1).astype(np.float16)},
    )
    x = {"x": weights(1, 4, 6, 6).astype(np.float16)}
    _, result, _ = quantized(graph, [x])
    assert [v.dtype for v in (*result.graph.inputs, *result.graph.outputs)] == [onnx_ir.DataType.FLOAT16] * 2
    ((before,),), ((after,),) = run(graph, ["y"], [x]), run(result, ["y"], [x])
    # Eight bits for the input and the weights, 1/255 and 1/127 of their range at most; four products a sum.
    assert np.abs(before.astype(float) - after).max() < 0.02 * np.abs(before).max()


def test_every_node_gets_a_name_of_its_own():
    graph = parse(
        "g (float[1,4] x) => (float[1,4] y) { a = Relu (x) b = MatMul (a, A) y = Relu (b) }", {"A": weights(4, 4)}
    )
    for node in graph.graph:
        node.name = "same"
    assert [node.name for node in prepare(graph).graph] == ["same", "same_1", "same_2"]
