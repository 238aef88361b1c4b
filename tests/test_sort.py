"""TopK, as sort.c computes it: every type, axis and direction, ties by index, NaN above all numbers."""

from __future__ import annotations

import numpy as np
from compiled import Net, agrees, compile_net

TYPES = [np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]


def topk(net: Net, x: str, k: int, **attributes: int) -> tuple[str, str]:
    return net.op("TopK", x, net.ints(k), outputs=2, **attributes)


def top(array: np.ndarray, k: int, axis: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    """What TopK is: a stable sort, its first k."""
    keys = array.astype(object) if array.dtype.kind in "iu" else array.astype(np.float64)
    order = np.argsort(-keys if largest else keys, axis=axis, kind="stable")
    if largest and array.dtype.kind == "f":  # numpy puts NaN last in either direction; here they are the largest
        order = np.argsort(np.where(np.isnan(array), -np.inf, -keys), axis=axis, kind="stable")
    order = np.take(order, range(k), axis=axis)
    return np.take_along_axis(array, order, axis), order


def test_every_type_axis_and_direction_with_ties_and_nan(tmp_path):
    net = Net()
    random = np.random.default_rng(0)
    inputs, claims = {}, {}
    for number, dtype in enumerate(TYPES):
        axis, k, largest = [0, 1, -1][number % 3], [1, 3, 5][number % 3], number % 2
        x = net.input(5, 7, 6, dtype=dtype)
        data = random.integers(0, 4, (5, 7, 6)).astype(dtype)  # few values: ties everywhere
        if np.dtype(dtype).kind == "f":
            data[random.random(data.shape) < 0.1] = np.nan
            data[random.random(data.shape) < 0.1] = -np.inf
        else:
            data.flat[::5], data.flat[3] = np.iinfo(dtype).max, np.iinfo(dtype).min
        names = topk(net, x, k, axis=axis, largest=largest)
        net.output(*names)
        inputs[x], claims[names] = data, top(data, k, axis, bool(largest))
    found = compile_net(net, tmp_path).run(inputs)
    for (values, indices), (expected, order) in claims.items():
        assert np.array_equal(found[values], expected, equal_nan=expected.dtype.kind == "f"), values
        assert np.array_equal(found[indices], order), indices


def test_long_lines_are_sorted_by_their_bytes_and_searched_in_blocks(tmp_path):
    net = Net()
    random = np.random.default_rng(1)
    inputs, claims = {}, {}
    for number, dtype in enumerate(TYPES):
        x = net.input(200, 3, dtype=dtype) if number % 2 else net.input(3, 200, dtype=dtype)
        data = random.integers(0, 60, 600)  # ties in every line
        if np.dtype(dtype).kind == "f":
            data = random.standard_normal(600).astype(dtype).round(1)  # both zeros among them
            data[random.random(600) < 0.05] = np.nan
            data[:2] = -np.inf, -0.0
        else:
            low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
            data = np.array([low, high, *(low + int(n) * ((high - low) // 61) for n in data[2:])], dtype)
        data = data.astype(dtype).reshape((200, 3) if number % 2 else (3, 200))
        axis = 0 if number % 2 else 1
        for k in (200, 20):
            names = topk(net, x, k, axis=axis, largest=int(number % 3 > 0))
            net.output(*names)
            claims[names] = top(data, k, axis, number % 3 > 0)
        inputs[x] = data
    found = compile_net(net, tmp_path).run(inputs)
    for (values, indices), (expected, order) in claims.items():
        assert np.array_equal(found[values], expected, equal_nan=expected.dtype.kind == "f"), values
        assert np.array_equal(found[indices], order), indices


def test_sorts_agree_with_onnx_runtime(tmp_path):
    """Distinct values: there the order is ONNX's, whatever the implementation does with ties."""
    net = Net()
    wide = net.input(3, 1001)
    net.output(*topk(net, wide, 1001), *topk(net, wide, 1, largest=0), *topk(net, net.input(1), 1))
    values, indices = topk(net, net.conv(net.input(1, 3, 9, 7), 3, 10, (3, 3)), 4, axis=1)  # of a blocked tensor
    net.output(net.op("Exp", values), net.op("Cast", indices, to=1))
    net.output(topk(net, wide, 10)[1])  # its values are not used
    agrees(net, tmp_path)
