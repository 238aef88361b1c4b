"""From integers to integers, numbers are rounded as the kernels of ONNX Runtime for that round them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from compiled import Compiled, compile_net
from quantized_layers import STEP, QuantizedNet

from nncc.host import host


def of_integer_kernels(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes where it may put its integer kernels in the place of quantized operators."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def differing(net: QuantizedNet, folder: Path, target: str = "native", **given: np.ndarray) -> dict[str, float]:
    """The share of elements, by output, that are not ONNX Runtime's."""
    compiled: Compiled = compile_net(net, folder, target)
    inputs = compiled.sample(**given)
    found = compiled.run(inputs)
    return {
        name: float((array != found[name]).mean())
        for name, array in of_integer_kernels(compiled.path, inputs).items()
        if np.unique(array).size > 4
    }


def every_pair() -> dict[str, np.ndarray]:
    """Integers of 8 bits as real numbers, in all combinations."""
    one, other = np.meshgrid(np.arange(256.0), np.arange(256.0))
    return {name: array.astype(np.float32).reshape(1, 16, 64, 64) for name, array in (("a", one), ("b", other))}


SUMS = [
    (0.031, 0.047, 0.06, 100, 131, 120),
    (0.62, 0.11, 0.7, 0, 255, 3),
    (1.186695, 0.7122227, 1.2890979, 141, 137, 134),
]
"""Two scales and that of the sum, and zero points: any, at the ends, and such that it matters in which order they are
multiplied and added."""


@pytest.mark.skipif(
    "fma" not in host().features, reason="ONNX Runtime rounds sums otherwise without fused multiply-adds"
)
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize("case", SUMS)
def test_sums_are_those_of_qlinearadd(case: tuple[float, ...], target: str, tmp_path: Path) -> None:
    """All pairs of bytes; the other way round, with a Relu behind; a constant, or one number, in place of a tensor."""
    sa, sb, sc, za, zb, zc = case
    net = QuantizedNet()
    a = net.dequantize(net.quantize(net.input(1, 16, 64, 64, name="a"), 1.0, 0), sa, int(za))
    b = net.dequantize(net.quantize(net.input(1, 16, 64, 64, name="b"), 1.0, 0), sb, int(zb))
    number = net.dequantize(net.constant(np.uint8(77)), sb, int(zb))
    row = net.dequantize(net.constant(np.arange(0, 256, 4, dtype=np.uint8)), sb, int(zb))
    for other in (b, row, number):
        net.output(net.quantize(net.op("Add", a, other), sc, int(zc)))
    net.output(net.quantize(net.op("Relu", net.op("Add", b, a)), sc, 0))
    shares = differing(net, tmp_path, target, **every_pair())
    assert len(shares) == 4 and set(shares.values()) == {0.0}, shares


PRODUCTS = [(0.031, 0.047, 0.06, 100, 131, 120), (0.02, 1 / 256, 0.011, 0, 0, 0), (0.02, 0.5, 0.9, 131, 75, 60)]
"""The same of products: any; of positive numbers; and such that one in ninety is in the middle of two."""


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize("case", PRODUCTS)
def test_products_are_those_of_qlinearmul(case: tuple[float, ...], target: str, dtype: type, tmp_path: Path) -> None:
    """All pairs of bytes; and of bytes without a sign a constant, or one number, in place of a tensor: ONNX Runtime
    makes such bytes of those with one, but not of constants."""
    sa, sb, sc, *zeros = case
    low = int(np.iinfo(dtype).min)
    za, zb, zc = (int(zero) + low for zero in zeros)
    net = QuantizedNet()

    def tensor(name: str, scale: float, zero: int) -> str:
        return net.grid(net.input(1, 16, 64, 64, name=name), scale, zero, dtype)

    others = [("a", tensor("b", sb, zb))]
    if dtype is np.uint8:
        row = net.dequantize(net.constant(np.arange(0, 256, 4), dtype), sb, zb, dtype)
        others += [("c", row), ("d", net.dequantize(net.constant(77, dtype), sb, zb, dtype))]
    for name, other in others:
        net.output(net.grid(net.op("Mul", tensor(name, sa, za), other), sc, zc, dtype))
    pairs = every_pair()
    one, another = (pairs["a"] + low - za) * np.float32(sa), (pairs["b"] + low - zb) * np.float32(sb)
    shares = differing(net, tmp_path, target, b=another, **{name: one for name, _ in others})
    assert len(shares) == len(others) and set(shares.values()) == {0.0}, shares


BYTES = [(np.uint8, 117), (np.int8, -11)]


@pytest.mark.parametrize("channels", [3, 64])
@pytest.mark.parametrize(("dtype", "zero"), BYTES)
def test_averages_of_images_are_those_of_qlinearglobalaveragepool(
    dtype: type, zero: int, channels: int, tmp_path: Path
) -> None:
    """With the scale of the image, and images of an even number of elements, many are in the middle of two integers."""
    net = QuantizedNet()
    for size, step in (((4, 4), 0.0931521), ((7, 7), 0.0153), ((5, 6), 0.0931521)):
        for kind, options in (("GlobalAveragePool", {}), ("AveragePool", {"kernel_shape": size})):
            x = net.conv(net.grid(net.input(17, 8, *size), STEP, zero, dtype), 8, channels, (1, 1))
            x = net.grid(x, 0.0931521, zero, dtype)
            net.output(net.grid(net.op(kind, x, **options), step, zero, dtype))
    shares = differing(net, tmp_path)
    assert len(shares) == 6 and set(shares.values()) == {0.0}, shares


def test_softmaxes_are_those_of_qlinearsoftmax(tmp_path: Path) -> None:
    """It takes 254 parts where the scale is a 254.9th, which is another function; sums of floats in another order leave
    a few elements in ten thousand on the other side of the middle of two integers."""
    net = QuantizedNet()
    for step, zero in ((1 / 254.9, 0), (1 / 256, 0), (0.0031, 7)):
        x = net.grid(net.input(3, 40, 50), 0.05, 100)
        net.output(net.quantize(net.op("Softmax", x, axis=-1), step / 16, zero))
    shares = differing(net, tmp_path)
    assert len(shares) == 3 and max(shares.values()) <= 1e-3, shares


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize(("dtype", "zero"), BYTES)
def test_averages_are_those_of_qlinearaveragepool(dtype: type, zero: int, target: str, tmp_path: Path) -> None:
    """Of six integers a sixth of the sums are in the middle of two, where the last digit of a float decides; the border
    is not averaged, or it is, and a window has all of the image but a row."""
    net = QuantizedNet()
    for kernel, step, z, options in (
        ([3, 2], 0.0931521, zero, {"strides": [3, 2]}),
        ([3, 3], 0.0931521, zero, {"pads": [1] * 4, "count_include_pad": 1}),
        ([5, 4], 0.0917, zero, {"pads": [1] * 4}),
        ([23, 24], 0.0931521, int(np.iinfo(dtype).min), {"strides": [23, 24]}),
    ):
        x = net.conv(net.grid(net.input(1, 8, 24, 24), STEP, zero, dtype), 8, 32, (1, 1))
        pool = net.op("AveragePool", net.grid(x, 0.0931521, z, dtype), kernel_shape=kernel, **options)
        net.output(net.grid(pool, step, z, dtype))
    shares = differing(net, tmp_path, target)
    assert len(shares) == 4 and set(shares.values()) == {0.0}, shares


def test_clipped_biases_are_integers(tmp_path: Path) -> None:
    """A channel whose bias was clipped near the end of int32 has small weights: their sums stay in int32 together."""
    net = QuantizedNet()
    x = net.grid(net.input(1, 8, 24, 24), 0.3, 126)
    weights = net.random.integers(-127, 128, (16, 8, 1, 1))
    weights[3] = [[[1]], [[0]], [[0]], [[-1]], [[0]], [[0]], [[0]], [[0]]]
    scale = np.full(16, 0.004, np.float32)
    scale[3] = 1e-9
    bias = net.random.integers(-2000, 2000, 16)
    bias[3] = 2147268898
    dequantized = net.op("DequantizeLinear", net.constant(weights, np.int8), net.constant(scale), axis=0)
    steps = net.constant((scale * np.float32(0.3)).astype(np.float32))
    real = net.op("DequantizeLinear", net.constant(bias, np.int32), steps, net.constant(np.zeros(16), np.int32), axis=0)
    net.output(net.quantize(net.op("Conv", x, dequantized, real), 0.0235, 0))
    assert set(differing(net, tmp_path).values()) == {0.0}
