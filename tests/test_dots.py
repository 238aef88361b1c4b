"""How weights are laid out for integer products: each layout can be undone, and says where a value is."""

from __future__ import annotations

import numpy as np
import pytest

from nncc.kernels.dots import DOTS, dot_of
from nncc.scheduling import register_tiles
from nncc.target import available, resolve


@pytest.mark.parametrize("name", DOTS)
def test_a_word_has_each_value_of_each_lane_once(name):
    dot, lanes = DOTS[name], 16
    places = [dot.place(lane, t, lanes) for lane in range(lanes) for t in range(dot.size)]
    assert sorted(places) == list(range(lanes * dot.size))


@pytest.mark.parametrize("name", DOTS)
def test_member_is_the_inverse_of_place(name):
    dot, lanes = DOTS[name], 8
    for lane in range(lanes):
        for t in range(dot.size):
            assert dot.member(dot.place(lane, t, lanes), lanes) == (lane, t)


@pytest.mark.parametrize("name", DOTS)
def test_words_of_weights_are_where_place_says(name):
    dot, lanes = DOTS[name], 8
    weights = np.random.default_rng(0).integers(-127, 128, (3, 2 * dot.size, 5, lanes), np.int8)
    words = dot.words(weights, 1)
    assert words.shape == (3, 2, 5, lanes * dot.size) and words.dtype == dot.weight
    for k in range(2 * dot.size):
        for lane in range(lanes):
            at = words[:, k // dot.size, :, dot.place(lane, k % dot.size, lanes)]
            assert np.array_equal(at, weights[:, k, :, lane])


def test_neon_has_the_first_pairs_of_all_lanes_before_the_second_ones():
    """SMULL takes one 8-byte half of the weights with one pair of activations in all its lanes."""
    weights = np.arange(16, dtype=np.int8).reshape(4, 4)  # [K, lane]
    assert DOTS["smull"].words(weights, 0).tolist() == [[0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]]


def test_every_target_has_a_way_with_lanes():
    for target in available():
        assert dot_of(target.hardware).lanes >= 1, target.name


def test_vectors_without_lanes_of_their_own_have_those_of_the_processor():
    assert dot_of(resolve("x86-64-v3").hardware).lanes == 8
    assert dot_of(resolve("x86-64").hardware).lanes == 4
    assert dot_of(resolve("riscv64").hardware).lanes == 1


@pytest.mark.parametrize("target", ["arm64", "arm64-dotprod", "x86-64-v3", "x86-64-v4-vnni"])
def test_tiles_leave_registers_for_weights_words_and_products(target):
    hardware = resolve(target).hardware
    dot, each = dot_of(hardware), 16 * 32 // hardware.vector_bits
    tiles = register_tiles(56, 1, 16, hardware, streamed=True, dot=dot)
    for rows, vectors in tiles:
        weights = vectors * each * (2 if dot.paired else 1)  # halves of registers
        activations = rows if hardware.lane_operand else 1
        assert rows * vectors * each + weights + activations + dot.beside <= hardware.vector_registers
    assert tiles[0][0] >= 3
