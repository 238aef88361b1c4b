"""Products of float32 by quantized weights on GPUs keep the weights small, and compute what ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Net
from emulated import Emulated, emulate, needs_compiler
from fake_cuda import device_compiler

from nncc.codegen.cuda_compiler import compile_device_code

pytestmark = needs_compiler

CASES: dict[str, tuple[str, tuple[int, ...], int]] = {
    "a scale for each column": ("column", (5, 128), 96),
    "one row": ("column", (1, 256), 64),
    "odd sizes": ("column", (7, 131), 75),
    "zero points": ("zero points", (2, 9, 96), 80),
    "uint8": ("unsigned", (6, 128), 64),
    "4 bits": ("4 bits", (5, 128), 96),
    "4 bits of odd columns": ("4 bits", (3, 130), 51),
    "groups of rows": ("groups", (4, 192), 64),
    "4 bits in groups with zero points": ("4 bits in groups", (4, 256), 72),
}


def product(net: Net, kind: str, shape: tuple[int, ...], columns: int) -> str:
    """x @ W with W as `kind` says, and a bias, which its kernel adds."""
    random, depth = np.random.default_rng(3), shape[-1]
    grouped = 32 if kind == "groups" else 64 if "groups" in kind else depth
    q = random.integers(-127, 128, (depth, columns)) // (16 if "4 bits" in kind else 1)
    scale = (random.uniform(0.5, 1, (depth // grouped, columns)) / 64).astype(np.float32)
    zero = random.integers(-5, 6, (depth // grouped, columns)) if "zero" in kind or "4 bits in" in kind else 0 * scale
    dtype = np.int8
    if kind == "unsigned":
        q, scale, zero, dtype = q + 128, scale[0, 0], np.array(131), np.uint8
    parts = [net.constant(array.astype(dtype)) for array in (q, np.squeeze(zero))]
    real = net.constant(np.squeeze(scale))
    if grouped == depth:
        weight = net.op("DequantizeLinear", parts[0], real, parts[1], axis=1)
    else:
        weight = net.op("DequantizeLinear", parts[0], real, parts[1], axis=0, block_size=grouped)
    return net.op("Add", net.op("MatMul", net.input(*shape), weight), net.weight(columns))


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated]:
    net = Net(opset=21)
    names = {case: product(net, *options) for case, options in CASES.items()}
    net.output(*names.values())
    return names, emulate(net, tmp_path_factory.mktemp("codes"))


@pytest.mark.parametrize("case", CASES)
def test_a_product_agrees(case: str, products: Any) -> None:
    """Sums of a few hundred float32 products in another order: 2e-6 of the largest."""
    names, emulated = products
    assert emulated.error(names[case]) < 2e-6


def test_the_weights_stay_small(products: Any) -> None:
    _, emulated = products
    templates = {schedule.split()[0] for schedule in emulated.kernels.schedules.values()}
    assert templates <= {"cuda_coded_matmul", "loops"}
    weights = sum(shape[-1] * columns * (0.5 if "4 bits" in kind else 1) for kind, shape, columns in CASES.values())
    assert emulated.program.weights.nbytes < 1.4 * weights, (
        "scales, offsets and biases included; float32 has 4 times as much"
    )


def test_with_tf32_tensor_cores_multiply_what_was_decoded(tmp_path: Path) -> None:
    """Factors are rounded to 11 bits, a part of 2^-12 each: some 2e-4 of the largest sum."""
    net = Net(opset=21)
    net.output(product(net, "column", (5, 128), 96))
    emulated = emulate(net, tmp_path, precision="tf32")
    (schedule,) = emulated.kernels.schedules.values()
    assert schedule.startswith("cuda_coded_matmul") and "TF32" in schedule
    assert emulated.error(emulated.program.outputs[0].name) < 5e-4


@pytest.mark.skipif(not device_compiler(), reason="no compiler for CUDA on this machine")
def test_no_kernel_spills(products: Any) -> None:
    _, emulated = products
    used = compile_device_code(emulated.program.kernels, "sm_80", later=False).resources
    assert used and [name for name, each in used.items() if each.spilled_bytes] == []
