"""Transpositions go by squares, which are read and written in vectors; what is only broadcast does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import Net, agrees


def unrolled(net: Net, folder: Path) -> bool:
    return "T.unroll" in agrees(net, folder, tolerance=0).kernels.module.script()


@pytest.mark.parametrize(
    ("shape", "order"),
    [((2, 16, 8, 16), (0, 2, 3, 1)), ((3, 8, 5, 16), (0, 3, 2, 1)), ((32, 48), (1, 0)), ((2, 24, 40), (2, 0, 1))],
)
def test_axes_that_change_places_come_in_squares(
    shape: tuple[int, ...], order: tuple[int, ...], tmp_path: Path
) -> None:
    net = Net()
    net.output(net.op("Transpose", net.input(*shape), perm=order))
    assert unrolled(net, tmp_path)


def test_sides_that_are_no_whole_squares_are_read_element_by_element(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Transpose", net.input(2, 3, 7, 9), perm=(0, 2, 3, 1)))
    assert not unrolled(net, tmp_path)


def test_what_is_broadcast_along_rows_makes_no_square(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Add", net.input(4, 16, 32), net.input(16, 1)))
    assert not unrolled(net, tmp_path)
