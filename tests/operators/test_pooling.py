"""Pools and transposed convolutions of one to three axes in every form that ONNX Runtime has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import Net, agrees, compile_net
from random_nets import agrees_on

from nncc.errors import ModelError


def window(random: np.random.Generator, rank: int) -> dict[str, Any]:
    """Attributes of a window; those on which implementations disagree are left out."""
    kernel = random.integers(1, 4, rank).tolist()
    found: dict[str, Any] = {"kernel_shape": kernel, "strides": random.integers(1, 4, rank).tolist()}
    automatic = str(random.choice(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if automatic != "NOTSET":
        found["auto_pad"] = automatic
    elif random.random() < 0.7:
        found["pads"] = [int(random.integers(0, kernel[d % rank])) for d in range(2 * rank)]
    if automatic.startswith("SAME"):  # without gaps between windows, and not dilated
        found["strides"] = [min(s, k) for s, k in zip(found["strides"], kernel, strict=True)]
    elif random.random() < 0.5:
        found["dilations"] = random.integers(1, 3, rank).tolist()
    return found


def image(net: Net, random: np.random.Generator, rank: int) -> str:
    return net.input(2, int(random.integers(1, 4)), *random.integers(6, 10, rank).tolist())


def max_pool(net: Net, random: np.random.Generator) -> str:
    rank = int(random.integers(1, 4))
    options = window(random, rank) | {"ceil_mode": int(random.integers(2))}
    x = image(net, random, rank)
    if random.random() < 0.5:
        return net.op("MaxPool", x, **options)
    return net.op("MaxPool", x, outputs=2, storage_order=int(random.integers(2)), **options)[1]


def average_pool(net: Net, random: np.random.Generator) -> str:
    rank = int(random.integers(1, 4))
    options = window(random, rank) | {name: int(random.integers(2)) for name in ("ceil_mode", "count_include_pad")}
    return net.op("AveragePool", image(net, random, rank), **options)


def lp_pool(net: Net, random: np.random.Generator) -> str:
    rank = int(random.integers(1, 4))
    options = window(random, rank) | {"ceil_mode": int(random.integers(2)), "p": int(random.integers(1, 4))}
    return net.op("LpPool", image(net, random, rank), **options)


def conv_transpose(net: Net, random: np.random.Generator) -> str:
    rank, groups = int(random.integers(1, 4)), int(random.choice([1, 1, 2, 3]))
    options = window(random, rank) | {"group": groups}
    kernel, strides = options.pop("kernel_shape"), options["strides"]
    size = random.integers(2, 6, rank).tolist()
    if random.random() < 0.4 and not options.get("auto_pad", "").startswith("SAME"):  # else onnx infers another size
        options["output_padding"] = [int(random.integers(0, s)) for s in strides]
    elif random.random() < 0.4 and "auto_pad" not in options:
        options.pop("pads", None)
        options["output_shape"] = [n * s + int(random.integers(0, 3)) for n, s in zip(size, strides, strict=True)]
    channels, out = groups * int(random.integers(1, 4)), int(random.integers(1, 4))
    bias = [net.weight(out * groups)] if random.random() < 0.5 else []
    return net.op("ConvTranspose", net.input(2, channels, *size), net.weight(channels, out, *kernel), *bias, **options)


@pytest.mark.parametrize("draw", [max_pool, average_pool, lp_pool, conv_transpose])
def test_random_forms(tmp_path, draw):
    agrees_on(draw, 12, 22, tmp_path)


def test_integers_are_pooled_with_their_places(tmp_path):
    net = Net(opset=22)
    for dtype in (np.uint8, np.int8):
        x = net.input(1, 2, 6, 7, dtype=dtype)
        net.output(*net.op("MaxPool", x, outputs=2, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1]))
    agrees(net, tmp_path)


def test_values_go_back_to_where_they_were_found(tmp_path):
    net = Net(opset=22)
    x = net.input(2, 3, 6, 8)
    values, places = net.op("MaxPool", x, outputs=2, kernel_shape=[2, 4], strides=[2, 4])
    net.output(net.op("MaxUnpool", values, places, kernel_shape=[2, 4], strides=[2, 4]))
    agrees(net, tmp_path)


def test_places_outside_write_nothing(tmp_path):
    net = Net(opset=22)
    values, places = net.input(1, 1, 1, 3), net.input(1, 1, 1, 3, dtype=np.int64)
    shape = net.ints(1, 1, 1, 8)
    net.output(net.op("MaxUnpool", values, places, shape, kernel_shape=[1, 2], strides=[1, 2]))
    inputs = {values: np.array([[[[1, 2, 3]]]], np.float32), places: np.array([[[[5, -1, 6]]]])}
    found = compile_net(net, tmp_path).run(inputs)[net.outputs[0]]
    assert found.reshape(-1).tolist() == [0, 0, 0, 0, 0, 1, 0, 0]  # what was pooled has six elements


def test_dilated_windows_with_automatic_padding_are_refused(tmp_path):
    net = Net(opset=22)
    net.output(net.op("LpPool", net.input(1, 1, 9), kernel_shape=[3], dilations=[2], auto_pad="SAME_UPPER"))
    with pytest.raises(ModelError) as caught:
        compile_net(net, tmp_path)
    assert str(caught.value) == (
        "the operator `LpPool` is used in a form that cannot be compiled: "
        "it is dilated with `SAME_UPPER`, where implementations of ONNX disagree"
    )
