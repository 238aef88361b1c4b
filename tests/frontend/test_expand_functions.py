"""Operators that ONNX defines by others are compiled by their definition, where there is nothing better."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from compiled import ROUNDING, Net, agrees, compile_net
from onnx import TensorProto, helper

from nncc.frontend.expand_functions import COMPILED, _unchanged
from nncc.frontend.onnx import import_onnx


def operators(model):
    return [node.op_type for node in model.graph.graph]


def _net(opset, build):
    net = Net(opset)
    net.output(build(net))
    return net


def _group_normalized(net):
    return net.op("GroupNormalization", net.input(2, 6, 5), net.weight(6), net.weight(6), num_groups=3)


def test_layer_normalization_stays_whole_unless_its_mean_is_asked_for(tmp_path):
    def net(outputs):
        net = Net(17)
        results = net.op("LayerNormalization", net.input(2, 8), net.weight(8), outputs=outputs)
        net.output(*((results,) if outputs == 1 else results))
        return import_onnx(net.save(tmp_path / "net.onnx"))

    assert operators(net(1)) == ["LayerNormalization"]
    assert "LayerNormalization" not in operators(net(2))


@pytest.mark.parametrize(
    ("opset", "build"),
    {
        "layer normalization with mean": (
            17,
            lambda n: n.op("LayerNormalization", n.input(2, 8), n.weight(8), outputs=3)[1],
        ),
        "mean variance normalization": (13, lambda n: n.op("MeanVarianceNormalization", n.input(1, 3, 4, 4))),
        "celu": (12, lambda n: n.op("Celu", n.input(3, 4), alpha=0.7)),
        "negative log likelihood": (
            13,
            lambda n: n.op("NegativeLogLikelihoodLoss", n.input(3, 5), n.constant([1, 0, 4]), reduction="sum"),
        ),
    }.values(),
)
def test_definitions_compute_what_onnx_runtime_computes(tmp_path, opset, build):
    agrees(_net(opset, build), tmp_path, tolerance=10 * ROUNDING)


@pytest.mark.parametrize(
    ("opset", "build"),
    {
        "celu": (18, lambda n: n.op("Celu", n.input(3, 4), alpha=0.7)),
        "group normalization": (
            23,
            _group_normalized,
        ),
        "group normalization of what another makes": (
            22,
            lambda n: n.op("GroupNormalization", _group_normalized(n), n.weight(6), n.weight(6), num_groups=2),
        ),
        "rms normalization": (24, lambda n: n.op("RMSNormalization", n.input(2, 3, 8), n.weight(8))),
        "rotary embedding": (
            24,
            lambda n: n.op("RotaryEmbedding", n.input(1, 2, 3, 8), n.weight(1, 3, 4), n.weight(1, 3, 4)),
        ),
        "softmax cross entropy": (
            17,
            lambda n: n.op("SoftmaxCrossEntropyLoss", n.input(3, 5), n.constant([1, 0, 4]), reduction="sum"),
        ),
    }.values(),
)
def test_definitions_of_older_opsets_hold_where_newer_ones_only_take_more_types(tmp_path, opset, build):
    agrees(_net(opset, build), tmp_path, tolerance=10 * ROUNDING)


def test_a_definition_is_not_used_where_an_operator_in_it_says_something_else():
    reduce = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])
    softmax = helper.make_node("Softmax", ["x"], ["y"])
    assert _unchanged(reduce, 13, 17) and not _unchanged(reduce, 17, 18), "axes became an operand"
    assert _unchanged(softmax, 13, 24) and not _unchanged(softmax, 12, 13), "its default axis became the last"
    assert not _unchanged(helper.make_node("Upsample", ["x", "s"], ["y"]), 9, 10), "it was withdrawn"


def test_names_of_definitions_do_not_clash(tmp_path):
    def build(net):
        x = net.input(2, 4)
        return net.op("Add", net.op("Celu", net.op("Celu", x)), net.op("Celu", x, alpha=2.0))

    agrees(_net(12, build), tmp_path)


def test_what_is_compiled_whole_has_a_definition():
    """The table has no name that is misspelled, and none that is needless."""
    schemas = onnx.defs.get_all_schemas_with_history()
    defined = {s.name for s in schemas if s.has_function or s.has_context_dependent_function}
    assert defined >= COMPILED


def test_a_definition_is_that_of_the_model_s_opset(tmp_path):
    """GroupNormalization 18 had a scale for each group, 21 has one for each channel; both have two definitions."""
    size = 4
    rng = np.random.default_rng(0)
    x, scale, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 4, 3), (size,), (size,)))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 4, 3)), ("s", (size,)), ("b", (size,)), ("y", (1, 4, 3)))
    ]
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    model = helper.make_model(
        helper.make_graph([node], "g", values[:3], values[3:]),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=9,
    )
    compiled = compile_net(model, tmp_path)
    groups = x.reshape(2, 6)
    normal = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-5)
    expected = normal.reshape(4, 3) * np.repeat(scale, 4 // size)[:, None] + np.repeat(bias, 4 // size)[:, None]
    found = compiled.run({"x": x, "s": scale, "b": bias})["y"]
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-5)
