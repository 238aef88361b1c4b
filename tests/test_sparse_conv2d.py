"""Convolutions that skip blocks of zeros: right, and taken only where they are predicted to be faster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from compiled import agrees, compile_net
from onnx import helper, numpy_helper

from nncc.config import Config
from nncc.kernels.dots import DOTS
from nncc.kernels.skipping import density, list_tiles
from nncc.kernels.templates import load_templates
from nncc.pipeline import plan, run
from nncc.target import resolve

Case = tuple[np.ndarray, tuple[int, ...], dict[str, object]]
"""A kernel, the shape of its input, and attributes of Conv."""
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


def models(cases: Mapping[str, Case], quantized: bool) -> onnx.ModelProto:
    """Each case with an input and an output of its own, `x NAME` and `y NAME`."""
    nodes, constants, shapes = [], {}, {}

    def constant(array: np.ndarray) -> str:
        name = f"c{len(constants)}"
        constants[name] = np.asarray(array)
        return name

    for name, (kernel, shape, attributes) in cases.items():
        out, x, y = len(kernel), f"x {name}", f"y {name}"
        shapes[x] = shape
        if quantized:
            scales = constant(np.linspace(0.005, 0.01, out).astype(np.float32))
            weights = constant(kernel.astype(np.int8)), scales, constant(np.zeros(out, np.int8))
            data = x, constant(np.float32(0.02)), constant(np.uint8(13))
            result = f"{y} conv", constant(np.float32(0.31)), constant(np.uint8(117))
            nodes += [
                helper.make_node("DequantizeLinear", data, [f"{x} real"]),
                helper.make_node("DequantizeLinear", weights, [f"{x} weights"], axis=0),
                helper.make_node("Conv", [f"{x} real", f"{x} weights"], [f"{y} conv"], **attributes),
                helper.make_node("QuantizeLinear", result, [y]),
            ]
        else:
            bias = constant(np.linspace(-1, 1, out).astype(np.float32))
            weights = constant((kernel / 127).astype(np.float32))
            nodes += [
                helper.make_node("Conv", [x, weights, bias], [f"{y} conv"], **attributes),
                helper.make_node("Relu", [f"{y} conv"], [y]),
            ]
    kind = onnx.TensorProto.UINT8 if quantized else onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(x, kind, shape) for x, shape in shapes.items()],
        [helper.make_empty_tensor_value_info(f"y {name}") for name in cases],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return onnx.shape_inference.infer_shapes(proto)


def model(kernel: np.ndarray, shape: tuple[int, ...], quantized: bool, **attributes: object) -> onnx.ModelProto:
    return models({"": (kernel, shape, attributes)}, quantized)


def takes(compiled) -> list[str]:
    return [how.split()[0] for how in compiled.program.schedules.values() if "conv2d" in how or "winograd" in how]


CASES = {
    "1x1": (pruned(32, 64, 1, 0.2), (1, 64, 9, 7), {}),
    "3x3": (pruned(48, 32, 3, 0.15), (1, 32, 11, 10), {"pads": [1, 1, 1, 1]}),
    "strided": (pruned(32, 32, 3, 0.2), (2, 32, 9, 9), {"pads": [0, 1, 1, 0], "strides": [2, 2]}),
    "dilated": (pruned(32, 16, 3, 0.2), (1, 16, 12, 12), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    "odd channels": (pruned(40, 36, 1, 0.25), (1, 36, 5, 6), {}),
}


@pytest.mark.parametrize(
    ("target", "names"), [("native", tuple(CASES)), ("x86-64-v3", ("strided", "odd channels"))], ids=["native", "v3"]
)
@pytest.mark.parametrize("quantized", [False, True], ids=["float32", "int8"])
def test_it_computes_what_a_dense_convolution_computes(quantized, target, names, tmp_path):
    cases = {name: CASES[name] for name in names}
    compiled = compile_net(models(cases, quantized), tmp_path, target, threads=1)
    assert takes(compiled) == ["sparse_conv2d"] * len(cases)
    random = np.random.default_rng(1)
    whole = {f"x {name}": random.integers(0, 256, shape) for name, (_, shape, _) in cases.items()}
    inputs = {x: a.astype(np.uint8) if quantized else (a / 128 - 1).astype(np.float32) for x, a in whole.items()}
    results, wanted = compiled.run(inputs), compiled.expected(inputs)
    for name in cases:
        found, expected = results[f"y {name}"], wanted[f"y {name}"]
        if quantized:
            assert np.abs(found.astype(int) - expected).max() <= 1, name
            assert (found != expected).mean() < 0.01, name
        else:
            # Two orders of adding up at most 300 products.
            assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), name


@pytest.mark.parametrize("target", ["rpi4", "rpi5", "riscv64"])
def test_other_processors_skip_the_same(target, tmp_path):
    kernel, shape, attributes = CASES["3x3"]
    compiled = agrees(model(kernel, shape, False, **attributes), tmp_path, target, threads=1)
    assert takes(compiled) == ["sparse_conv2d"]


def test_it_is_taken_only_where_it_is_predicted_to_be_faster(tmp_path):
    part = {"all": 1.0, "most": 0.9, "few": 0.3}
    cases: dict[str, Case] = {name: (pruned(64, 64, 1, keep), (1, 64, 8, 8), {}) for name, keep in part.items()}
    cases["half"] = pruned(64, 64, 3, 0.5), (1, 64, 28, 28), {"pads": [1, 1, 1, 1]}
    path = tmp_path / "cases.onnx"
    onnx.save(models(cases, False), path)
    kernels = run(plan(path, Config(until="lower", threads=1)))
    kinds = ("sparse_conv2d", "winograd", "conv2d")
    names = [var.name_hint for var in kernels.module.get_global_vars()]
    found = [next((kind for kind in kinds if kind in name), "") for name in names]
    assert [found.count(kind) for kind in kinds] == [1, 1, 2], names


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
