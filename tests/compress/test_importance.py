"""What ranks channels."""

from __future__ import annotations

import numpy as np
import pytest
from compress_models import Net, analyzed

from nncc.compress.grams import Grams
from nncc.compress.importance import IMPORTANCE, Evidence


def evidence(net, outputs):
    graph = net.model(outputs)
    found = analyzed(graph)
    rng = np.random.default_rng(0)
    data = [{"x": rng.normal(0, 1, (1, 3, 4, 4)).astype(np.float32)} for _ in range(16)]
    return Evidence(graph, found, data, Grams(graph, found, data)), found.axes["conv0_out"][1]


@pytest.mark.parametrize("way", IMPORTANCE)
def test_a_channel_with_small_weights_is_the_least(way):
    net = Net()
    a = net.conv("x", 3, 6)
    y = net.conv(a, 6, 2)
    net.constants["w0"][2] *= 0.01
    net.constants["w1"][:, 2] *= 0.01
    given, units = evidence(net, [y])
    assert IMPORTANCE[way](given)[units].argmin() == 2


def test_activation_sees_that_a_channel_hardly_changes():
    """Channel 1 is large and constant: what it adds can be in a bias. By its weights it matters."""
    net = Net()
    y = net.conv(net.conv("x", 3, 4), 4, 2)
    net.constants["w0"][1] = 0.001
    net.constants["b0"][1] = 50
    net.constants["w1"][:, 1] = 9
    given, units = evidence(net, [y])
    assert IMPORTANCE["activation"](given)[units].argmin() == 1
    assert IMPORTANCE["magnitude"](given)[units].argmin() != 1


def test_reconstruction_sees_that_a_channel_follows_from_others():
    """Channel 3 is twice channel 0: one of both goes first, though channel 3 is the largest."""
    net = Net()
    y = net.conv(net.conv("x", 3, 3), 3, 4)
    net.constants["w0"] = np.array([[1, 2, 0], [2, -1, 1], [0, 1, 2]], np.float32).reshape(3, 3, 1, 1)
    for name in ("w0", "b0"):
        net.constants[name] = np.concatenate([net.constants[name], 2 * net.constants[name][:1]])
    net.constants["w1"] = np.concatenate([10 * net.constants["w1"], 9 * net.constants["w1"][:, :1]], axis=1)
    given, units = evidence(net, [y])
    assert IMPORTANCE["reconstruction"](given)[units].argmin() in (0, 3)
    assert IMPORTANCE["activation"](given)[units].argmax() == 3


def test_taylor_is_what_the_outputs_change_to_first_order():
    """Of a linear model first order is all: each channel's importance is the change of the outputs without it, but for
    its mean, in root mean square relative to their norm. Four random projections for each of 16 samples estimate it."""
    net = Net()
    y = net.conv(net.conv("x", 3, 6), 6, 5)
    given, units = evidence(net, [y])
    found = IMPORTANCE["taylor"](given)[units]
    w0, b0, w1, b1 = (net.constants[name].astype(float) for name in ("w0", "b0", "w1", "b1"))
    hidden = [np.einsum("oc,nchw->ohw", w0[:, :, 0, 0], s["x"]) + b0[:, None, None] for s in given.samples]
    mean = np.mean([h.mean(axis=(1, 2)) for h in hidden], axis=0)
    squares = []
    for h in hidden:
        whole = np.square(np.einsum("oc,chw->ohw", w1[:, :, 0, 0], h) + b1[:, None, None]).sum()
        squares.append(
            np.square(h - mean[:, None, None]).sum(axis=(1, 2)) * np.square(w1[:, :, 0, 0]).sum(axis=0) / whole
        )
    np.testing.assert_allclose(found, np.sqrt(np.mean(squares, axis=0)), rtol=0.4)


def test_taylor_ranks_by_activation_where_no_gradient_is_known():
    net = Net()
    y = net.conv(net.op("Abs", net.conv("x", 3, 6)), 6, 2)
    given, units = evidence(net, [y])
    np.testing.assert_array_equal(IMPORTANCE["taylor"](given)[units], IMPORTANCE["activation"](given)[units])
