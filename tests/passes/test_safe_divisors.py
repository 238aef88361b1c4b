"""Integer divisions of any numbers, those without a result too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Net, compile_net

LEAST = {dtype: np.iinfo(dtype).min for dtype in (np.int8, np.int32, np.int64)}


def quotient(n: int, d: int, least: int) -> int:
    """Rounded to zero, as ONNX's Div; by 1 where there is none."""
    if d == 0 or (d == -1 and n == least):
        return n
    return abs(n) // abs(d) * (1 if (n < 0) == (d < 0) else -1)


@pytest.mark.parametrize("dtype", LEAST)
def test_no_division_stops_the_processor(dtype: Any, tmp_path: Path) -> None:
    net = Net()
    n, d = net.input(4, 6, dtype=dtype), net.input(1, 6, dtype=dtype)
    net.output(net.op("Div", n, d), net.op("Mod", n, d))
    compiled = compile_net(net, tmp_path, verify=False)
    least = int(LEAST[dtype])
    given = np.array([[least] * 6, [7] * 6, [-7] * 6, [0] * 6], dtype), np.array([[0, -1, 1, 3, -3, 5]], dtype)
    found = list(compiled.run(dict(zip((n, d), given, strict=True))).values())
    divided = [[quotient(int(a), int(b), least) for b in given[1][0]] for a in given[0][:, 0]]
    np.testing.assert_array_equal(found[0], np.array(divided).astype(dtype))
    rest = [
        [0 if b == 0 or (b == -1 and a == least) else int(a) % int(b) for b in given[1][0].tolist()]
        for a in given[0][:, 0].tolist()
    ]
    np.testing.assert_array_equal(found[1], np.array(rest).astype(dtype))


def test_a_constant_divisor_stays_as_it_is(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Div", net.input(16, dtype=np.int32), net.constant(3, np.int32)))
    compiled = compile_net(net, tmp_path)
    assert "Select" not in compiled.kernels.module.script(show_meta=False)
