"""Matrix products for GPUs agree with ONNX Runtime, and every tile that may be chosen computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import ROUNDING, Net
from emulated import Emulated, computed, emulate, needs_compiler

from nncc.kernels.choices import Choices
from nncc.target import resolve

pytestmark = needs_compiler

CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "one row": ((1, 70), (70, 33)),
    "one row by whole vectors": ((1, 256), (256, 1000)),
    "one column": ((19, 31), (31, 1)),
    "three rows": ((3, 5), (5, 7)),
    "a sequence": ((1, 57, 48), (48, 96)),
    "several sequences, one matrix": ((2, 3, 17, 20), (20, 36)),
    "as many matrices as sequences": ((2, 3, 9, 13), (2, 3, 13, 10)),
    "deep, in parts": ((4, 4096), (4096, 12)),
}


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Emulated]:
    net, names = Net(), {}
    for case, (left, right) in CASES.items():
        weight = net.weight(*right, scale=right[-2] ** -0.5) if len(right) == 2 else net.input(*right)
        names[case] = net.op("MatMul", net.input(*left), weight)
    net.output(*names.values())
    return names, emulate(net, tmp_path_factory.mktemp("products"), "cuda-sm90")


@pytest.mark.parametrize("case", CASES)
def test_a_product_for_a_gpu_agrees(case: str, products: tuple[dict[str, str], Emulated]) -> None:
    names, emulated = products
    assert emulated.error(names[case]) <= ROUNDING


def test_every_product_has_the_template(products: tuple[dict[str, str], Emulated]) -> None:
    _, emulated = products
    assert all(schedule.startswith("cuda_matmul tile") for schedule in emulated.kernels.schedules.values())


def test_every_tile_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tuning may choose, with sizes that no tile divides, and where that is possible in parts."""
    from nncc.compat import te
    from nncc.gpu import device_plans, device_tiles
    from nncc.kernels.schedule_kernel import schedule_kernel
    from nncc.kernels.templates import load_templates

    rows, depth, columns = 37, 101, 141
    random = np.random.default_rng(0)
    x, w = (random.standard_normal(size, np.float32) for size in ((rows, depth), (depth, columns)))
    target, templates = resolve("cuda-sm80"), load_templates()
    a, b = te.placeholder(x.shape, name="x"), te.placeholder(w.shape, name="w")
    function = te.create_prim_func([a, b, templates["cuda_matmul"].compute(a, b)])
    monkeypatch.setattr(device_plans, "MOST_OPTIONS", 1000)
    first = Choices()
    schedule_kernel(function, templates, target.hardware, first)
    shapes = {
        (m, n, tm, tn, slices): [m, n, k, tm, tn, *more, slices]
        for m, n, k, tm, tn, *more, slices in first.options["tile"]
    }
    scheduled = {}
    for number, tile in enumerate(shapes.values()):
        choices = Choices({"tile": tile, "parts": 1 + number % 2})
        scheduled[f"tile_{number}"], _ = schedule_kernel(function, templates, target.hardware, choices)
        assert choices.taken["tile"] == tile
    assert len(scheduled) == len(device_tiles.SIZES)
    empty = np.full((rows, columns), np.nan, np.float32)
    for _, y in computed(scheduled, target, (x, w), empty):
        assert np.abs(y - x @ w).max() <= ROUNDING * np.abs(x @ w).max(), shapes


def test_bias_and_activation_are_part_of_the_kernel(tmp_path: Any) -> None:
    net = Net()
    product = net.op("MatMul", net.input(5, 30), net.weight(30, 11))
    net.output(net.op("Sigmoid", net.op("Add", product, net.weight(11))))
    emulated = emulate(net, tmp_path)
    assert len(emulated.program.calls) == 1
    assert emulated.error(net.outputs[0]) <= ROUNDING
