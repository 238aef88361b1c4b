"""Products on tensor cores: exact where 10 bits of fraction are enough, and as near as rounding to them allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Net, compile_net
from emulated import computed, emulate, needs_compiler

from nncc.errors import UsageError
from nncc.kernels.choices import Choices
from nncc.target import resolve

TF32 = 2.0**-10
"""Each factor is off by at most 2^-11 of itself, so each product by 2^-10, and so are sums of products of one sign;
errors of others cancel as the products do."""


@needs_compiler
def test_every_tile_for_tensor_cores_is_exact_on_small_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of integers below 2^10 no bit is lost, and sums below 2^24 are exact in any order."""
    from nncc.compat import te
    from nncc.gpu import device_plans, device_tiles
    from nncc.kernels.schedule_kernel import schedule_kernel
    from nncc.kernels.templates import load_templates

    rows, depth, columns = 35, 45, 139
    random = np.random.default_rng(0)
    x, w = (random.integers(-99, 100, size).astype(np.float32) for size in ((rows, depth), (depth, columns)))
    target, templates = resolve("cuda-sm80"), load_templates()
    a, b = te.placeholder(x.shape, name="x"), te.placeholder(w.shape, name="w")
    function = te.create_prim_func([a, b, templates["cuda_matmul"].compute(a, b, tf32=True)])
    monkeypatch.setattr(device_plans, "MOST_OPTIONS", 1000)
    first = Choices()
    schedule_kernel(function, templates, target.hardware, first)
    shapes = {(m, n, wm, wn): [m, n, k, wm, wn, stages] for m, n, k, wm, wn, stages in first.options["tile"]}
    assert set(shapes) == set(device_tiles.TENSOR_SIZES)
    scheduled = {}
    for number, tile in enumerate(shapes.values()):
        choices = Choices({"tile": tile})
        scheduled[f"tile_{number}"], _ = schedule_kernel(function, templates, target.hardware, choices)
        assert choices.taken["tile"] == tile
    empty = np.full((rows, columns), np.nan, np.float32)
    for name, y in computed(scheduled, target, (x, w), empty):
        assert (y == x @ w).all(), name


@needs_compiler
def test_a_network_in_tf32_is_as_near_as_its_rounding(tmp_path: Path) -> None:
    net = Net()
    convolution = net.op("Relu", net.conv(net.input(1, 12, 9, 9), 12, 20, (3, 3), pads=[1, 1, 1, 1]))
    product = net.op("MatMul", net.input(7, 50), net.weight(50, 24, scale=50**-0.5))
    net.output(convolution, product)
    emulated = emulate(net, tmp_path, precision="tf32")
    for name in net.outputs:
        assert 0 < emulated.error(name) <= TF32
    assert all("TF32" in schedule for schedule in emulated.kernels.schedules.values())


def test_tf32_is_refused_where_no_tensor_core_takes_it(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Relu", net.input(3)))
    for target in ("cuda-sm75", "x86-64-v3"):
        with pytest.raises(UsageError) as error:
            compile_net(net, tmp_path, target, until="specialize", precision="tf32")
        assert str(error.value) == (
            f"`--precision tf32` needs tensor cores that take it, which `{target}` does not have"
        )
        assert error.value.hint == "GPUs have them from compute capability 8.0 on: `nncc targets` lists targets"


def test_halves_are_refused_where_no_tensor_core_takes_them(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Relu", net.input(3)))
    for target, precision, since in (("x86-64-v3", "float16", "7.5"), ("cuda-sm75", "bfloat16", "8.0")):
        with pytest.raises(UsageError) as error:
            compile_net(net, tmp_path, target, until="specialize", precision=precision)
        assert str(error.value) == (
            f"`--precision {precision}` needs tensor cores that take it, which `{target}` does not have"
        )
        assert error.value.hint == f"GPUs have them from compute capability {since} on: `nncc targets` lists targets"


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    net = Net()
    net.output(net.op("Relu", net.input(3)))
    with pytest.raises(UsageError) as error:
        compile_net(net, tmp_path, "cuda-sm80", until="specialize", precision="fp8")
    assert str(error.value) == "`--precision fp8` is none of float32, tf32, float16, bfloat16"
