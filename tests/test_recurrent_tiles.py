"""How recurrent layers are cut: every unit and gate once, sums that fit the registers, work for every thread."""

from __future__ import annotations

from itertools import product

import pytest

from nncc.kernels.recurrent_tiles import Tile, phases, tile
from nncc.operators.recurrence import Activation, Recurrence
from nncc.target import Hardware

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def layer(kind: str, hidden: int, directions: int = 1, linear: bool = False) -> Recurrence:
    named = ("forward", "reverse")[:directions]
    return Recurrence(kind, hidden, named, ((Activation("tanh", 0, 0),),) * directions, 0.0, ("x",), linear)


def cut(kind: str, hidden: int, batch: int, cores: int = 1, directions: int = 1, registers: int = 32) -> Tile:
    hardware = Hardware(vector_bits=256, vector_registers=registers, cores=cores)
    return tile(layer(kind, hidden, directions), 50, batch, hardware)


@pytest.mark.parametrize(("kind", "registers"), list(product(GATES, (8, 16, 32))))
def test_every_column_of_a_block_is_in_one_tile_that_fits_the_registers(kind: str, registers: int) -> None:
    for hidden, batch in product((1, 6, 40, 128, 500), (1, 2, 3, 5, 8, 13, 64)):
        found = cut(kind, hidden, batch, registers=registers)
        columns = [column for phase in found.panels for first, end in phase for column in range(first, end)]
        assert columns == list(range(GATES[kind] * found.vectors))
        widest = max(end - first for phase in found.panels for first, end in phase)
        assert found.rows * widest <= registers * 3 // 4 and found.rows <= batch
        assert -(-hidden // found.width) * found.width < hidden + found.width


def test_weights_are_read_once_for_eight_sequences_and_eight_bytes_a_cycle_for_more() -> None:
    assert cut("LSTM", 256, 8).rows == 8
    assert cut("LSTM", 256, 32).rows == 12


def test_a_gru_that_resets_before_the_product_has_two_phases() -> None:
    assert phases(layer("GRU", 8)) == ((0, 1), (2,))
    assert phases(layer("GRU", 8, linear=True)) == ((0, 1, 2),)


@pytest.mark.parametrize(
    ("hidden", "batch", "cores", "directions", "parts", "parallel"),
    [
        (256, 8, 1, 1, 1, ""),
        (8, 1, 4, 1, 1, ""),  # less work than another thread takes to wake up
        (256, 8, 2, 1, 2, "parts"),
        (256, 1, 2, 2, 1, "parts"),  # a direction each
        (256, 1, 2, 1, 1, ""),  # steps too short to meet after each
        (512, 1, 2, 1, 1, "blocks"),
        (512, 1, 4, 2, 1, "blocks"),
        (512, 2, 3, 1, 2, "parts"),
    ],
)
def test_threads_get_directions_and_sequences_or_units_of_long_steps(
    hidden: int, batch: int, cores: int, directions: int, parts: int, parallel: str
) -> None:
    found = cut("LSTM", hidden, batch, cores, directions)
    assert (found.parts, found.parallel) == (parts, parallel)


def test_large_batches_are_cut_at_once() -> None:
    assert cut("LSTM", 256, 10**9).rows == 12
