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


def test_sorts_agree_with_onnx_runtime(tmp_path):
    """Distinct values: there the order is ONNX's, whatever the implementation does with ties."""
    net = Net()
    wide = net.input(3, 1001)
    net.output(*topk(net, wide, 1001), *topk(net, wide, 1, largest=0), *topk(net, net.input(1), 1))
    values, indices = topk(net, net.conv(net.input(1, 3, 9, 7), 3, 10, (3, 3)), 4, axis=1)  # of a blocked tensor
    net.output(net.op("Exp", values), net.op("Cast", indices, to=1))
    net.output(topk(net, wide, 10)[1])  # its values are not used
    agrees(net, tmp_path)
