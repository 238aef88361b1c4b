"""Which weights go by optimal brain surgeon, and that those left are the best there are."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from nncc.compress import surgeon
from nncc.compress.surgeon import RANKS, Block, Problem, fitted, keep_blocks, keep_weights


def problem(inputs=12, outputs=6, bias=True, seed=0, hidden=None):
    """Inputs that depend on each other: mixtures of `hidden` sources and some noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (400, hidden or inputs)) @ rng.normal(0, 1, (hidden or inputs, inputs))
    x += 0.1 * rng.normal(0, 1, x.shape)
    if bias:
        x = np.concatenate([x, np.ones((400, 1))], axis=1)
    return Problem(x.T @ x, rng.normal(0, 1, (x.shape[1], outputs)), inputs)


def loss(given, matrix):
    rest = matrix - given.best
    return float(np.einsum("ij,ik,kj->", rest, given.hessian, rest))


@pytest.mark.parametrize("bias", [True, False])
def test_what_is_left_is_fitted_exactly(bias):
    """Where weights are free, the slope of the loss is zero, to float64 through a system of condition 1e6."""
    given = problem(bias=bias)
    mask = np.random.default_rng(1).random((12, 6)) < 0.5
    found = fitted(given, mask)
    assert (found[:12][~mask] == 0).all()
    slope = given.hessian @ (found - given.best)
    free = np.concatenate([mask, np.ones((len(slope) - 12, 6), bool)])
    assert np.abs(slope[free]).max() < 1e-8 * np.abs(given.hessian @ given.best).max()


def test_where_it_takes_too_long_steps_come_near(monkeypatch):
    given = problem(inputs=40, outputs=16)
    mask = np.random.default_rng(1).random((40, 16)) < 0.5
    exact = fitted(given, mask)
    plain = np.where(np.concatenate([mask, np.ones((1, 16), bool)]), given.best, 0)
    monkeypatch.setattr(surgeon, "_MOST_OPERATIONS", 0)
    near = fitted(given, mask)
    assert (near[:40][~mask] == 0).all()
    assert loss(given, exact) <= loss(given, near) < 0.9 * loss(given, exact) + 0.1 * loss(given, plain)


@pytest.mark.parametrize("stay", [4, 2])
def test_blocks_go_of_which_those_left_make_up_for(stay):
    """If one of five blocks goes, it is the one without which least is lost; if three do, the choice of the greedy
    search is among the best three of ten."""
    given = problem(inputs=20, outputs=4, hidden=12)
    found = loss(given, fitted(given, keep_blocks(given, Block(4, 4), 1, stay)))
    losses = []
    for left in combinations(range(5), stay):
        other = np.zeros((20, 4), bool)
        for block in left:
            other[4 * block : 4 * block + 4] = True
        losses.append(loss(given, fitted(given, other)))
    assert found <= sorted(losses)[0 if stay == 4 else 2] * (1 + 1e-9)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("operations", [surgeon._MOST_OPERATIONS, 0])
def test_each_row_of_blocks_keeps_as_many(rank, operations, monkeypatch):
    """10 channels are three blocks of 4, of which one is short, and 20 outputs two rows of blocks of 16; a window of 3
    makes nine blocks of a row."""
    monkeypatch.setattr(surgeon, "_MOST_OPERATIONS", operations)
    given, block = problem(inputs=30, outputs=20), Block(16, 4)
    assert block.count(30, 3) == 9
    mask = keep_blocks(given, block, 3, 4, rank)
    assert mask.shape == (30, 20)
    kernel = np.pad(mask.T.reshape(20, 10, 3), ((0, 12), (0, 2), (0, 0))).reshape(2, 16, 3, 4, 3)
    some, every = kernel.any(axis=(1, 3)), kernel[:, :4].all(axis=(1, 3))
    assert (some.sum(axis=(1, 2)) == 4).all()
    assert (some[:, :2] == every[:, :2]).all(), "a block stays or goes as a whole"


def test_a_block_that_follows_from_others_goes_first():
    """Inputs 4 to 7 are twice inputs 0 to 3 and have the largest weights: one of both blocks goes."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (200, 12))
    x[:, 4:8] = 2 * x[:, :4]
    best = rng.normal(0, 1, (12, 16))
    best[:8] *= 10
    given = Problem(x.T @ x + 1e-6 * np.eye(12), best, 12)
    mask = keep_blocks(given, Block(16, 4), 1, 2)
    assert mask[8:].all() and mask[:4].all() != mask[4:8].all()
    assert loss(given, fitted(given, mask)) < 1e-6 * loss(given, 0 * best)
    assert not keep_blocks(given, Block(16, 4), 1, 2, "magnitude")[8:].any()


@pytest.mark.parametrize("rank", RANKS)
def test_so_many_single_weights_stay(rank):
    mask = keep_weights(problem(inputs=300, outputs=8), 0.3, rank)
    assert mask.mean() == pytest.approx(0.3, abs=0.01)


def test_single_weights_of_which_others_make_up_for_go():
    """Where inputs depend on each other, a quarter less is lost than by the smallest weights, once both are fitted."""
    given = problem(inputs=160, outputs=16, hidden=60)
    losses = {rank: loss(given, fitted(given, keep_weights(given, 0.4, rank))) for rank in RANKS}
    assert losses["reconstruction"] < 0.75 * losses["magnitude"]
