"""Sinh and Cosh in vectors, near zero and where results nearly overflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from compiled import Net, compile_net


def test_sinh_and_cosh_to_the_last_digits_over_their_range(tmp_path: Path) -> None:
    net = Net()
    x = net.input(4096)
    net.output(net.op("Sinh", x), net.op("Cosh", x))
    compiled = compile_net(net, tmp_path)
    small = np.geomspace(1e-30, 1, 1024)
    given = np.concatenate([small, -small, np.linspace(-89.3, 89.3, 2048)]).astype(np.float32)
    sinh, cosh = compiled.run({x: given}).values()
    exact = given.astype(np.float64)
    # e^(x - ln 2) takes over the rounding error of its argument: 2^-18 in 89.
    np.testing.assert_allclose(sinh, np.sinh(exact), rtol=1e-5)
    np.testing.assert_allclose(cosh, np.cosh(exact), rtol=1e-5)
    near = abs(given) < 1
    np.testing.assert_allclose(sinh[near], np.sinh(exact[near]), rtol=3e-7)


def test_sinh_in_double_precision(tmp_path: Path) -> None:
    net = Net()
    x = net.input(7, dtype=np.float64)
    net.output(net.op("Sinh", x))
    compiled = compile_net(net, tmp_path)
    given = np.linspace(-3, 3, 7)
    (found,) = compiled.run({x: given}).values()
    np.testing.assert_allclose(found, np.sinh(given), rtol=1e-13)
