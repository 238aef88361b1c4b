"""Kernels for tensor cores of bytes and halves compile for each generation of GPUs, and keep their tiles in
registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from compiled import Net
from fake_cuda import device_compiler
from quantized_layers import QuantizedNet

from nncc.codegen.cuda_compiler import compile_device_code
from nncc.config import Config
from nncc.pipeline import plan, run

pytestmark = pytest.mark.skipif(not device_compiler(), reason="no compiler for CUDA on this machine")


def quantized() -> Net:
    net = QuantizedNet()
    x = net.grid(net.conv(net.grid(net.input(1, 64, 28, 28)), 64, 128, (3, 3), pads=[1, 1, 1, 1]))
    x = net.grid(net.conv(x, 128, 128, (3, 3), pads=[1, 1, 1, 1], group=128))
    weight, _ = net.weights(128, 40, axis=1)
    scores = net.op("MatMul", net.grid(net.input(4, 49, 32)), net.grid(net.input(4, 32, 49)))
    net.output(net.grid(net.op("MatMul", net.op("Flatten", net.op("GlobalAveragePool", x)), weight)), net.grid(scores))
    return net


def plain() -> Net:
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 64, 28, 28), 64, 128, (3, 3), pads=[1, 1, 1, 1]))
    x = net.op("Relu", net.conv(x, 128, 128, (3, 3), pads=[1, 1, 1, 1], group=128))
    net.output(net.op("MatMul", net.op("Flatten", net.op("GlobalAveragePool", x)), net.weight(128, 40)))
    return net


@pytest.mark.parametrize("target", ["cuda-sm75", "cuda-sm80", "cuda-sm90"])
@pytest.mark.parametrize("make, precision", [(quantized, "float32"), (plain, "float16")])
def test_no_kernel_of_units_spills(tmp_path: Path, target: str, make: Any, precision: Any) -> None:
    config = Config(target=target, until="flatten", verify=False, precision=precision)
    program = run(plan(make().save(tmp_path / "net.onnx"), config))
    names = {schedule.split()[0] for schedule in program.schedules.values()}
    assert {"cuda_unit_conv2d", "cuda_unit_depthwise"} <= names
    code = compile_device_code(program.kernels, f"sm_{target.removeprefix('cuda-sm')}")
    assert code.resources
    assert [name for name, used in code.resources.items() if used.spilled_bytes] == []
