"""Convolutions that skip blocks of zeros: right, and taken only where they are predicted to be faster."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from compiled import agrees, compile_net
from onnx import helper, numpy_helper

from nncc.dots import DOTS
from nncc.skipping import density, list_tiles
from nncc.target import resolve
from nncc.templates import load_templates

SPARSE = load_templates()["sparse_conv2d"].module


def pruned(out: int, channels: int, window: int, keep: float, seed: int = 0) -> np.ndarray:
    """int8 weights of which some blocks of 16 x 4 are left, as many in each row of blocks."""
    random = np.random.default_rng(seed)
    kernel = random.integers(-127, 128, (-(-out // 16) * 16, -(-channels // 4) * 4, window, window))
    blocks = kernel.reshape(kernel.shape[0] // 16, 16, kernel.shape[1] // 4, 4, window, window)
    for row in blocks:
        places = [(c, i, j) for c in range(row.shape[1]) for i in range(window) for j in range(window)]
        for n in random.permutation(len(places))[round(len(places) * keep) :]:
            c, i, j = places[n]
            row[:, c, :, i, j] = 0
    return np.ascontiguousarray(kernel[:out, :channels])


def model(kernel: np.ndarray, shape: tuple[int, ...], quantized: bool, **attributes: object) -> onnx.ModelProto:
    out = len(kernel)
    if quantized:
        constants = {
            "sx": np.float32(0.02), "zx": np.uint8(13), "w": kernel.astype(np.int8),
            "sw": np.linspace(0.005, 0.01, out).astype(np.float32), "zw": np.zeros(out, np.int8),
            "sy": np.float32(0.31), "zy": np.uint8(117),
        }  # fmt: skip
        nodes = [
            helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["dx"]),
            helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["dw"], axis=0),
            helper.make_node("Conv", ["dx", "dw"], ["c"], **attributes),
            helper.make_node("QuantizeLinear", ["c", "sy", "zy"], ["y"]),
        ]
        kind = onnx.TensorProto.UINT8
    else:
        constants = {"w": (kernel / 127).astype(np.float32), "b": np.linspace(-1, 1, out).astype(np.float32)}
        nodes = [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], **attributes),
            helper.make_node("Relu", ["c"], ["y"]),
        ]
        kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


def takes(compiled) -> list[str]:
    return [how.split()[0] for how in compiled.program.schedules.values() if "conv2d" in how or "winograd" in how]


CASES = {
    "1x1": (pruned(32, 64, 1, 0.2), (1, 64, 9, 7), {}),
    "3x3": (pruned(48, 32, 3, 0.15), (1, 32, 11, 10), {"pads": [1, 1, 1, 1]}),
    "strided": (pruned(32, 32, 3, 0.2), (2, 32, 9, 9), {"pads": [0, 1, 1, 0], "strides": [2, 2]}),
    "dilated": (pruned(32, 16, 3, 0.2), (1, 16, 12, 12), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    "odd channels": (pruned(40, 36, 1, 0.25), (1, 36, 5, 6), {}),
}


@pytest.mark.parametrize("target", ["native", "x86-64-v3"])
@pytest.mark.parametrize("quantized", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_a_dense_convolution_computes(case, quantized, target, tmp_path):
    kernel, shape, attributes = CASES[case]
    given = model(kernel, shape, quantized, **attributes)
    compiled = compile_net(given, tmp_path, target, threads=1)
    assert takes(compiled) == ["sparse_conv2d"]
    x = np.random.default_rng(1).integers(0, 256, shape)
    inputs = {"x": x.astype(np.uint8) if quantized else (x / 128 - 1).astype(np.float32)}
    (found,) = compiled.run(inputs).values()
    (expected,) = compiled.expected(inputs).values()
    if quantized:
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert (found != expected).mean() < 0.01
    else:
        # Two orders of adding up at most 300 products.
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("target", ["rpi4", "rpi5", "riscv64"])
def test_other_processors_skip_the_same(target, tmp_path):
    kernel, shape, attributes = CASES["3x3"]
    compiled = agrees(model(kernel, shape, False, **attributes), tmp_path, target, threads=1)
    assert takes(compiled) == ["sparse_conv2d"]


def test_it_is_taken_only_where_it_is_predicted_to_be_faster(tmp_path):
    for keep, expected in ((1.0, "conv2d"), (0.9, "conv2d"), (0.3, "sparse_conv2d")):
        compiled = compile_net(model(pruned(64, 64, 1, keep), (1, 64, 8, 8), False), tmp_path / str(keep), threads=1)
        assert takes(compiled) == [expected]
    half = model(pruned(64, 64, 3, 0.5), (1, 64, 28, 28), False, pads=[1, 1, 1, 1])
    assert takes(compile_net(half, tmp_path / "half", threads=1)) == ["winograd"]


def test_the_longest_list_counts():
    kernel = np.zeros((32, 8, 1, 1))
    assert density(kernel, 16) == 0
    kernel[3, 5] = 1
    assert density(kernel, 16) == 0.5


def test_large_windows_and_channels_that_are_no_words_are_not_skipped():
    hardware = resolve("x86-64-v4-vnni").hardware
    assert SPARSE.lists(np.zeros((16, 4, 17, 1)), 4, 16, 8, hardware) is None
    assert SPARSE.lists(np.zeros((16, 3, 3, 3)), 3, 16, 8, hardware) is None


def test_vectors_share_a_list_where_their_blocks_are_zero_together():
    """A float32 vector of AVX2 has 8 lanes: two share the activations that blocks of 16 x 4 read."""
    hardware, kernel = resolve("x86-64-v3").hardware, np.ones((32, 16, 1, 1))
    kernel[:, 8:] = 0
    assert SPARSE.lists(kernel, 8, 8, 28, hardware)[:2] == (2, 0.5)
    kernel[:8], kernel[8:16] = kernel[:8], kernel[8:16, ::-1]
    assert SPARSE.lists(kernel, 8, 8, 28, hardware)[:2] == (1, 0.5)


def test_no_more_registers_are_taken_than_there_are():
    for target in ("x86-64-v3", "x86-64-v4-vnni", "rpi4", "rpi5"):
        hardware = resolve(target).hardware
        for lanes, vectors in ((4, 4), (8, 2), (16, 1)):
            each = max(1, lanes * 32 // hardware.vector_bits)
            for rows, lists in list_tiles(28, 4, vectors, lanes, hardware):
                assert (rows * lists + 1) * vectors * each + 2 <= hardware.vector_registers or (rows, lists) == (1, 1)


def test_blocks_are_packed_with_their_places():
    kernel = np.zeros((16, 32, 3, 3), np.float32)
    kernel[:, 20:24, 2, 1] = np.arange(64).reshape(16, 4)
    weights, places = SPARSE.pack(kernel, 16, 16)
    assert weights.shape == (1, 1, 4, 1, 16) and places.tolist() == [[((1 << 4 | 2) << 4 | 1) << 4 | 1]]
    np.testing.assert_array_equal(weights[0, 0, :, 0], np.arange(64).reshape(16, 4).T)
    halves, _ = SPARSE.pack(kernel, 16, 8, 2)
    np.testing.assert_array_equal(halves[0, 0].reshape(4, 16), weights[0, 0, :, 0])
    words, _ = SPARSE.pack(kernel.astype(np.int8), 16, 16, 1, DOTS["vnni512"])
    assert words.shape == (1, 1, 1, 1, 64) and words.dtype == np.int8
    np.testing.assert_array_equal(words.reshape(16, 4), np.arange(64).reshape(16, 4))
