"""Sums of many numbers of half precision are made in float32."""

from __future__ import annotations

import numpy as np
from compiled import Net, agrees

from nncc.frontend.onnx import import_onnx
from nncc.passes.sums_in_float32 import sums_in_float32
from nncc.verify import reference, sample_inputs

ONE_STEP = 2.0**-10
"""Of float16, relative to the largest: two float32 sums that differ in their order are rounded to neighbours at most.
Sums in float16 of so many numbers of one sign are 5 to 50 steps off."""


def _net(opset: int = 17) -> Net:
    net = Net(opset)

    def positive(*shape: int) -> str:
        return net.constant(net.random.random(shape) * 0.05, np.float16)

    image, rows = net.input(1, 256, 5, 5, dtype=np.float16), net.input(3, 2048, dtype=np.float16)
    image, rows = net.op("Abs", image), net.op("Abs", rows)
    net.output(net.op("Conv", image, positive(8, 256, 3, 3), positive(8)))
    net.output(net.op("ConvTranspose", image, positive(256, 8, 3, 3)))
    net.output(net.op("InstanceNormalization", image, positive(256), positive(256)))
    net.output(net.op("GlobalAveragePool", image))
    net.output(net.op("Gemm", rows, positive(2048, 8), positive(8), alpha=0.5))
    net.output(net.op("LayerNormalization", rows, positive(2048), positive(2048)))
    net.output(net.op("ReduceSum", rows, net.ints(1)), net.op("ReduceL2", rows, axes=[1]))
    return net


def test_they_are_as_exact_as_those_of_onnx_runtime(tmp_path):
    agrees(_net(), tmp_path, tolerance=ONE_STEP)


def test_outputs_keep_their_names_and_types(tmp_path):
    model = import_onnx(_net().save(tmp_path / "net.onnx"))
    before = [(value.name, value.dtype) for value in model.graph.graph.outputs]
    inputs = sample_inputs(model, 0)
    expected = reference(model, inputs)
    assert sums_in_float32(model.graph).rewrites == 8
    assert [(value.name, value.dtype) for value in model.graph.graph.outputs] == before
    for name, found in reference(model, inputs).items():
        np.testing.assert_allclose(found, expected[name], rtol=2 * ONE_STEP, atol=ONE_STEP)
    assert sums_in_float32(model.graph).rewrites == 0
