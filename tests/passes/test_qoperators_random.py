"""Operators on integers of any shapes, scales and zero points against ONNX Runtime's kernels for them.

A model has all of them, since compiling takes seconds; hypothesis draws what each of its operators is like.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from quantized_nets import QuantizedNet, both, full_range, steps_apart

U8, S8 = np.dtype(np.uint8), np.dtype(np.int8)
SIZES = st.integers(1, 9)
CHANNELS = st.sampled_from([1, 3, 4, 7, 16, 20, 32])


def between(low: float, high: float) -> Any:
    """Numbers of float32."""
    return st.floats(low, high).map(lambda value: float(np.float32(value)))


SCALES = between(1e-3, 0.5)


@dataclass(frozen=True)
class Drawn:
    """A net in the making, and hypothesis' hand."""

    net: QuantizedNet
    draw: Callable[[Any], Any]
    dtype: np.dtype

    def zero(self, dtype: np.dtype | None = None) -> int:
        info = np.iinfo(dtype or self.dtype)
        return self.draw(st.integers(info.min, info.max))

    def grid(self, scale: float | None = None) -> tuple[str, str]:
        """A scale and a zero point."""
        return self.net.parameters(self.draw(SCALES) if scale is None else scale, self.zero(), self.dtype)

    def tensor(self, *shape: int, scale: float | None = None) -> tuple[str, str, str]:
        """An input of the model on a grid."""
        return self.net.input(*shape, dtype=self.dtype), *self.grid(scale)

    def weights(self, shape: tuple[int, ...], axis: int) -> tuple[str, str, str, np.ndarray]:
        """Of 7 bits: where a processor has no instruction for four products, sums of two saturate in ONNX Runtime."""
        dtype = self.draw(st.sampled_from([S8, U8] if self.dtype == U8 else [S8]))
        low = -64 if dtype == S8 else 0
        values = self.net.random.integers(low, low + 128, shape).astype(dtype)
        count = self.draw(st.sampled_from([1, shape[axis]])) if dtype == S8 else 1
        scale = self.net.random.uniform(0.5, 1.5, count).astype(np.float32) * np.float32(self.draw(SCALES))
        zeros = np.full(count, 0 if dtype == S8 else self.draw(st.integers(0, 127)), dtype)
        single = count == 1
        shown = (scale.reshape(()), zeros.reshape(())) if single else (scale, zeros)
        return self.net.constant(values), self.net.constant(shown[0]), self.net.constant(shown[1]), scale

    def result(self, step: float, terms: int) -> tuple[str, str]:
        """A grid for sums of products whose factors have scales that give `step`."""
        spread = step * np.sqrt(terms) * 74 * 37
        return self.grid(float(np.float32(spread * self.draw(between(0.5, 2)) / 64)))


def conv(a: Drawn) -> tuple[str, Any]:
    group = a.draw(st.sampled_from([1, 1, 2, "each"]))
    channels = a.draw(CHANNELS) if group != 2 else 2 * a.draw(st.integers(1, 9))
    groups = channels if group == "each" else group
    out = groups * a.draw(st.integers(1, 2 if group == "each" else 20))
    kernel = [a.draw(st.integers(1, 3)) for _ in range(2)]
    dilations = [a.draw(st.integers(1, 2)) for _ in range(2)]
    size = [d * (k - 1) + a.draw(SIZES) for k, d in zip(kernel, dilations, strict=True)]
    pads = [a.draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    scale = a.draw(SCALES)
    x = a.tensor(a.draw(st.integers(1, 2)), channels, *size, scale=scale)
    *weights, steps = a.weights((out, channels // groups, *kernel), 0)
    result = a.result(scale * float(steps.mean()), channels // groups * kernel[0] * kernel[1])
    bias = a.net.constant(a.net.random.integers(-9000, 9000, out).astype(np.int32))
    strides = [a.draw(st.integers(1, 2)) for _ in range(2)]
    options = {"kernel_shape": kernel, "dilations": dilations, "pads": pads, "strides": strides, "group": groups}
    return a.net.op(
        "QLinearConv", *x, *weights, *result, *([bias] if a.draw(st.booleans()) else []), **options
    ), a.dtype


def matmul(a: Drawn) -> tuple[str, Any]:
    rows, depth, columns = a.draw(SIZES), a.draw(st.integers(1, 70)), a.draw(st.integers(1, 40))
    scale = a.draw(SCALES)
    x = a.tensor(*a.draw(st.sampled_from([(), (2,), (1, 3)])), rows, depth, scale=scale)
    *weights, steps = a.weights((depth, columns), 1)
    return a.net.op("QLinearMatMul", *x, *weights, *a.result(scale * float(steps.mean()), depth)), a.dtype


def matmul_of_activations(a: Drawn) -> tuple[str, Any]:
    rows, depth, columns = a.draw(SIZES), a.draw(st.integers(1, 40)), a.draw(SIZES)
    scales = a.draw(SCALES), a.draw(SCALES)
    x, y = a.tensor(3, rows, depth, scale=scales[0]), a.tensor(3, depth, columns, scale=scales[1])
    return a.net.op("QLinearMatMul", *x, *y, *a.result(2 * scales[0] * scales[1], depth)), a.dtype


def gemm(a: Drawn) -> tuple[str, Any]:
    rows, depth, columns = a.draw(SIZES), a.draw(st.integers(1, 70)), a.draw(st.integers(1, 40))
    flipped = a.draw(st.integers(0, 1))
    scale = a.draw(SCALES)
    x = a.tensor(rows, depth, scale=scale)
    *weights, steps = a.weights((columns, depth) if flipped else (depth, columns), 0 if flipped else 1)
    bias = a.net.constant(a.net.random.integers(-9000, 9000, columns).astype(np.int32))
    return a.net.ms("QGemm", *x, *weights, bias, *a.result(scale * float(steps.mean()), depth), transB=flipped), a.dtype


def binary(kind: str) -> Callable[[Drawn], tuple[str, Any]]:
    def made(a: Drawn) -> tuple[str, Any]:
        shape = 1, a.draw(CHANNELS), a.draw(SIZES), a.draw(SIZES)
        other = a.draw(st.sampled_from([shape, (shape[1], 1, 1), (1, 1, 1, shape[3]), (1,)]))
        scales = a.draw(SCALES), a.draw(SCALES)
        spread = max(scales) * 1.5 if kind == "QLinearAdd" else scales[0] * scales[1] * 90
        x, y = a.tensor(*shape, scale=scales[0]), a.tensor(*other, scale=scales[1])
        return a.net.ms(kind, *x, *y, *a.grid(float(np.float32(spread)))), a.dtype

    return made


def average_pool(a: Drawn) -> tuple[str, Any]:
    kernel = [a.draw(st.integers(1, 4)) for _ in range(2)]
    size = [k + a.draw(st.integers(0, 8)) for k in kernel]
    pads = [a.draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    scale = a.draw(SCALES)
    x = a.tensor(1, a.draw(CHANNELS), *size, scale=scale)
    options = {"kernel_shape": kernel, "pads": pads, "strides": [a.draw(st.integers(1, 3)) for _ in range(2)]}
    result = a.grid(a.draw(st.sampled_from([scale, 0.4 * scale])))
    return a.net.ms("QLinearAveragePool", *x, *result, count_include_pad=a.draw(st.integers(0, 1)), **options), a.dtype


def global_average_pool(a: Drawn) -> tuple[str, Any]:
    scale = a.draw(SCALES)
    x = a.tensor(2, a.draw(CHANNELS), a.draw(SIZES), a.draw(SIZES), scale=scale)
    return a.net.ms("QLinearGlobalAveragePool", *x, *a.grid(a.draw(st.sampled_from([scale, 0.3 * scale])))), a.dtype


def sigmoid(a: Drawn) -> tuple[str, Any]:
    return a.net.ms("QLinearSigmoid", *a.tensor(3, 100, scale=a.draw(between(0.01, 0.2))), *a.grid(1 / 256)), a.dtype


def leaky_relu(a: Drawn) -> tuple[str, Any]:
    scale, alpha = a.draw(SCALES), a.draw(between(0.01, 0.9))
    return a.net.ms("QLinearLeakyRelu", *a.tensor(3, 100, scale=scale), *a.grid(1.2 * scale), alpha=alpha), a.dtype


def softmax(a: Drawn) -> tuple[str, Any]:
    """The smallest zero point: ONNX Runtime does not clip bytes with a sign."""
    x = a.tensor(a.draw(SIZES), a.draw(st.integers(2, 60)), scale=a.draw(between(0.01, 0.2)))
    step = a.draw(between(1 / 255, 1 / 40))
    result = a.net.parameters(step, np.iinfo(a.dtype).min, a.dtype)
    return a.net.ms("QLinearSoftmax", *x, *result, axis=-1, opset=13), a.dtype


def concat(a: Drawn) -> tuple[str, Any]:
    rows = a.draw(SIZES)
    parts = [a.tensor(rows, a.draw(CHANNELS)) for _ in range(a.draw(st.integers(1, 3)))]
    return a.net.ms("QLinearConcat", *a.grid(0.1), *(word for part in parts for word in part), axis=1), a.dtype


def where(a: Drawn) -> tuple[str, Any]:
    shape = a.draw(SIZES), a.draw(CHANNELS)
    mask = a.net.input(*shape, dtype=np.bool_)
    return a.net.ms("QLinearWhere", mask, *a.tensor(*shape), *a.tensor(1, shape[1]), *a.grid(0.1)), a.dtype


def conv_integer(a: Drawn) -> tuple[str, Any]:
    channels, kernel = a.draw(CHANNELS), [a.draw(st.integers(1, 3)) for _ in range(2)]
    x = a.net.input(1, channels, *(k + a.draw(SIZES) for k in kernel), dtype=U8)
    weights = a.net.constant(a.net.random.integers(-64, 64, (a.draw(SIZES), channels, *kernel)).astype(S8))
    zeros = a.net.constant(np.array(a.zero(U8), U8)), a.net.constant(np.array(0, S8))
    return a.net.op("ConvInteger", x, weights, *zeros, pads=[a.draw(st.integers(0, 1))] * 4), np.int32


def matmul_integer(a: Drawn) -> tuple[str, Any]:
    rows, depth, columns = a.draw(SIZES), a.draw(st.integers(1, 70)), a.draw(st.integers(1, 40))
    weights = a.net.constant(a.net.random.integers(-64, 64, (depth, columns)).astype(S8))
    zeros = a.net.constant(np.array(a.zero(U8), U8)), a.net.constant(np.full(columns, a.draw(st.integers(-9, 9)), S8))
    return a.net.op("MatMulInteger", a.net.input(2, rows, depth, dtype=U8), weights, *zeros), np.int32


def dynamic(standard: bool) -> Callable[[Drawn], tuple[str, Any]]:
    def made(a: Drawn) -> tuple[str, Any]:
        rows, depth, columns = a.draw(SIZES), a.draw(st.integers(1, 70)), a.draw(st.integers(1, 40))
        x = a.net.input(rows, depth)
        weights = a.net.constant(a.net.random.integers(-64, 64, (depth, columns)).astype(S8))
        if not standard:
            scale = a.net.constant(a.net.random.uniform(0.01, 0.02, columns).astype(np.float32))
            zeros = a.net.constant(np.zeros(columns, S8))
            return a.net.ms("DynamicQuantizeMatMul", x, weights, scale, zeros, a.net.weight(columns)), np.float32
        q, scale, zero = a.net.op("DynamicQuantizeLinear", x, outputs=3)
        sums = a.net.op("MatMulInteger", q, weights, zero)
        return a.net.op("Mul", a.net.op("Cast", sums, to=1), scale), np.float32

    return made


def n_bits(a: Drawn) -> tuple[str, Any]:
    """Weights of 4 bits, which ONNX Runtime multiplies in float32."""
    block = a.draw(st.sampled_from([16, 32]))
    blocks, columns = a.draw(st.integers(1, 4)), a.draw(st.integers(1, 40))
    depth = block * blocks
    scale = a.net.constant(a.net.random.uniform(0.01, 0.02, (columns, blocks)).astype(np.float32))
    operands = [a.net.input(a.draw(SIZES), depth), a.net.integers(columns, blocks, block // 2), scale]
    operands += [a.net.integers(columns, -(-blocks // 2))] if a.draw(st.booleans()) else []
    return a.net.ms("MatMulNBits", *operands, K=depth, N=columns, bits=4, block_size=block), np.float32


def attention(a: Drawn) -> tuple[str, Any]:
    """Of bytes without a sign, the only ones that ONNX Runtime has it of; Q, K and V of about 1."""
    heads, width, depth = (a.draw(st.integers(1, 4)) for _ in range(3))
    columns, depth = 3 * 8 * heads * width, 8 * depth
    x = a.net.input(1, a.draw(SIZES), depth, dtype=U8)
    weights = a.net.constant(a.net.random.integers(-64, 64, (depth, columns)).astype(S8))
    scale = np.float32(a.draw(between(0.5, 1)) / (74 * 37 * np.sqrt(depth)))
    steps = a.net.constant(np.full(a.draw(st.sampled_from([(), (columns,)])), scale, np.float32))
    grid = a.net.constant(np.float32(1)), steps
    zero = a.net.constant(np.array(a.draw(st.integers(100, 156)), U8))
    options = {"num_heads": heads, "unidirectional": a.draw(st.integers(0, 1))}
    return a.net.ms("QAttention", x, weights, a.net.weight(columns), *grid, "", zero, **options), np.float32


def max_pool(a: Drawn) -> tuple[str, Any]:
    kernel = [a.draw(st.integers(1, 3)) for _ in range(2)]
    x = a.net.input(1, *(k + a.draw(SIZES) for k in kernel), a.draw(CHANNELS), dtype=a.dtype)
    options = {"strides": [a.draw(st.integers(1, 2))] * 2, "pads": [a.draw(st.integers(0, k - 1)) for k in kernel * 2]}
    return a.net.ms("NhwcMaxPool", x, kernel_shape=kernel, **options), a.dtype


OPERATORS: dict[str, tuple[Callable[[Drawn], tuple[str, Any]], bool]] = {
    "QLinearConv": (conv, True),
    "QLinearMatMul": (matmul, True),
    "QLinearMatMul of activations": (matmul_of_activations, True),
    "QGemm": (gemm, True),
    "QLinearAdd": (binary("QLinearAdd"), False),
    "QLinearMul": (binary("QLinearMul"), True),
    "QLinearAveragePool": (average_pool, False),
    "QLinearGlobalAveragePool": (global_average_pool, True),
    "QLinearSigmoid": (sigmoid, False),
    "QLinearLeakyRelu": (leaky_relu, True),
    "QLinearSoftmax": (softmax, False),
    "QLinearConcat": (concat, True),
    "QLinearWhere": (where, True),
    "ConvInteger": (conv_integer, True),
    "MatMulInteger": (matmul_integer, True),
    "DynamicQuantizeLinear": (dynamic(True), False),
    "DynamicQuantizeMatMul": (dynamic(False), False),
    "MatMulNBits": (n_bits, False),
    "QAttention": (attention, False),
    "NhwcMaxPool": (max_pool, True),
}
"""How one is made, and whether bytes without a sign are ONNX Runtime's; all others are within a step of them. Not so:
QLinearAdd on processors without fused multiply-adds, averages in the middle of two integers where no convolution gives
channels in blocks, functions whose approximations differ, and sums of exponentials in another order."""
FLOAT_ERROR = 1e-5
"""Of the largest sum of up to 70 products in float32, in another order."""


def check(data: Any) -> None:
    dtype = data.draw(st.sampled_from([U8, S8]))
    drawn = Drawn(QuantizedNet(seed=data.draw(st.integers(0, 2**32 - 1))), data.draw, dtype)
    results = {}
    for kind, (make, _) in OPERATORS.items():
        name, result = make(drawn)
        results[kind] = drawn.net.result(name, result)
    with tempfile.TemporaryDirectory() as folder:
        pairs = both(drawn.net, Path(folder), full_range(drawn.net.model(), data.draw(st.integers(0, 2**32 - 1))))
    for kind, name in results.items():
        expected, actual = pairs[name]
        apart = steps_apart(expected, actual)
        exact = OPERATORS[kind][1] and (dtype == U8 or expected.dtype == np.int32)
        # Where products of floats nearly cancel, their sizes count: of MatMulNBits they are below 0.02 x 16.
        largest = np.abs(expected).max() + (1e-2 if kind == "MatMulNBits" else 0)
        limit = 0 if exact else FLOAT_ERROR * largest if expected.dtype.kind == "f" else 1
        assert apart <= limit, f"{kind} of {dtype}: {apart} apart, {np.mean(expected != actual):.2%} of the elements"


ANY = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],  # no shrinking, of which each step compiles
}


@settings(max_examples=3, derandomize=True, **ANY)
@given(st.data())
def test_operators_on_integers_of_any_kind_give_what_onnx_runtime_gives(data: Any) -> None:
    check(data)


@pytest.mark.slow
@settings(max_examples=40, **ANY)
@given(st.data())
def test_many_operators_on_integers_of_any_kind_give_what_onnx_runtime_gives(data: Any) -> None:
    check(data)
