"""The one prediction of a product's time."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir
import pytest
from onnx import TensorProto, helper

from nncc.layer_time import LayerTimes, Product
from nncc.passes.products import product_of
from nncc.target import Hardware

BOARD = Hardware(peak_gflops=8.0, dram_gbps=2.0)
"""Vectors of four floats."""


def conv(depth, columns, size, window=1, groups=1, stride=1):
    inputs = depth * groups * (size * stride) ** 2
    return Product("conv", 1, (size, size), depth, columns, inputs, columns * size**2, (window, window), groups,
                   (stride, stride), (1, 1))  # fmt: skip


def test_a_product_takes_nine_tenths_of_the_peak_in_whole_vectors():
    times = LayerTimes(BOARD)
    assert times.seconds(conv(64, 64, 10)) == pytest.approx(2 * 100 * 64 * 64 / 8e9 / 0.9)
    assert times.seconds(conv(64, 61, 10)) == times.seconds(conv(64, 64, 10)), "61 channels are 16 vectors too"
    assert times.seconds(Product("matmul", 100, (), 64, 64, 6400, 6400)) == times.seconds(conv(64, 64, 10))
    up = Product("conv_transpose", 1, (10, 10), 64, 16, 6400, 6400, (2, 2), strides=(2, 2))
    assert times.seconds(up) == times.seconds(conv(64, 64, 10))


def test_a_depthwise_convolution_takes_as_long_as_its_bytes_come_from_memory():
    times, product = LayerTimes(BOARD), conv(1, 64, 10, window=3, groups=64)
    assert times.seconds(product) == pytest.approx(2 * 100 * 9 * 64 / 8e9 / 0.9)
    assert times.seconds(product, 2e6) == pytest.approx(1e-3)


def test_without_a_peak_times_compare_and_memory_takes_none():
    times = LayerTimes(Hardware(dram_gbps=2.0))
    assert times.seconds(conv(64, 64, 10), 1e9) == pytest.approx(2e-9 * 100 * 64 * 64 / 0.9)
    assert LayerTimes(replace(BOARD, dram_gbps=0.0)).seconds(conv(64, 64, 10), 1e9) < 1e-3


def test_winograd_counts_where_the_compiler_would_take_it():
    """Of 64 channels on 56x56 pixels, 3x3: fewer multiplications than the model says; of 4 channels it does not pay."""
    times, large, small = LayerTimes(BOARD), conv(64, 64, 56, window=3), conv(4, 4, 56, window=3)
    seconds, direct = times.seconds(large), 2 * large.macs / 8e9
    assert direct / 4 < seconds < direct, "F(4x4, 3x3) has a quarter of the multiplications"
    assert times.in_float(large)[1] == " by Winograd's convolution"
    assert times.in_float(small)[1] == "" and times.in_float(conv(64, 64, 28, window=5, stride=2))[1] == ""


def test_integers_are_as_fast_as_their_instruction():
    product = conv(256, 256, 14)
    seconds = {word: LayerTimes(replace(BOARD, int8_dot=word)).seconds(product, integers=True)
               for word in ("sdot", "smull", "none")}  # fmt: skip
    plain = LayerTimes(BOARD).seconds(product)
    assert 3.5 < plain / seconds["sdot"] < 4.0 and 1.8 < plain / seconds["smull"] < 2.0
    assert seconds["none"] > plain


def shapes_and_node(op_type, shapes, out, **attributes):
    names = [f"v{at}" for at in range(len(shapes))]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in zip(names, shapes, strict=True)]  # fmt: skip
    graph = helper.make_graph([helper.make_node(op_type, names, ["y"], **attributes)], "g", values,
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)])  # fmt: skip
    model = onnx_ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    return next(iter(model.graph)), dict(zip([*names, "y"], [*shapes, out], strict=True))


@pytest.mark.parametrize(
    ("op_type", "shapes", "out", "attributes", "macs"),
    [
        ("Conv", [(2, 6, 9, 9), (8, 3, 3, 3)], (2, 8, 4, 4), {"group": 2, "strides": [2, 2]}, 2 * 16 * 8 * 3 * 9),
        ("Conv", [(1, 6, 9), (8, 6, 3)], (1, 8, 7), {}, 7 * 8 * 6 * 3),
        ("ConvTranspose", [(1, 6, 4, 4), (6, 5, 2, 2)], (1, 10, 8, 8), {"group": 2, "strides": [2, 2]}, 16 * 6 * 5 * 4),
        ("Gemm", [(6, 5), (6, 7)], (5, 7), {"transA": 1}, 5 * 6 * 7),
        ("MatMul", [(2, 3, 4, 5), (5, 7)], (2, 3, 4, 7), {}, 24 * 5 * 7),
        ("MatMul", [(2, 3, 5), (5,)], (2, 3), {}, 6 * 5),
        ("MatMul", [(5,), (5,)], (), {}, 5),
        ("MatMul", [(4, 3), (2, 3, 6)], (2, 4, 6), {}, 2 * 4 * 3 * 6),
    ],
)
def test_products_of_onnx_have_their_sizes(op_type, shapes, out, attributes, macs):
    node, known = shapes_and_node(op_type, shapes, out, **attributes)
    assert product_of(node, known).macs == macs
    assert product_of(node, {}) is None


def test_other_nodes_are_no_products():
    node, known = shapes_and_node("Add", [(2, 3), (2, 3)], (2, 3))
    assert product_of(node, known) is None
