"""ArgMax and ArgMin over the last axis, as schedules/arg_max.py has them."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from compiled import Net, compile_net

LENGTHS = (16, 37, 80, 131)


@pytest.mark.parametrize(
    "target",
    [
        "native",
        pytest.param("x86-64-v2", marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="x86 code")),
    ],
)
def test_the_first_of_equals_is_found_in_rows_of_any_length(tmp_path, target):
    net = Net()
    random = np.random.default_rng(0)
    inputs, claims = {}, {}
    for number, length in enumerate(LENGTHS):
        x = net.input(2, 7 + number, length)
        data = random.integers(-3, 4, (2, 7 + number, length)).astype(np.float32)  # few values: ties in every row
        data[0, 0], data[0, 1] = -np.inf, np.inf
        data[1, 2, :-1] = -np.inf
        inputs[x] = data
        for kind, numpys in (("ArgMax", np.argmax), ("ArgMin", np.argmin)):
            kept, dropped = net.op(kind, x, axis=-1), net.op(kind, x, axis=2, keepdims=0)
            net.output(kept, dropped)
            claims[dropped] = numpys(data, axis=-1)
            claims[kept] = claims[dropped][..., None]
    last = net.op("ArgMax", x, axis=-1, select_last_index=1, keepdims=0)
    net.output(last)
    claims[last] = data.shape[-1] - 1 - np.argmax(data[..., ::-1], axis=-1)
    compiled = compile_net(net, tmp_path, target)
    found = compiled.run(inputs)
    for name, expected in claims.items():
        assert np.array_equal(found[name], expected), name
    kinds = [origin.split()[0] for origin in compiled.kernels.schedules.values()]
    assert kinds.count("arg_max") >= 2 * len(LENGTHS)
