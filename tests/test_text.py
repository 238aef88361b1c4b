"""Models as text: counted by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import numpy_helper

from nncc.frontend.specs import specs
from nncc.ir import Model
from nncc.passes.infer_shapes import infer_shapes
from nncc.text import count, graph_text, macs, size


def model(text: str, **constants: tuple[int, ...]) -> Model:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    arrays = (numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in constants.items())
    proto.graph.initializer.extend(arrays)
    graph = onnx_ir.from_proto(proto)
    infer_shapes(graph)
    return Model(graph, "net", specs(graph.graph.inputs, "input"), specs(graph.graph.outputs, "output"))


def test_one_line_an_operator_aligned_with_totals():
    net = model(
        """g (float[1,4,8,8] x) => (float[1,10] y) {
            c = Conv <group = 2, kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (x, W, b)
            r = Relu (c)
            f = Flatten (r)
            y = Gemm (f, V, d)
        }""",
        W=(6, 2, 3, 3),
        b=(6,),
        V=(96, 10),
        d=(10,),
    )
    lines = graph_text(net).splitlines()
    assert lines[:4] == [
        "model net",
        "  opset   ai.onnx 17",
        "  input   x: float32[1x4x8x8]",
        "  output  y: float32[1x10]",
    ]
    # Parameters: 6*2*9 + 6 + 96*10 + 10 = 1084 floats. MAC: 96 outputs * 2*9 + 96*10 = 2688.
    assert lines[4] == "  4 nodes, 1.08 k parameters (4.23 KiB), 2.69 k MAC"
    assert lines[5:] == [
        "  %0  Conv     [1x6x4x4]  <- x, W[6x2x3x3], b[6]  group 2 kernel 3x3 pads 1,1,1,1 stride 2x2",
        "  %1  Relu     [1x6x4x4]  <- %0",
        "  %2  Flatten  [1x96]     <- %1",
        "  %3  Gemm     [1x10]     <- %2, V[96x10], d[10]                                            -> y",
    ]


@pytest.mark.parametrize(
    ("text", "constants", "expected"),
    [
        ("g (float[2,3,5] x) => (float[2,3,7] y) { y = MatMul (x, W) }", {"W": (5, 7)}, 2 * 3 * 7 * 5),
        ("g (float[5,2] x) => (float[2,7] y) { y = Gemm <transA = 1> (x, W) }", {"W": (5, 7)}, 2 * 7 * 5),
        ("g (float[1,4,3,3] x) => (float[1,2,4,4] y) { y = ConvTranspose (x, W) }", {"W": (4, 2, 2, 2)}, 36 * 8),
        ("g (float[1,4,3,3] x) => (float[1,4,2,2] y) { y = Conv <group = 4> (x, W) }", {"W": (4, 1, 2, 2)}, 16 * 4),
        ("g (float[2] x) => (float[2] y) { y = Relu (x) }", {}, 0),
    ],
)
def test_macs_are_counted_for_linear_operators(text, constants, expected):
    assert macs(next(iter(model(text, **constants).graph.graph))) == expected


def test_units_are_for_people():
    assert [size(n) for n in (0, 1023, 1024, 1536, 2**20 * 120, 3 * 2**30)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1.5 KiB",
        "120 MiB",
        "3 GiB",
    ]
    assert [count(n) for n in (0, 999, 1000, 42_100, 3_180_000_000, 999_999)] == [
        "0",
        "999",
        "1 k",
        "42.1 k",
        "3.18 G",
        "1 M",
    ]


def test_text_is_the_same_every_time():
    net = model("g (float[2] x) => (float[2] y) { y = Relu (x) }")
    assert graph_text(net) == graph_text(Model(net.graph.clone(), net.name, net.inputs, net.outputs))
