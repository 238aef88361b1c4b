"""Softmax and layer normalization row by row, at rows and lengths that no tile divides."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees
from test_schedules import TARGETS

from nncc.kernels.rows import row_tiles

# Rows, length: one row, primes, lengths that no vector divides, and a vocabulary's.
SIZES = [
    ((1,), 1), ((1,), 5), ((3,), 17), ((197,), 3), ((3, 5), 197), ((2, 3, 4), 128), ((2, 6), 40), ((3,), 18710),
    ((1, 1), 2), ((7, 1), 64),
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_rows_of_any_length(tmp_path, target):
    net = Net()
    for number, (batch, length) in enumerate(SIZES):
        x = net.op("Mul", net.input(*batch, length), net.constant(np.float32(5)))
        softmax = net.op("Softmax", x, axis=-1)
        normalized = net.op("LayerNormalization", x, net.weight(length, scale=1.0), net.weight(length, scale=1.0))
        if number % 2:
            softmax, normalized = (net.op("Add", y, net.input(*batch, length)) for y in (softmax, normalized))
        net.output(softmax, normalized)
    compiled = agrees(net, tmp_path, target)
    origins = list(compiled.kernels.schedules.values())
    for name in ("softmax", "layer_norm"):
        assert sum(origin.startswith(name) for origin in origins) == len(SIZES)
    assert not [origin for origin in origins if "(plain" in origin]


def test_softmax_of_older_models_is_not_reshaped(tmp_path):
    """Before opset 13 a softmax is over all axes from its own on; only over the last alone it goes by rows as it is."""
    net = Net(opset=11)
    x = net.input(2, 3, 4, 17)
    net.output(net.op("Relu", net.op("Softmax", x, axis=3)), net.op("Softmax", x, axis=2), net.op("Softmax", x, axis=1))
    compiled = agrees(net, tmp_path)
    origins = compiled.kernels.schedules
    assert sum(origin.startswith("softmax") for origin in origins.values()) == 3
    assert "fused_softmax_relu" in origins


@pytest.mark.parametrize("length", [5, 40, 197])
def test_masked_rows_and_those_that_are_no_numbers(tmp_path, length):
    """-inf takes part with exactly 0; a row of nothing else, or with NaN or inf, is NaN all over."""
    rows = np.random.default_rng(0).standard_normal((8, length)).astype(np.float32)
    rows[0, 1:] = rows[1, :-1] = rows[2] = -np.inf
    rows[3, 2] = np.nan
    rows[4, 0] = np.inf
    rows[5] = -1e9
    rows[6, ::2] -= 1e9
    rows[7] = 3e38
    net = Net()
    net.output(net.op("Softmax", net.input(8, length, name="x"), axis=-1))
    compiled = agrees(net, tmp_path, inputs={"x": rows})
    (y,) = compiled.run({"x": rows}).values()
    assert y[0, 0] == 1 and not y[0, 1:].any() and not y[1, :-1].any() and not y[6, ::2].any()
    assert np.isnan(y[2:5]).all()


def test_a_large_mean_leaves_the_variance_its_digits(tmp_path):
    """Of values near 1000 within 1, a float32 holds 14 bits of what differs; a difference of sums would hold none."""
    rows = (1000 + np.random.default_rng(0).uniform(-1, 1, (5, 1023))).astype(np.float32)
    net = Net()
    ones, zeros = net.constant(np.ones(1023, np.float32)), net.constant(np.zeros(1023, np.float32))
    net.output(net.op("LayerNormalization", net.input(5, 1023, name="x"), ones, zeros))
    wide = rows.astype(np.float64)
    exact = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    (y,) = agrees(net, tmp_path, tolerance=1e-3).run({"x": rows}).values()
    assert np.abs(y - exact).max() < 1e-3


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 15, 16, 17, 64, 65, 197, 18710])
def test_tiles_cover_a_row_without_leaving_it(length, lanes):
    tiles = row_tiles(length, lanes)
    starts = [tiles.start(step) for step in range(tiles.steps)]
    covered = {start + i for start in starts for i in range(tiles.width)}
    assert covered == set(range(length))
    assert tiles.again == 0 or starts[-1] + tiles.again == starts[-2] + tiles.width
