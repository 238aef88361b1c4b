"""Transpositions go by squares, which are read and written in vectors; what is only broadcast does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import Net, agrees
from quantized import QuantizedNet


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


def test_channels_of_a_first_layer_are_interleaved_by_vectors_of_each(tmp_path: Path) -> None:
    """Of 37 columns, 32 in vectors of 8 or 16, and the rest one by one."""
    net = QuantizedNet()
    x = net.quantized(net.input(1, 3, 4, 37), 0.03)
    net.output(net.quantized_conv(x, 3, 16, (3, 7), scale=0.03))
    script = str(agrees(net, tmp_path, tolerance=0).kernels.module.script())
    assert "interleave" in script and "T.vectorized" in script.partition("interleave")[2].partition("def ")[0]


def test_sides_that_are_no_whole_squares_are_read_element_by_element(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Transpose", net.input(2, 3, 7, 9), perm=(0, 2, 3, 1)))
    assert not unrolled(net, tmp_path)


def test_what_is_broadcast_along_rows_makes_no_square(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Add", net.input(4, 16, 32), net.input(16, 1)))
    assert not unrolled(net, tmp_path)
