"""Layers in front of Relu or Clip are fitted to what passes it."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from nncc.compress.rectified import bounds_behind, fitted_within, ridge

CASES = {"relu": (0.0, np.inf), "clip": (0.0, 2.0), "from above": (-np.inf, 1.0)}


def problem(bounds, outputs=5, channels=()):
    """Inputs, weights that give the wanted outputs exactly within the bounds, and outputs far beyond them elsewhere."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((*channels, 400, 6))
    truth = rng.standard_normal((*channels, 6, outputs))
    sums = inputs @ truth
    far = np.abs(rng.standard_normal(sums.shape)) * 10
    return (
        inputs,
        truth,
        np.where(sums <= bounds[0], bounds[0] - far, np.where(sums >= bounds[1], bounds[1] + far, sums)),
    )


def plain(inputs, wanted, start, damping):
    turned = np.swapaxes(inputs, -1, -2)
    return np.linalg.solve(ridge(turned @ inputs, 6, damping), turned @ (wanted - inputs @ start))


def error(inputs, wanted, weights, bounds):
    return np.square(np.clip(inputs @ weights, *bounds) - np.clip(wanted, *bounds)).mean()


@pytest.mark.parametrize("channels", [(), (3,)], ids=["one matrix", "one a channel"])
@pytest.mark.parametrize("bounds", CASES.values(), ids=CASES)
def test_what_passes_is_met_however_far_beyond_the_bounds_the_rest_lies(bounds, channels):
    """After 20 steps, a fiftieth of the error of plain least squares is left, also where a third of all sums pass."""
    inputs, truth, wanted = problem(bounds, 1 if channels else 5, channels)
    start = np.zeros_like(truth)
    before = plain(inputs, wanted, start, 1e-9)
    after = fitted_within(inputs, wanted, start, before, 1e-9, bounds, 6)
    assert error(inputs, wanted, after, bounds) < 0.02 * error(inputs, wanted, before, bounds)


def test_without_bounds_it_is_least_squares():
    bounds = (-np.inf, np.inf)
    inputs, truth, wanted = problem(bounds)
    wanted = wanted + np.random.default_rng(1).standard_normal(wanted.shape)
    start = truth + 1
    before = plain(inputs, wanted, start, 0.1)
    assert np.allclose(fitted_within(inputs, wanted, start, before, 0.1, bounds, 6), before, atol=1e-10)


def test_damping_keeps_weights_near_those_there_were():
    inputs, truth, wanted = problem(CASES["relu"])
    start = truth + np.random.default_rng(1).standard_normal(truth.shape)
    sizes = []
    for damping in (1e-3, 1.0, 1e3):
        change = plain(inputs, wanted, start, damping)
        sizes.append(np.abs(fitted_within(inputs, wanted, start, change, damping, CASES["relu"], 6)).mean())
    assert sizes[0] > sizes[1] > 30 * sizes[2]


def test_the_bias_is_hardly_damped():
    gram = np.diag([1.0, 3.0, 5.0])
    assert np.allclose(np.diag(ridge(gram, 2, 0.5)), [2.0, 4.0, 5.0])
    assert np.array_equal(np.diag(gram), [1.0, 3.0, 5.0]), "a copy"


def layer(text, *, outputs="y"):
    """The node that makes `a` in a graph from `x`."""
    model = onnx_ir.from_onnx_text(
        f'<ir_version: 9, opset_import: ["": 17]> g (float[4] x) => (float[4] {outputs}) {text}'
    )
    return next(node for node in model.graph if node.outputs[0].name == "a")


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("{ a = Neg(x) y = Relu(a) }", (0.0, np.inf)),
        ("<float l = {0.0}, float h = {6.0}> { a = Neg(x) y = Clip(a, l, h) }", (0.0, 6.0)),
        ("<float h = {6.0}> { a = Neg(x) y = Clip(a, , h) }", (-np.inf, 6.0)),
        ("{ a = Neg(x) h = ReduceMax<keepdims = 0>(x) y = Clip(a, , h) }", None),
        ("{ a = Neg(x) b = Relu(a) y = Add(a, b) }", None),
        ("{ a = Neg(x) y = Sigmoid(a) }", None),
    ],
    ids=["Relu", "Clip", "Clip from above", "a bound that is computed", "two readers", "another operator"],
)
def test_bounds_are_those_of_the_only_reader(text, bounds):
    assert bounds_behind(layer(text)) == bounds


def test_an_output_of_the_graph_has_no_bounds():
    assert bounds_behind(layer("{ a = Neg(x) y = Relu(a) }", outputs="a, float[4] y")) is None
