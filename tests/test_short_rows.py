"""Rows shorter than vectors: what reads each element where it writes it goes along all of them, the rest by rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import Net, agrees


def vectors(net: Net, folder: Path) -> bool:
    return "T.vectorized" in agrees(net, folder, tolerance=0).kernels.module.script()


@pytest.mark.parametrize("shape", [(3, 49, 3), (2, 16, 3), (1, 7, 11, 3, 1), (64, 3), (11, 1, 3)])
def test_short_rows_that_follow_one_another_are_vectors(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Whole vectors, and with a rest, which is computed one by one."""
    net = Net()
    net.output(net.op("Relu", net.op("Add", net.input(*shape), net.input(*shape))))
    assert vectors(net, tmp_path)


def test_a_change_of_shape_alone_does_not_matter(tmp_path: Path) -> None:
    net = Net()
    x = net.op("Reshape", net.op("Neg", net.input(14, 5, 3)), net.constant([2, 3, 5, 7]))
    net.output(net.op("Abs", x))
    assert vectors(net, tmp_path)


@pytest.mark.parametrize("other", [(49, 1), (3, 1, 3), (3,)])
def test_rows_beside_what_is_broadcast_are_not(other: tuple[int, ...], tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Add", net.input(3, 49, 3), net.input(*other)))
    assert not vectors(net, tmp_path)


def test_many_elements_with_a_rest_stay_rows_that_threads_share(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Neg", net.input(101, 103, 3)))
    assert not vectors(net, tmp_path)
