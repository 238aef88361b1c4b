"""Products with quantized weights and float activations: the weights stay small, the numbers are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import pytest
from compiled import Net, agrees, compile_net

from nncc.kernels.templates import load_templates
from nncc.passes.weight_only import Codes

MATMUL = load_templates()["matmul"].module


def dequantized(net: Net, q: np.ndarray, scale: np.ndarray, zero: np.ndarray, axis: int) -> str:
    return net.op("DequantizeLinear", net.constant(q), net.constant(scale), net.constant(zero), axis=axis)


def product(kind: str, rows: int, depth: int, columns: int) -> Net:
    """x @ W with W as `kind` says, and a bias."""
    net = Net(opset=13)
    x = net.input(rows, depth, name="x")
    random = np.random.default_rng(3)
    q = random.integers(-127, 128, (depth, columns)).astype(np.int8)
    scale = (random.uniform(0.5, 1, columns) / 64).astype(np.float32)
    if kind == "column":
        y = net.op("MatMul", x, dequantized(net, q, scale, np.zeros(columns, np.int8), 1))
    elif kind == "zero points":
        zero = random.integers(-9, 9, columns).astype(np.int8)
        y = net.op("MatMul", x, dequantized(net, q, scale, zero, 1))
    elif kind == "unsigned":
        weight = (q.astype(np.int32) + 128).astype(np.uint8)
        y = net.op("MatMul", x, dequantized(net, weight, np.float32(0.01), np.uint8(131), 1))
    elif kind == "4 bits":
        y = net.op("MatMul", x, dequantized(net, (q // 16).astype(np.int8), scale, np.zeros(columns, np.int8), 1))
    else:
        weight = dequantized(net, np.ascontiguousarray(q.T), scale, np.zeros(columns, np.int8), 0)
        return _with_output(net, net.op("Gemm", x, weight, net.weight(columns), transB=1))
    return _with_output(net, net.op("Add", y, net.weight(columns)))


def _with_output(net: Net, y: str) -> Net:
    net.output(y)
    return net


@pytest.mark.parametrize("kind", ["column", "zero points", "unsigned", "4 bits", "transposed"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(1, 128, 96), (5, 70, 75)])
def test_it_agrees_with_onnxruntime_and_keeps_the_weights_small(kind, rows, depth, columns, tmp_path):
    compiled = agrees(product(kind, rows, depth, columns), tmp_path, threads=1)
    padded = depth * (columns + 16)
    assert compiled.program.weights.nbytes < (padded // 2 if kind == "4 bits" else padded) + 32 * columns + 1024


@pytest.mark.parametrize("target", ["x86-64", "x86-64-v3"])
def test_other_instruction_sets_decode_the_same(target, tmp_path):
    for kind in ("column", "4 bits"):
        agrees(product(kind, 2, 64, 80), tmp_path / kind, target, threads=1)


def test_a_quantized_other_side_is_not_taken(tmp_path):
    """Integers on both sides are a product of integers."""
    net = Net(opset=13)
    x = net.input(3, 128, name="x")
    grid = net.constant(np.float32(0.01)), net.constant(np.uint8(128))
    real = net.op("DequantizeLinear", net.op("QuantizeLinear", x, *grid), *grid)
    q = np.random.default_rng(0).integers(-127, 128, (128, 64)).astype(np.int8)
    weight = dequantized(net, q, np.full(64, 0.01, np.float32), np.zeros(64, np.int8), 1)
    net.output(net.op("MatMul", real, weight))
    compiled = compile_net(net, tmp_path, threads=1)
    kernel = next(f for name, f in compiled.kernels.module.functions.items() if "matmul" in name.name_hint)
    assert "nncc_dot" in str(kernel)


def test_codes_of_4_bits_are_two_rows_a_byte():
    q = np.arange(16).reshape(4, 4) - 8
    codes = Codes(q, np.ones((1, 4)), np.zeros((1, 4), np.int64))
    assert codes.bits == 4 and (codes.q == q + 8).all() and (codes.zero == 8).all()
    packed = MATMUL.codes(codes.q, 4, codes.bits)
    assert packed.shape == (1, 2, 4)
    np.testing.assert_array_equal(packed[0, 1], [8 | 12 << 4, 9 | 13 << 4, 10 | 14 << 4, 11 | 15 << 4])


def test_bytes_without_a_sign_are_shifted():
    codes = Codes(np.array([[0, 255], [200, 3]]), np.ones((1, 2)), np.full((1, 2), 100))
    assert codes.bits == 8 and codes.q.min() >= -128 and codes.q.max() <= 127
    np.testing.assert_array_equal(codes.q - codes.zero, [[-100, 155], [100, -97]])
