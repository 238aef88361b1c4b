"""Quantized models for accelerators, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from compiled import Compiled, Net, compile_net
from quantized import QuantizedNet

from nncc.config import Config
from nncc.ir import Network
from nncc.pipeline import plan, run

GOLDEN = "vta,golden=true"


def residuals(data: str = "int8") -> QuantizedNet:
    """A small residual network: patches, a pool, sums in both orders, a ReLU that the grid does not imply, a dense
    layer of one row."""
    net = QuantizedNet(data, seed=3)
    x = net.quantized(net.input(1, 3, 23, 21), 0.05)
    x = net.quantized_conv(x, 3, 24, (5, 5), strides=(2, 2), pads=(2, 2, 2, 2))
    x = net.quantized(net.op("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)), 0.05)
    for order in (0, 1):
        values = net.random.integers(-127, 128, (24, 24, 3, 3), np.int8)
        y = net.op("Conv", x, net.levels(values, np.full(24, 0.002)), pads=(1, 1, 1, 1))
        y = net.quantized(net.op("Relu", y), 0.05)
        y = net.quantized_conv(y, 24, 24, (3, 3), pads=(1, 1, 1, 1))
        x = net.quantized(net.op("Add", *((x, y) if order else (y, x))), 0.05)
    y = net.quantized_conv(x, 24, 40, (1, 1), strides=(2, 2))
    z = net.quantized_conv(x, 24, 40, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    x = net.quantized(net.op("Add", y, z), 0.05)
    z = net.quantized_conv(x, 40, 40, (3, 3), group=40, pads=(1, 1, 1, 1))
    x = net.quantized(net.op("Add", x, z), 0.05)
    net.output(net.quantized(net.op("Add", x, y), 0.1))
    x = net.quantized(net.op("GlobalAveragePool", x), 0.02)
    x = net.op("Reshape", x, net.ints(1, 40))
    net.output(net.quantized_matmul(x, 40, 10))
    return net


def specialized(net: Net, folder: Path, target: str = GOLDEN) -> Network:
    """The network before it becomes kernels."""
    folder.mkdir(parents=True, exist_ok=True)
    config = Config(target=target, until="specialize", verify=False)
    return run(plan(net.save(folder / "net.onnx"), config))


def kernels_of(network: Network) -> list[str]:
    """The kernels that ``main`` calls, in order, without the numbers that make their names different."""
    calls = [binding.value for block in network.module["main"].body.blocks for binding in block.bindings]
    names = [
        call.args[0].name_hint for call in calls if getattr(getattr(call, "op", None), "name", "") == "relax.call_tir"
    ]
    return [name.rstrip("0123456789") if name.startswith("vta") else name for name in names]


def same_integers(net: Net, folder: Path, target: str = GOLDEN, inputs: dict[str, Any] | None = None) -> Compiled:
    """Claim that a library for `target` computes the same bits as that for the processor alone."""
    ours, plain = (compile_net(net, folder / name, name) for name in (target, "native"))
    given = plain.sample(**(inputs or {}))
    expected, found = plain.run(given), ours.run(given)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    return ours
