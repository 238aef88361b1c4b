"""Refitted weights are those that serve best; statistics give them without another run."""

from __future__ import annotations

import numpy as np
import pytest
from compress_models import Net, analyzed, outputs, without

from nncc.compress.cut import cut
from nncc.compress.grams import Grams, refit_readers
from nncc.compress.patches import patches
from nncc.compress.refit import refit
from nncc.passes.rewriting import constant


def samples(count=12, shape=(1, 3, 4, 4)):
    rng = np.random.default_rng(3)
    return [{"x": rng.normal(0, 1, shape).astype(np.float32)} for _ in range(count)]


def redundant(last):
    """Channel 5 of 6 is the sum of channels 0 and 1, so that `last` can do without it."""
    net = Net()
    a = net.conv("x", 3, 6, 1)
    for name in ("w0", "b0"):
        net.constants[name][5] = net.constants[name][0] + net.constants[name][1]
    return net.model([last(net, a)])


LAYERS = {
    "conv 3x3, strided": lambda net, a: net.conv(a, 6, 2, 3, strides=[2, 2]),
    "conv 1x1, no bias": lambda net, a: net.conv(a, 6, 2, bias=False),
    "gemm": lambda net, a: net.gemm(net.op("Flatten", a), 96, 2, transB=1),
    "matmul": lambda net, a: net.op("MatMul", net.op("Transpose", a, perm=[0, 2, 3, 1]), net.whole("m", 6, 2)),
}


@pytest.mark.parametrize("last", LAYERS)
def test_a_channel_that_follows_from_others_is_not_missed(last):
    graph = redundant(LAYERS[last])
    found, data = analyzed(graph), samples(64)
    keep = without(found, conv0=1)
    small = cut(graph, found, keep)
    fitted = refit(graph, small, found, keep, data, damping=1e-7)
    whole = outputs(graph, data[0])[0]
    # float32 sums of some ten numbers of size 10, through a system of condition 1e4
    np.testing.assert_allclose(outputs(fitted, data[0])[0], whole, atol=2e-3 * np.abs(whole).max())
    assert np.abs(outputs(small, data[0])[0] - whole).max() > 0.1 * np.abs(whole).max()


def test_a_product_whose_rank_is_not_known_is_fitted_too():
    graph = redundant(LAYERS["matmul"])
    found, data = analyzed(graph), samples(64)
    keep = without(found, conv0=1)
    small = cut(graph, found, keep)
    for node in small.graph:
        node.outputs[0].shape = None
    fitted = refit(graph, small, found, keep, data)
    assert (constant(fitted.graph.initializers["m"]) != constant(small.graph.initializers["m"])).any()


def test_a_depthwise_convolution_is_fitted_channel_by_channel():
    """Its input comes short by half: its weights double."""
    net = Net()
    a = net.conv("x", 3, 4, bias=False)
    graph = net.model([net.conv(net.conv(a, 4, 4, 3, group=4), 4, 2)])
    found = analyzed(graph)
    keep = without(found, conv0=1)
    small = cut(graph, found, keep)
    halves = small.graph.initializers["w0"]
    halved = constant(halves) / 2
    import onnx_ir

    halves.const_value = onnx_ir.tensor(halved, name="w0")
    fitted = refit(graph, small, found, keep, samples(64), damping=1e-7)
    np.testing.assert_allclose(
        constant(fitted.graph.initializers["w1"]), 2 * constant(small.graph.initializers["w1"]), rtol=1e-3
    )


def test_in_front_of_relu_only_what_passes_is_fitted(monkeypatch):
    """Plain least squares spends its freedom on sums that Relu cuts off."""
    net = Net()
    a = net.op("Relu", net.conv("x", 3, 12))
    graph = net.model([net.op("Relu", net.conv(a, 12, 8))])
    found, data = analyzed(graph), samples(64)
    keep = without(found, conv0=4)

    def error():
        fitted = refit(graph, cut(graph, found, keep), found, keep, data)
        return np.mean([np.square(outputs(fitted, each)[0] - outputs(graph, each)[0]).mean() for each in data])

    within = error()
    monkeypatch.setattr("nncc.compress.refit.bounds_behind", lambda node: None)
    assert within < 0.9 * error()


def test_statistics_give_what_a_refit_gives_where_nothing_else_was_cut():
    graph = redundant(LAYERS["conv 3x3, strided"])
    found, data = analyzed(graph), samples(64)
    keep = without(found, conv0=2)
    by_run = refit(graph, cut(graph, found, keep), found, keep, data, damping=1e-2)
    by_gram = cut(graph, found, keep)
    grams = Grams(graph, found, data)
    refit_readers(by_gram, grams.of(found.prunable()[0]), keep)
    error = [np.abs(outputs(each, data[0])[0] - outputs(graph, data[0])[0]).max() for each in (by_run, by_gram)]
    plain = np.abs(outputs(cut(graph, found, keep), data[0])[0] - outputs(graph, data[0])[0]).max()
    assert max(error) < 0.5 * plain


def test_layers_before_the_first_cut_stay_as_they_are():
    net = Net()
    a = net.conv(net.op("Relu", net.conv("x", 3, 4)), 4, 6)
    graph = net.model([net.conv(net.op("Relu", a), 6, 2)])
    found = analyzed(graph)
    keep = without(found, conv2=2)
    fitted = refit(graph, cut(graph, found, keep), found, keep, samples())
    np.testing.assert_array_equal(constant(fitted.graph.initializers["w0"]), net.constants["w0"])
    np.testing.assert_array_equal(constant(fitted.graph.initializers["w2"]), net.constants["w2"][:4])
    assert (constant(fitted.graph.initializers["w4"]) != net.constants["w4"][:, :4]).any()


@pytest.mark.parametrize("group", [1, 4])
def test_patches_are_what_a_convolution_sums_up(group):
    net = Net()
    y = net.op("Conv", "x", net.whole("w", 4, 4 // group, 3, 2), pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2],
               group=group)  # fmt: skip
    graph = net.model([y], x=("N", 4, 6, 5))
    x = np.random.default_rng(0).integers(-2, 3, (2, 4, 6, 5)).astype(np.float32)
    expected = outputs(graph, {"x": x})[0]
    rows = patches(next(iter(graph.graph)), x)
    w = net.constants["w"]
    found = rows @ w.reshape(4, -1).T if group == 1 else np.einsum("cpk,ck->pc", rows, w.reshape(4, -1))
    np.testing.assert_array_equal(found.reshape(*expected.transpose(0, 2, 3, 1).shape), expected.transpose(0, 2, 3, 1))
