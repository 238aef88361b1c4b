"""Winograd's convolution of integers is exact: it gives the very integers of a direct one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import Net, compile_net
from onnx import helper, numpy_helper

from nncc.backends import backend
from nncc.codegen.flatten import flatten
from nncc.codegen.lower import lower
from nncc.codegen.schedule import schedule
from nncc.execute import open_library
from nncc.frontend.onnx import import_onnx
from nncc.kernels.templates import load_templates
from nncc.passes.simplify import simplify
from nncc.passes.specialize import specialize
from nncc.target import resolve
from nncc.verify import judge

WINOGRAD = load_templates()["winograd"].module
X86 = ["x86-64-v3", "native"]


def convolution(kernel: np.ndarray, size: tuple[int, int], zero: int, scale: float) -> onnx.ModelProto:
    """A quantized 3x3 convolution of bytes, with a border, from bytes to bytes."""
    channels, inputs = kernel.shape[:2]
    weights = (np.random.default_rng(2).uniform(0.5, 1, channels) * 0.01).astype(np.float32)
    constants = {
        "sx": np.float32(0.02), "zx": np.uint8(zero), "w": kernel.astype(np.int8), "sw": weights,
        "zw": np.zeros(channels, np.int8), "sy": np.float32(scale), "zy": np.uint8(117),
    }  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "sx", "zx"], ["dx"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zw"], ["dw"], axis=0),
        helper.make_node("Conv", ["dx", "dw"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("QuantizeLinear", ["c", "sy", "zy"], ["y"]),
    ]
    byte = onnx.TensorProto.UINT8
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", byte, [1, inputs, *size])],
        [helper.make_tensor_value_info("y", byte, [1, channels, *size])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def compiled_as(way: object, path: Path, folder: Path, target_name: str) -> Path:
    """The library of the model at `path`, its convolution by `way`, a plan of Winograd's or None."""
    templates, target = load_templates(), resolve(f"{target_name},num-cores=1")
    templates["winograd"].module.ways = lambda *_: [way]
    network = specialize(simplify(import_onnx(path)), target, templates)
    program = flatten(schedule(lower(network), templates))
    assert any("winograd" in how for how in program.schedules.values()) == (way is not None)
    return backend(target).build(program, folder, "net").library


@pytest.mark.parametrize("target", X86)
@pytest.mark.parametrize("size", [(8, 8), (7, 13)])
def test_each_tile_gives_the_integers_of_a_direct_convolution(target, size, tmp_path):
    if target == "native" and resolve("native").hardware.int8_dot == "pmaddwd":
        pytest.skip("this machine's own code is that for AVX2")
    random = np.random.default_rng(0)
    kernel = random.integers(-127, 128, (40, 32, 3, 3))
    onnx.save(convolution(kernel, size, 13, 0.5), tmp_path / "net.onnx")
    x = random.integers(0, 256, (1, 32, *size)).astype(np.uint8)
    found = {}
    for way in (None, *(WINOGRAD.Plan(tile, 1, 0.0) for tile in WINOGRAD.TILES[1])):
        library = compiled_as(way, tmp_path / "net.onnx", tmp_path / str(way), target)
        found[way] = open_library(library, 1, resolve(target)).run({"x": x})["y"]
    direct = found.pop(None)
    assert len(np.unique(direct)) > 20
    for way, y in found.items():
        np.testing.assert_array_equal(y, direct, str(way))


@pytest.mark.parametrize("target", X86)
def test_it_is_exact_up_to_the_largest_sums_that_it_is_used_for(target, tmp_path):
    """All weights and activations at their limits: sums of 9 K times 255 times 127, the most that F(4x4) can hold."""
    channels = (1 << 25) // (255 * 127 * 9) // 16 * 16
    kernel = np.full((32, channels, 3, 3), 127)
    kernel[1::2] = -127
    assert WINOGRAD.exact(kernel, (4, 4))
    onnx.save(convolution(kernel, (8, 8), 0, 20.0), tmp_path / "net.onnx")
    x = np.full((1, channels, 8, 8), 255, np.uint8)
    x[0, ::5, 2:5] = 0
    results = [
        open_library(compiled_as(way, tmp_path / "net.onnx", tmp_path / str(way), target), 1, resolve(target)).run(
            {"x": x}
        )["y"]
        for way in (None, WINOGRAD.Plan((4, 4), 2, 0.0))
    ]
    np.testing.assert_array_equal(*results)
    assert results[0].min() == 0 and results[0].max() == 255


def test_it_is_refused_where_a_sum_could_be_too_large():
    kernel = np.full((1, 128, 3, 3), 127)
    assert not WINOGRAD.exact(kernel, (4, 4))
    assert WINOGRAD.exact(kernel, (2, 2))


def test_transformed_weights_and_activations_fit_16_bits():
    """The largest transformed weight is 144 times the largest weight, the largest activation 100 times 255."""
    for m, scales in WINOGRAD.SCALES.items():
        into, g, out = WINOGRAD.MATRICES[m, 1]
        whole = np.asarray(scales)[:, None] * g
        assert np.abs(whole - np.rint(whole)).max() < 1e-12
        assert np.abs(np.rint(whole)).sum(axis=1).max() ** 2 * 128 < 2**15
        assert np.abs(into).sum(axis=1).max() ** 2 * 255 < 2**15
        back = out * WINOGRAD.DENOMINATORS[m] / scales
        np.testing.assert_array_equal(back, np.rint(back))


def test_a_quantized_network_gets_it_and_agrees(tmp_path):
    """A residual block of the size where it pays; its numbers are ONNX Runtime's."""
    pytest.importorskip("onnxruntime.quantization")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    net = Net()
    x = net.input(1, 64, 28, 28, name="x")
    first = net.op("Relu", net.conv(x, 64, 64, (3, 3), pads=[1, 1, 1, 1]))
    net.output(net.op("Relu", net.op("Add", net.conv(first, 64, 64, (3, 3), pads=[1, 1, 1, 1]), x)))
    net.save(tmp_path / "float.onnx")

    class Reader(CalibrationDataReader):
        left = iter(
            [{"x": np.random.default_rng(n).uniform(-1, 1, (1, 64, 28, 28)).astype(np.float32)} for n in (1, 2)]
        )

        def get_next(self):
            return next(self.left, None)

    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "net.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    if resolve("native").hardware.int8_dot not in ("vnni512", "pmaddwd"):
        pytest.skip("this machine has no fast product of 16-bit integers")
    compiled = compile_net(tmp_path / "net.onnx", tmp_path, threads=1)
    assert sum("winograd" in how for how in compiled.program.schedules.values()) == 2
    inputs = compiled.sample()
    expected, found = compiled.expected(inputs), compiled.run(inputs)
    assert all(comparison.ok for comparison in judge(compiled.model, inputs, expected, found))
