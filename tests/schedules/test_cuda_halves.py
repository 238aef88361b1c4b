"""Networks in float16 and bfloat16 on GPUs are as near as the rounding of what is stored allows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from compiled import Net
from emulated import Emulated, computed, emulate, needs_compiler

from nncc.gpu.device_units import KINDS, SIZES
from nncc.kernels.choices import Choices
from nncc.target import resolve

HALF = 2.0**-11
"""What rounding to 10 bits of fraction takes off a number, relative to it; 7 bits, as bfloat16 has, 8 times that."""


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_every_tile_of_units_is_exact_on_small_integers(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of integers below 2^7 no bit is lost, and sums below 2^24 are exact in any order; depths, rows and columns fill
    no tile."""
    from nncc.compat import te
    from nncc.gpu import device_plans
    from nncc.kernels.schedule_kernel import schedule_kernel
    from nncc.kernels.templates import load_templates

    rows, depth, columns = 35, 93, 75
    random = np.random.default_rng(0)
    low = 0 if kind == "uint8" else -99
    x, w = random.integers(low, 100, (rows, depth)), random.integers(-99, 100, (depth, columns))
    stored = {"float16": np.float16, "bfloat16": np.float32}.get(kind, np.int8)
    signed = np.uint8 if kind == "uint8" else stored
    target, templates = resolve("cuda-sm80"), load_templates()
    template = templates["cuda_unit_matmul"]
    packed = template.module.pack(w, KINDS[kind].each)
    weight = "int8" if KINDS[kind].sum == "int32" else kind
    a, b = te.placeholder(x.shape, kind, name="x"), te.placeholder(packed.shape, weight, name="w")
    function = te.create_prim_func([a, b, template.compute(a, b, kind=kind, columns=columns)])
    monkeypatch.setattr(device_plans, "MOST_OPTIONS", 1000)
    first = Choices()
    schedule_kernel(function, templates, target.hardware, first)
    by_size = defaultdict(list)
    for m, n, k, wm, wn, stages in first.options["tile"]:
        by_size[m, n, wm, wn].append([m, n, k, wm, wn, stages])
    assert set(by_size) == set(SIZES)
    tiles = [deep[number % len(deep)] for number, deep in enumerate(by_size.values())]
    scheduled = {}
    # Kinds differ in nothing but the arithmetic: all tiles of one are enough.
    for number, tile in enumerate(tiles if kind == "uint8" else tiles[::5]):
        choices = Choices({"tile": tile})
        scheduled[f"tile_{number}"], _ = schedule_kernel(function, templates, target.hardware, choices)
        assert choices.taken["tile"] == tile
    data = [x.astype(signed), packed.astype(stored)]
    if kind == "bfloat16":
        data = [(array.view(np.uint32) >> 16).astype(np.uint16) for array in data]
    empty = np.full((rows, columns), -7, KINDS[kind].sum)
    for name, y in computed(scheduled, target, data, empty):
        assert (y == x @ w).all(), name


def network() -> Net:
    """Convolutions of odd sizes, one by channels, a residual, pools, a concatenation, a product, a softmax."""
    net = Net()
    x = net.op("Relu", net.conv(net.input(1, 3, 21, 19), 3, 20, (3, 3), pads=[1, 1, 1, 1], strides=[2, 2]))
    y = net.op("HardSwish", net.conv(x, 20, 20, (5, 5), pads=[2, 2, 2, 2], group=20))
    x = net.op("Add", net.conv(y, 20, 20, (1, 1)), x)
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = net.op("Concat", x, net.op("AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), axis=1)
    x = net.op("Relu", net.conv(x, 40, 24, (3, 3)))
    x = net.conv(x, 24, 24, (1, 1), group=3)
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.output(net.op("Softmax", net.op("MatMul", x, net.weight(24, 10))))
    return net


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    return emulate(network(), tmp_path_factory.mktemp("halves"), precision="float16")


@needs_compiler
def test_a_network_in_float16_is_as_near_as_its_rounding(halves: Emulated) -> None:
    """Ten roundings one after the other, of both factors of each product."""
    (name,) = halves.found
    assert halves.found[name].dtype == np.float32
    assert 0 < halves.error(name) <= 20 * HALF


@needs_compiler
def test_what_is_between_layers_is_stored_as_halves(halves: Emulated) -> None:
    """All that kernels write but the last: the sums of parts, and the logits, which softmax reads."""
    written = [list(f.params)[-1] for f in halves.kernels.module.functions.values() if hasattr(f, "params")]
    kinds = [str(p.dtype) for p in written if hasattr(p, "dtype")]
    assert kinds.count("float32") == 2 and set(kinds) == {"float16", "float32"}


@needs_compiler
def test_a_network_in_bfloat16_is_as_near_as_its_rounding(tmp_path: Path) -> None:
    emulated = emulate(network(), tmp_path, precision="bfloat16")
    (name,) = emulated.found
    assert 0 < emulated.error(name) <= 160 * HALF


@needs_compiler
def test_products_of_rows_in_float16_agree(tmp_path: Path) -> None:
    """A depth that fills no unit; a normalization between them is of float32."""
    net = Net()
    x = net.op("MatMul", net.input(2, 7, 45), net.weight(45, 36))
    scale, bias = net.weight(36), net.weight(36)
    x = net.op("LayerNormalization", x, scale, bias)
    net.output(net.op("MatMul", net.op("Relu", x), net.weight(36, 13)))
    emulated = emulate(net, tmp_path, precision="float16")
    assert 0 < emulated.error(net.outputs[0]) <= 8 * HALF


@needs_compiler
@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_model_of_float16_agrees(tmp_path: Path, precision: str) -> None:
    """With sums in float32, its one difference from ONNX Runtime is what that rounds between operators."""
    net = Net()
    weight = net.constant(net.random.standard_normal((12, 5, 3, 3)) / 7, np.float16)
    x = net.op("Conv", net.input(1, 5, 9, 7, dtype=np.float16), weight, pads=[1, 1, 1, 1])
    net.output(net.op("Add", net.op("Sigmoid", x), x))
    emulated = emulate(net, tmp_path, precision=precision)
    (name,) = net.outputs
    assert emulated.found[name].dtype == np.float16
    assert emulated.error(name) <= 4 * HALF
